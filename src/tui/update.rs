//! `(&mut State, Action) -> Vec<Effect>`: the only place where the state changes.
//!
//! Called by the loop for every action. No I/O, no clock, no terminal.

use std::collections::BTreeMap;

use crate::tui::action::{Action, Command, Context, Safety, Wheel};
use crate::tui::effect::{Effect, MouseUse, Progressed, Told};
use crate::tui::geometry::Target;
use crate::tui::overlays::notice::Notice;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay};
use crate::tui::state::{Detail, Dirty, FirstSteps, State, Typing};
use crate::tui::tab_blocklist::transfer;
use crate::tui::tab_proxy::{View, list, usage};
use crate::tui::tab_security::overview;
use crate::tui::tabs::Tab;
use crate::tui::theme::Role;
use crate::tui::theme::ThemeShelf;
use crate::tui::world::{Link, Touched};
use crate::tui::{ConsoleAccess, OwnerOrigin, StartDetection, answers, tab_models, tab_prompts, tab_security};
use crate::types::calls::addresses::{ListBlocks, ListNetworks, NetworkList};
use crate::types::calls::alerts::{ListAlertChannels, ListInbox};
use crate::types::calls::backup::{BackupProgress, BackupStage, CreateBackup};
use crate::types::calls::captures::ListCaptures;
use crate::types::calls::engines::{DetectEngines, ListEngineKinds};
use crate::types::calls::expose::ExposeCheck;
use crate::types::calls::keys::{EnsureFirstKey, ListKeys};
use crate::types::calls::legacy::{LegacyProgress, LegacyWork};
use crate::types::calls::profiles::ListProfiles;
use crate::types::calls::prompts::{ListPromptRoutes, ListPrompts};
use crate::types::calls::proxy::StartListener;
use crate::types::calls::settings::ListSettings;
use crate::types::engine::TransferProgress;
use crate::types::live::{LiveEvent, LiveLine, Noun};
use crate::types::text::escape;

/// Blocks read for the Blocklist tab: one full page (SPEC §2 caps a page at 1000).
const BLOCKS_PAGE: u32 = 1000;

/// Captured exchanges whose requests are marked.
const CAPTURES_PAGE: u32 = 1000;
/// Alerts read for the inbox.
const INBOX_PAGE: u32 = 200;

/// Changes the state as the action asks and answers what the world outside must do.
pub fn update(state: &mut State, action: Action) -> Vec<Effect> {
    match action {
        Action::Run(command) => {
            state.soil(Dirty::Now);
            run(state, command);
        }
        Action::Type(key) => {
            state.soil(Dirty::Now);
            type_key(state, key);
        }
        Action::Paste(text) => {
            state.soil(Dirty::Now);
            paste(state, &text);
        }
        Action::Click { column, row } => click(state, column, row),
        Action::Turn { wheel, .. } => turn(state, wheel),
        Action::Resize { columns, rows } => {
            state.size = (columns, rows);
            overlays::resized(state);
            state.soil(Dirty::Now);
        }
        Action::Focus(_) => {}
        Action::Attached(origin) => state.origin = Some(origin),
        Action::Lost { failure, attempt, retry_at } => {
            // Their answers will not come.
            state.pending.clear();
            overlays::forget_calls(state, &failure);
            tab_models::forget_calls(state);
            state.security.forget_calls();
            // Its answer will not come either.
            let _gone = state.proxy.requests.window.forget();
            state.world.link = Link::Lost { failure, attempt, retry_at };
            state.soil(Dirty::Now);
        }
        Action::Themes(themes) => take_themes(state, themes),
        Action::Live(line) => live(state, *line),
        Action::Progressed(progressed) => {
            let Progressed { ticket, told } = *progressed;
            match told {
                Told::Transfer(progress) => {
                    overlays::work::progressed(state, ticket, progress);
                    state.soil(Dirty::Data);
                }
                Told::Chat(progress) => tab_models::chat::told(state, ticket, progress),
                Told::Compare(progress) => tab_models::compare::told(state, ticket, progress),
                Told::Backup(BackupProgress { stage, done, total }) => {
                    let stage = match stage {
                        BackupStage::Settings => "work.stage_settings",
                        BackupStage::Security => "work.stage_security",
                        BackupStage::Checking => "work.stage_checking",
                    };
                    let stage = state.words.say(stage).into_owned();
                    let progress = TransferProgress { stage, completed: done, total: (total > 0).then_some(total) };
                    overlays::work::progressed(state, ticket, progress);
                    state.soil(Dirty::Data);
                }
                Told::Legacy(LegacyProgress { stage, done, total }) => {
                    let counts_bytes = stage == LegacyWork::Copying;
                    if stage == LegacyWork::Storing {
                        overlays::work::settle(state, ticket);
                    }
                    let mut stage = state.words.say(overlays::legacy::stage(stage)).into_owned();
                    if total > 0 && !counts_bytes {
                        stage.push_str(&format!(" {done}/{total}"));
                    }
                    let total = (total > 0 && counts_bytes).then_some(total);
                    let progress = TransferProgress { stage, completed: done, total };
                    overlays::work::progressed(state, ticket, progress);
                    state.soil(Dirty::Data);
                }
                // It tells no more than that it has begun.
                Told::Load(_) => {}
            }
        }
        Action::Written { ticket, path, outcome } => {
            answers::written(state, ticket, &path, outcome);
            state.soil(Dirty::Now);
        }
        Action::FileRead { ticket, outcome } => {
            transfer::take_file(state, ticket, outcome);
            state.soil(Dirty::Now);
        }
        Action::Answered(answer) => {
            answers::take(state, *answer);
            state.soil(Dirty::Now);
        }
        Action::Tick => {
            let now = state.now;
            state.toasts.retain(|toast| toast.expires > now);
            overlays::firewall::tick(state);
            state.soil(Dirty::Now);
        }
    }
    // What an action changed in what is looked for, or how near the selection came to the end of what is held.
    tab_security::list::settle(state);
    list::settle(state);
    state.take_effects()
}

