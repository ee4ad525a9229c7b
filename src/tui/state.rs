//! Everything the console remembers, and the small verbs that updates use on it.
//!
//! Written by `update` and what it calls, read by `view`. Must never do I/O or read a clock: the loop sets
//! [`State::now`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::tui::effect::{Effect, MouseUse, Request, Ticket};
use crate::tui::geometry::Geometry;
use crate::tui::keymap::KeyMap;
use crate::tui::overlays::notice::Notice;
use crate::tui::overlays::toasts::{Level, Toast};
use crate::tui::overlays::{self, Overlay};
use crate::tui::tab_blocklist::BlocklistTab;
use crate::tui::tab_engines::EnginesTab;
use crate::tui::tab_models::ModelsTab;
use crate::tui::tab_prompts::PromptsTab;
use crate::tui::tab_proxy::ProxyTab;
use crate::tui::tab_security::SecurityTab;
use crate::tui::tabs::Tab;
use crate::tui::text::Words;
use crate::tui::theme::{Depth, Theme, ThemeShelf};
use crate::tui::widgets::input::LineInput;
use crate::tui::widgets::symbols::{CharacterSet, Motion, Symbols};
use crate::tui::world::{Link, World};
use crate::tui::{ConsoleAccess, OwnerOrigin, StartDetection};
use crate::types::calls::Access;
use crate::types::clock::UnixMillis;
use crate::types::failure::Failure;
use crate::types::firewall::SshSession;

/// The smallest terminal on which the console draws more than a request for a larger one.
pub const SMALLEST: (u16, u16) = (60, 15);

/// From this width on, details stand beside the list.
pub const WIDE: u16 = 110;

/// How urgently the screen must be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirty {
    /// Nothing visible changed.
    Clean,
    /// Data changed: within the refresh rate.
    Data,
    /// The person did something: at once.
    Now,
}

/// The `/` filter of a tab.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// What is typed.
    pub input: LineInput,
    /// Whether keys go into it.
    pub typing: Typing,
}

/// Whether an input has the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Typing {
    /// It has not.
    #[default]
    No,
    /// It has.
    Yes,
}

/// The same text copied again within this time shows it.
const COPIED_AGAIN: Duration = Duration::from_secs(8);

/// Whether the details of the selected row take the place of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The list is shown (beside it the details, where there is room).
    Closed,
    /// The details are shown.
    Open,
}

/// A call that has not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// When it was sent.
    pub since: UnixMillis,
    /// Whether its spinner shows.
    pub shown: PendingShown,
}

/// Whether a running call shows a spinner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingShown {
    /// In the footer, with the time it takes.
    Spinner,
    /// Not at all: reading a page in the background.
    Nothing,
}

/// Everything the console remembers.
#[derive(Debug)]
pub struct State {
    /// What is known of the home.
    pub world: World,
    /// The language.
    pub words: Words,
    /// The colours in force.
    pub theme: Theme,
    /// All themes.
    pub shelf: ThemeShelf,
    /// How many colours the terminal shows.
    pub depth: Depth,
    /// Which characters it shows.
    pub characters: CharacterSet,
    /// The keys.
    pub keymap: KeyMap,
    /// Whether this console may change anything.
    pub access: ConsoleAccess,
    /// The SSH session that this console runs in: no block and no firewall rule may shut it out.
    pub ssh: Option<SshSession>,
    /// How the owner came to run, once it answered.
    pub origin: Option<OwnerOrigin>,
    /// Wall-clock time of this turn of the loop.
    pub now: UnixMillis,
    /// Columns and rows.
    pub size: (u16, u16),
    /// The tab in front.
    pub tab: Tab,
    /// Filters of the tabs, in their order.
    pub filters: [Filter; Tab::ALL.len()],
    /// Whether details take the place of the list.
    pub detail: Detail,
    /// Boxes over the tab; the last one has the keyboard.
    pub overlays: Vec<Overlay>,
    /// News.
    pub toasts: Vec<Toast>,
    /// The screen as drawn last.
    pub geometry: Geometry,
    /// Calls on their way.
    pub pending: BTreeMap<Ticket, Pending>,
    /// Who gets the mouse.
    pub mouse: MouseUse,
    /// Whether signs turn.
    pub motion: Motion,
    /// Frames per second for data.
    pub refresh: u8,
    /// The Engines tab.
    pub engines: EnginesTab,
    /// The Models tab.
    pub models: ModelsTab,
    /// The Proxy tab.
    pub proxy: ProxyTab,
    /// The Security tab.
    pub security: SecurityTab,
    /// The Blocklist tab.
    pub blocklist: BlocklistTab,
    /// The Prompts tab.
    pub prompts: PromptsTab,
    /// The hash of what was copied last, which may be a secret, and when.
    copied: Option<(u64, UnixMillis)>,
    /// What takes the last removal back.
    pub undo: Option<Request>,
    /// Where files are written to when their name has no folder.
    pub export_folder: PathBuf,
    /// Whether the steps of a first attachment were taken.
    pub first_steps: FirstSteps,
    /// Whether looking for engines is one of them.
    pub start_detection: StartDetection,
    dirty: Dirty,
    outbox: Vec<Effect>,
    next_ticket: u64,
}

/// Whether engines were looked for, a listener started and a first key made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstSteps {
    /// Not yet.
    Due,
    /// Taken; a later attachment changes nothing by itself.
    Taken,
}

impl State {
    /// A console that knows nothing yet.
    #[must_use]
    pub fn new(words: Words, theme: Theme, size: (u16, u16), now: UnixMillis) -> Self {
        Self {
            world: World::default(),
            words,
            theme,
            shelf: ThemeShelf::default(),
            depth: Depth::True,
            characters: CharacterSet::Unicode,
            keymap: KeyMap::default(),
            access: ConsoleAccess::Full,
            ssh: None,
            origin: None,
            now,
            size,
            tab: Tab::Engines,
            filters: Default::default(),
            detail: Detail::Closed,
            overlays: Vec::new(),
            toasts: Vec::new(),
            geometry: Geometry::default(),
            pending: BTreeMap::new(),
            mouse: MouseUse::Console,
            motion: Motion::Full,
            refresh: crate::tui::DEFAULT_REFRESH,
            engines: EnginesTab::default(),
            models: ModelsTab::default(),
            proxy: ProxyTab::default(),
            security: SecurityTab::default(),
            blocklist: BlocklistTab::default(),
            prompts: PromptsTab::default(),
            copied: None,
            undo: None,
            export_folder: PathBuf::new(),
            first_steps: FirstSteps::Due,
            start_detection: StartDetection::On,
            dirty: Dirty::Now,
            outbox: Vec::new(),
            next_ticket: 1,
        }
    }