/// Takes the person's theme files as they are now; a faulty one is told, and the colours stay as they were.
fn take_themes(state: &mut State, themes: BTreeMap<String, String>) {
    state.shelf = ThemeShelf::new(themes);
    let name = state.theme.name.clone();
    match state.shelf.load(&name, state.depth) {
        Ok(theme) if theme == state.theme => {}
        Ok(theme) => {
            state.theme = theme;
            state.soil(Dirty::Now);
        }
        Err(error) => state.toast(Level::Error, escape(&error.to_string()).into_owned()),
    }
}

/// Carries a command out, wherever it came from.
pub fn run(state: &mut State, command: Command) {
    let row = command.row();
    if state.access == ConsoleAccess::ReadOnly && row.safety != Safety::Looks {
        state.toast(Level::Warn, state.words.say("toast.read_only").into_owned());
        return;
    }
    if row.context == Context::Global {
        run_global(state, command);
    } else {
        match command {
            _ if row.context == Context::Editor => tab_prompts::run_editor(state, command),
            Command::Filter => {
                state.detail = Detail::Closed;
                state.filter_mut().typing = Typing::Yes;
            }
            _ => state.tab.run(state, command),
        }
    }
}

fn run_global(state: &mut State, command: Command) {
    if let Some(tab) = command.tab() {
        show_tab(state, tab);
        return;
    }
    match command {
        Command::Help => overlays::open(state, Overlay::Menu(overlays::menu::Menu::help())),
        Command::Palette => overlays::open(state, Overlay::Menu(overlays::menu::Menu::palette())),
        Command::Settings => overlays::open(state, Overlay::Settings(overlays::settings::Settings::default())),
        Command::Alerts => overlays::open(state, Overlay::Alerts(overlays::alerts::Alerts::default())),
        Command::ExposeCheck if state.is_live() => {
            state.call(ExposeCheck {});
        }
        Command::Quit => overlays::quit::ask(state),
        Command::Back => back(state),
        Command::Undo => undo(state),
        Command::NextTab => show_tab(state, state.tab.next()),
        Command::PreviousTab => show_tab(state, state.tab.previous()),
        Command::Refresh if state.is_live() => {
            read_stores(state);
            if state.proxy.view.shows_usage() {
                usage::read(state);
            }
            state.toast(Level::Info, state.words.say("toast.refreshed").into_owned());
        }
        Command::ChatTester => {
            show_tab(state, Tab::Models);
            tab_models::chat::open(state);
        }
        Command::CompareModels => {
            show_tab(state, Tab::Models);
            tab_models::compare::open(state);
        }
        Command::GoPublic => overlays::wizard::open(state),
        Command::Backup if state.is_live() => {
            let what = state.words.say("work.databases").into_owned();
            overlays::work::begin(state, "work.backup", &what, CreateBackup::default());
        }
        Command::MoveIn if state.is_live() => overlays::open(state, Overlay::Form(overlays::legacy::ask())),
        Command::Repaint => state.ask(Effect::Repaint),
        Command::Suspend => state.ask(Effect::Suspend),
        _ => {}
    }
}

/// Esc: one step back, never out.
fn back(state: &mut State) {
    if state.overlays.pop().is_some() {
        return;
    }
    if state.detail == Detail::Open {
        state.detail = Detail::Closed;
    } else if !state.filter().input.is_empty() {
        state.filter_mut().input.clear();
    } else if state.tab == Tab::Prompts {
        tab_prompts::back(state);
    } else if state.toasts.is_empty() && state.leave_newest() {
        state.engines.detecting = None;
        state.proxy.starting = None;
        state.toast(Level::Warn, state.words.say("toast.left").into_owned());
    } else {
        state.toasts.clear();
    }
}

/// Takes the last removal back.
fn undo(state: &mut State) {
    match state.undo.take() {
        Some(request) if state.is_live() => {
            state.call(request);
        }
        Some(request) => state.undo = Some(request),
        None => state.toast(Level::Info, state.words.say("undo.nothing").into_owned()),
    }
}

/// Brings a tab to the front.
pub fn show_tab(state: &mut State, tab: Tab) {
    state.tab = tab;
    state.detail = Detail::Closed;
    if tab == Tab::Security && state.is_live() {
        overview::read(state);
    }
    state.soil(Dirty::Now);
}

/// Opens the chat tester and the choice of its model, with the one that was asked before in it.
pub fn ask_another(state: &mut State, model: Option<String>) {
    show_tab(state, Tab::Models);
    if model.is_some() {
        state.models.chat.model = model;
    }
    tab_models::chat::open(state);
    run(state, Command::ChatModel);
}

fn type_key(state: &mut State, key: crossterm::event::KeyEvent) {
    use crossterm::event::KeyCode;
    if !state.overlays.is_empty() {
        overlays::type_key(state, key);
    } else if state.filter().typing == Typing::Yes {
        let filter = state.filter_mut();
        match key.code {
            KeyCode::Enter | KeyCode::Down | KeyCode::Up | KeyCode::Tab => filter.typing = Typing::No,
            KeyCode::Esc => {
                filter.input.clear();
                filter.typing = Typing::No;
            }
            _ => {
                filter.input.press(key);
            }
        }
    } else {
        state.tab.type_key(state, key);
    }
}

/// Pasted text goes into a focused input and never to key bindings.
fn paste(state: &mut State, text: &str) {
    if !state.overlays.is_empty() {
        overlays::paste(state, text);
    } else if state.filter().typing == Typing::Yes {
        state.filter_mut().input.insert(text);
    } else {
        state.tab.paste(state, text);
    }
}

fn click(state: &mut State, column: u16, row: u16) {
    let Some(target) = state.geometry.target(column, row) else { return };
    state.soil(Dirty::Now);
    if !state.overlays.is_empty() {
        overlays::click(state, target);
        return;
    }
    match target {
        Target::Tab(tab) => show_tab(state, tab),
        Target::View(view) => state.tab.show_view(state, view),
        Target::Row(row) => {
            state.filter_mut().typing = Typing::No;
            state.tab.select(state, row);
        }
        Target::Command(command) => run(state, command),
        Target::OverlayRow(_) | Target::Button(_) => {}
    }
}

fn turn(state: &mut State, wheel: Wheel) {
    let command = match wheel {
        Wheel::Up => Command::Up,
        Wheel::Down => Command::Down,
    };
    state.soil(Dirty::Now);
    for _ in 0..3 {
        if state.overlays.is_empty() {
            state.tab.run(state, command);
        } else {
            overlays::scroll(state, command);
        }
    }
}

fn live(state: &mut State, line: LiveLine) {
    if let LiveLine::Event(numbered) = &line
        && let LiveEvent::Audit(row) = &*numbered.event
        && numbered.sequence > state.world.sequence
    {
        overview::count(state, &row.event);
    }
    if let LiveLine::Event(numbered) = &line
        && let LiveEvent::Alert(alert) = &*numbered.event
        && numbered.sequence > state.world.sequence
    {
        overlays::alerts::arrived(state, alert);
    }
    let arrived = match &line {
        LiveLine::Event(numbered) if numbered.sequence > state.world.sequence => Some(numbered.event.clone()),
        _ => None,
    };
    let before = fault(state);
    let touched = state.world.apply(line);
    match arrived.as_deref() {
        Some(LiveEvent::Audit(row)) => tab_security::list::arrived(state, row),
        Some(LiveEvent::Request(row)) => list::arrived(state, row),
        _ => {}
    }
    if touched == Touched::Requests {
        usage::keep_fresh(state);
    }
    let after = fault(state);
    if matches!(touched, Touched::Status | Touched::All) && before != after {
        tell_fault(state, after);
    }
    if touched == Touched::All && state.world.link == Link::Live {
        // What was being read belongs to the state before; every store is read again.
        tab_security::list::catch_up(state);
        list::catch_up(state);
        read_stores(state);
        take_first_steps(state);
    }
    if let Touched::Store(noun) = touched {
        read_store(state, noun);
    }
    if is_visible(state, touched) {
        state.soil(if touched == Touched::All { Dirty::Now } else { Dirty::Data });
    }
}