    /// The signs to draw with.
    #[must_use]
    pub fn symbols(&self) -> &'static Symbols {
        self.characters.symbols()
    }

    /// The filter of the tab in front.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filters[self.tab as usize]
    }

    /// The filter of the tab in front.
    pub fn filter_mut(&mut self) -> &mut Filter {
        &mut self.filters[self.tab as usize]
    }

    /// Whether details stand beside the list.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.size.0 >= WIDE
    }

    /// Says that the screen must be drawn.
    pub fn soil(&mut self, dirty: Dirty) {
        self.dirty = self.dirty.max(dirty);
    }

    /// How urgently the screen must be drawn.
    #[must_use]
    pub fn dirty(&self) -> Dirty {
        self.dirty
    }

    /// The screen was drawn.
    pub fn drawn(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.dirty = Dirty::Clean;
    }

    /// Asks for an effect.
    pub fn ask(&mut self, effect: Effect) {
        self.outbox.push(effect);
    }

    /// Takes the effects asked for.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.outbox)
    }

    /// Runs an operation for the person, with a spinner.
    pub fn call(&mut self, request: impl Into<Request>) -> Ticket {
        self.send(request.into(), PendingShown::Spinner)
    }

    /// Reads something in the background.
    pub fn read(&mut self, request: impl Into<Request>) -> Ticket {
        self.send(request.into(), PendingShown::Nothing)
    }

    /// Writes a file that is not there yet, with a spinner. A name without a folder is one of the export folder.
    pub fn write(&mut self, path: &str, content: String) -> Ticket {
        let ticket = self.begin_file();
        let path = self.export_folder.join(path);
        self.ask(Effect::Write { ticket, path, content });
        ticket
    }

    /// Something is about to be done with a file, with a spinner.
    pub(super) fn begin_file(&mut self) -> Ticket {
        let ticket = self.take_ticket();
        self.pending.insert(ticket, Pending { since: self.now, shown: PendingShown::Spinner });
        ticket
    }

    /// Ends a call that the person no longer wants.
    pub fn leave(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket);
        self.ask(Effect::Leave(ticket));
    }

    fn take_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn send(&mut self, request: Request, shown: PendingShown) -> Ticket {
        let ticket = self.take_ticket();
        if self.access == ConsoleAccess::ReadOnly && request.access() > Access::Reads {
            self.toast(Level::Warn, self.words.say("toast.read_only").into_owned());
            return ticket;
        }
        self.pending.insert(ticket, Pending { since: self.now, shown });
        self.ask(Effect::Call { ticket, request });
        ticket
    }

    /// Puts text on the clipboard and says so. Whether the terminal took it cannot be known: the same again soon after shows
    /// the text, to be selected by hand.
    pub fn copy(&mut self, text: String, what: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let own = hasher.finish();
        let again = self.copied.take().is_some_and(|(known, at)| known == own && self.now.since(at) < COPIED_AGAIN);
        if again {
            let notice = Notice::of_text("copied.title", &text, &self.words.say("copied.hint"));
            overlays::open(self, Overlay::Notice(notice));
            return;
        }
        self.copied = Some((own, self.now));
        self.ask(Effect::Copy(text));
        let note = self.words.fill("toast.copied", &[("what", what)]);
        self.toast(Level::Ok, note);
    }

    /// Ends the newest call that the person waits for, where there is one; answers whether there was.
    pub fn leave_newest(&mut self) -> bool {
        let waits = |(_, pending): &(&Ticket, &Pending)| pending.shown == PendingShown::Spinner;
        let Some(ticket) = self.pending.iter().filter(waits).map(|(ticket, _)| *ticket).max() else { return false };
        self.leave(ticket);
        true
    }

    /// Shows news for a while.
    pub fn toast(&mut self, level: Level, text: String) {
        let expires = self.now.plus(level.lasts());
        // The same news again only lasts longer.
        self.toasts.retain(|toast| toast.text != text);
        self.toasts.push(Toast { level, text, expires });
        let most = 4;
        if self.toasts.len() > most {
            self.toasts.drain(..self.toasts.len() - most);
        }
        self.soil(Dirty::Now);
    }

    /// Shows why something failed, with what to do next and the request id.
    pub fn complain(&mut self, failure: &Failure) {
        let mut text = failure.message.clone();
        if let Some(hint) = &failure.hint {
            text.push('\n');
            text.push_str(hint);
        }
        if let Some(id) = &failure.request_id {
            text.push('\n');
            text.push_str(id);
        }
        self.toast(Level::Error, text);
    }

    /// How long until something on screen changes by itself; `None` when nothing does.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        let toast = self.toasts.iter().map(|toast| toast.expires.since(self.now)).min();
        let spinner =
            self.pending.values().any(|pending| pending.shown == PendingShown::Spinner).then_some(match self.motion {
                Motion::Full => crate::tui::SPINNER_STEP,
                // The seconds beside it go on.
                Motion::Reduced => Duration::from_secs(1),
            });
        let counts_down = (self.tab == Tab::Blocklist && self.blocklist.counts_down(self))
            || crate::tui::overlays::firewall::counts_down(self);
        let countdown = counts_down.then(|| {
            // At the next full second, so that the countdown does not jump.
            Duration::from_millis(1000 - u64::try_from(self.now.0.rem_euclid(1000)).unwrap_or(0))
        });
        let captures = self.world.captures_until(self.now).map(|until| until.since(self.now));
        [toast, spinner, countdown, captures]
            .into_iter()
            .flatten()
            .min()
            .map(|wait| wait.max(Duration::from_millis(10)))
    }

    /// Whether the owner answers.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.world.link == Link::Live
    }
}