/// Why the last reload was refused.
fn fault(state: &State) -> Option<String> {
    state.world.status.as_ref().and_then(|status| status.reload_fault.clone())
}

/// A reload was refused, or what was wrong was mended.
fn tell_fault(state: &mut State, fault: Option<String>) {
    match fault {
        Some(why) => {
            let note = state.words.fill("toast.reload_refused", &[("why", &escape(&why))]);
            state.toast(Level::Error, note);
        }
        None => state.toast(Level::Ok, state.words.say("toast.reload_mended").into_owned()),
    }
}

/// Whether something that changed is on screen.
fn is_visible(state: &State, touched: Touched) -> bool {
    match touched {
        Touched::All | Touched::Status | Touched::Traffic => true,
        Touched::Engines => matches!(state.tab, Tab::Engines | Tab::Models),
        Touched::Models => state.tab == Tab::Models,
        // The list tells itself when a row of it changed.
        Touched::Requests => state.tab == Tab::Proxy && state.proxy.view == View::Load,
        // The counts above the list go on whatever it shows.
        Touched::Audit => state.tab == Tab::Security,
        // The answer of the reading draws.
        Touched::Store(_) | Touched::Nothing => false,
    }
}

/// Reads every page that is not in the snapshot.
fn read_stores(state: &mut State) {
    for noun in [
        Noun::Keys,
        Noun::Blocklist,
        Noun::Allowlist,
        Noun::Trusted,
        Noun::Prompts,
        Noun::Profiles,
        Noun::Settings,
        Noun::Alerts,
        Noun::Captures,
    ] {
        read_store(state, noun);
    }
    if state.tab == Tab::Security {
        overview::read(state);
    }
    state.read(ListEngineKinds {});
    state.read(ListPromptRoutes {});
}

/// Reads a store again.
pub fn read_store(state: &mut State, noun: Noun) {
    match noun {
        Noun::Keys => state.read(ListKeys {}),
        Noun::Blocklist => state.read(ListBlocks { offset: 0, limit: BLOCKS_PAGE }),
        Noun::Allowlist => state.read(ListNetworks { list: NetworkList::Allow }),
        Noun::Trusted => state.read(ListNetworks { list: NetworkList::Trusted }),
        Noun::Prompts => state.read(ListPrompts {}),
        Noun::Settings => state.read(ListSettings {}),
        Noun::Profiles => state.read(ListProfiles::default()),
        Noun::Alerts => {
            state.read(ListInbox { limit: INBOX_PAGE });
            state.read(ListAlertChannels {})
        }
        Noun::Captures => state.read(ListCaptures { key: None, limit: CAPTURES_PAGE }),
        Noun::Aliases | Noun::Policy => return,
    };
}

/// After the first attachment: look for engines, start the proxy, make a first key. An owner that ran before this
/// console keeps its listeners as they are, and the demo arranges itself.
fn take_first_steps(state: &mut State) {
    if state.first_steps == FirstSteps::Taken {
        return;
    }
    state.first_steps = FirstSteps::Taken;
    let Some(status) = &state.world.status else { return };
    let read_only = status.read_only.clone();
    if let Some(why) = &read_only {
        tell_read_only(state, why);
    }
    let Some(status) = &state.world.status else { return };
    if state.access == ConsoleAccess::ReadOnly || status.demo {
        return;
    }
    let serves = status.listeners.iter().any(|listener| listener.phase.is_up());
    if state.origin != Some(OwnerOrigin::AlreadyRan) {
        if !serves {
            state.proxy.starting = Some(state.call(StartListener { config: None, unnamed: Vec::new() }));
        }
        if state.start_detection == StartDetection::On {
            state.engines.detecting = Some(state.call(DetectEngines { kind: None, fresh: false }));
        }
    }
    if read_only.is_none() {
        state.read(EnsureFirstKey {});
    }
}

/// What a home that only reads still does, why it came to that, and the way out (SPEC §5.12). Read once; the mark in the
/// header stays.
fn tell_read_only(state: &mut State, why: &str) {
    let mut lines = vec![(escape(why).into_owned(), Role::Error), (String::new(), Role::Popup)];
    for key in ["read_only.serves", "read_only.refuses", "read_only.space", "read_only.version", "read_only.restore"] {
        lines.push((state.words.say(key).into_owned(), Role::Popup));
    }
    overlays::open(state, Overlay::Notice(Notice::new("read_only.title", lines)));
}

/// Gives the mouse to the console or to the terminal.
pub fn use_mouse(state: &mut State, mouse: MouseUse) {
    state.mouse = mouse;
    state.ask(Effect::Mouse(mouse));
}
