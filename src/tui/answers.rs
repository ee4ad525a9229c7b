//! What the console does with the answers of its calls: pages are kept, forms close or say why not, and every
//! failure is told.
//!
//! Called by `update`. Must never wait.

use std::path::Path;

use crate::tui::action::Command;
use crate::tui::effect::{Answer, Reply, Request, Ticket};
use crate::tui::overlays::settings::Settings;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, firewall, forms, key::NewKey, notice::Notice, policy, wizard, work};
use crate::tui::state::State;
use crate::tui::tab_blocklist::transfer;
use crate::tui::tab_proxy::{bodies, leak, list, usage};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::update::read_store;
use crate::tui::{tab_models, tab_prompts, tab_security};
use crate::types::address::short;
use crate::types::calls::addresses::{AddBlock, AddNetwork, NetworkList};
use crate::types::calls::alerts::ChannelSettled;
use crate::types::calls::comparisons::ListComparisons;
use crate::types::calls::models::PullModel;
use crate::types::calls::profiles::SaveProfile;
use crate::types::calls::prompts::SetPrompt;
use crate::types::engine::{DetectedEngine, DetectionReport, EngineState};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::key::KeyView;
use crate::types::listener::{ListenerConfig, ListenerStatus};
use crate::types::live::Noun;
use crate::types::profile::ProfileView;
use crate::types::text::escape;

/// Takes an answer.
pub fn take(state: &mut State, answer: Answer) {
    let Answer { ticket, reply } = answer;
    state.pending.remove(&ticket);
    let Some(reply) = wizard::take(state, ticket, reply) else { return };
    let Some(reply) = asked_or_guarded(state, ticket, reply) else { return };
    let Some(reply) = taken_away(state, reply) else { return };
    let asked_by_form = settle_form(state, ticket, reply.failure());
    match reply {
        Reply::ListKeys(_, outcome) => state.world.keys.take(outcome),
        Reply::ListPrompts(_, outcome) => state.world.prompts.take(outcome),
        Reply::ListProfiles(_, outcome) => state.world.profiles.take(outcome),
        Reply::ShowUsage(call, outcome) => usage::take(state, &call, outcome),
        Reply::PreviewPrompt(call, outcome) => tab_prompts::preview::take(state, &call, outcome),
        Reply::ListPromptRoutes(_, outcome) => state.world.prompt_routes.take(outcome),
        Reply::ListEngineKinds(_, outcome) => state.world.kinds.take(outcome),
        Reply::ListSettings(_, outcome) => {
            state.world.settings.take(outcome);
            Settings::refresh(state);
        }
        Reply::ListBlocks(_, outcome) => {
            let Some(outcome) = transfer::take_page(state, ticket, outcome) else { return };
            if let Ok(page) = &outcome {
                state.world.blocks_total = page.total;
            }
            state.world.blocks.take(outcome.map(|page| page.entries));
        }
        Reply::ListNetworks(call, outcome) => match call.list {
            NetworkList::Allow => state.world.allowed.take(outcome),
            NetworkList::Trusted => state.world.trusted.take(outcome),
        },
        Reply::AddAlertChannel(_, Ok(settled)) => channel_settled(state, "toast.channel_added", settled),
        Reply::EditAlertChannel(_, Ok(settled)) => channel_settled(state, "toast.channel_changed", settled),
        Reply::RemoveAlertChannel(call, Ok(_)) => done(state, "toast.channel_removed", &[("id", call.id.as_str())]),
        Reply::TestAlertChannel(call, Ok(_)) => done(state, "toast.channel_tested", &[("id", call.id.as_str())]),
        Reply::EngineHealth(call, outcome) => {
            if let Some(id) = call.id {
                state.world.health.entry(id).or_default().take(outcome);
            }
        }
        Reply::PromptHistory(call, outcome) => tab_prompts::take_history(state, &call.api_id, outcome),
        Reply::SetPrompt(call, outcome) => tab_prompts::saved(state, &call, outcome),
        Reply::DetectEngines(_, outcome) => detected(state, ticket, outcome),
        Reply::StartListener(call, outcome) => started(state, ticket, call.config, outcome, asked_by_form),
        Reply::EnsureFirstKey(_, outcome) => match outcome {
            Ok(Some(created)) => overlays::open(state, Overlay::Key(NewKey::new(created))),
            Ok(None) => {}
            Err(failure) => state.complain(&failure),
        },
        Reply::CreateKey(_, Ok(created)) | Reply::RotateKey(_, Ok(created)) => {
            overlays::open(state, Overlay::Key(NewKey::new(created)));
            read_store(state, Noun::Keys);
        }
        Reply::RefreshModels(_, Ok(models)) => {
            let count = models.len().to_string();
            state.world.models = models;
            done(state, "toast.models", &[("count", &count)]);
        }
        managed @ (Reply::LoadModel(..)
        | Reply::PullModel(..)
        | Reply::CreateBackup(..)
        | Reply::ApplyLegacy(..)
        | Reply::UnloadModel(_, Ok(_))
        | Reply::DeleteModel(_, Ok(_))) => managed_model(state, ticket, managed),
        Reply::PlanLegacy(_, Ok(report)) => overlays::legacy::planned(state, &report),
        Reply::SetSetting(_, Ok(_)) | Reply::UnsetSetting(_, Ok(_)) => read_store(state, Noun::Settings),
        Reply::Reload(_, Ok(report)) => {
            let parts = escape(&report.reloaded.join(", ")).into_owned();
            done(state, "toast.reloaded", &[("parts", &parts)]);
            if !report.needs_restart.is_empty() {
                let keys = escape(&report.needs_restart.join(", ")).into_owned();
                let note = state.words.fill("toast.needs_restart", &[("keys", &keys)]);
                state.toast(Level::Warn, note);
            }
        }
        Reply::AddEngine(call, Ok(_)) => done(state, "toast.engine_added", &[("id", call.id.as_str())]),
        Reply::EditEngine(call, Ok(_)) => done(state, "toast.engine_changed", &[("id", call.id.as_str())]),
        Reply::StopListener(_, Ok(())) => done(state, "toast.stopped", &[]),
        Reply::RevokeKey(_, Ok(key)) => {
            let label = escape(&key.label).into_owned();
            done(state, "toast.key_revoked", &[("label", &label)]);
            read_store(state, Noun::Keys);
        }
        Reply::EditKey(_, Ok(key)) => capture_switched(state, &key),
        Reply::AddBlock(_, Ok(entry)) => {
            done(state, "toast.blocked", &[("network", &short(entry.network))]);
            read_store(state, Noun::Blocklist);
        }
        Reply::ImportBlocks(_, Ok(count)) => {
            done(state, "toast.imported", &[("count", &count.to_string())]);
            read_store(state, Noun::Blocklist);
        }
        Reply::ClearBlocks(_, Ok(count)) => {
            done(state, "toast.cleared", &[("count", &count.to_string())]);
            read_store(state, Noun::Blocklist);
        }
        Reply::AddNetwork(call, Ok(_)) => {
            done(state, "toast.network_added", &[("network", &short(call.network))]);
            read_store(state, noun(call.list));
        }
        Reply::SaveProfile(_, Ok(profile)) => {
            let model = escape(&profile.model).into_owned();
            done(state, "toast.profile_saved", &[("model", &model)]);
            read_store(state, Noun::Profiles);
        }
        // A form shows its own failure.
        other => {
            if let Some(failure) = other.failure().filter(|_| asked_by_form == AskedBy::Person) {
                state.complain(failure);
            }
        }
    }
}

/// Takes the answers of removals, each with what takes it back; answers back those of others. No form asks for one.
fn taken_away(state: &mut State, reply: Reply) -> Option<Reply> {
    match reply {
        Reply::RemoveEngine(call, Ok(())) => {
            let back = state.engines.removing.take().filter(|removed| removed.id == call.id);
            removed(state, "toast.engine_removed", &[("id", call.id.as_str())], back);
        }
        Reply::RemoveBlock(_, Ok(entry)) => {
            let left = entry.expires.map(|expires| expires.since(state.now));
            // What had run out meanwhile is not blocked for ever.
            let back = left.is_none_or(|left| !left.is_zero()).then(|| AddBlock {
                network: entry.network,
                duration: left,
                reason: entry.reason.clone(),
            });
            removed(state, "toast.unblocked", &[("network", &short(entry.network))], back);
            read_store(state, Noun::Blocklist);
        }
        Reply::RemoveNetwork(call, Ok(())) => {
            let known =
                state.world.networks(call.list).value.iter().flatten().find(|entry| entry.network == call.network);
            let note = known.map(|entry| entry.note.clone()).unwrap_or_default();
            let back = AddNetwork { list: call.list, network: call.network, note };
            removed(state, "toast.network_removed", &[("network", &short(call.network))], Some(back));
            read_store(state, noun(call.list));
        }
        Reply::DeleteProfile(_, Ok(profile)) => {
            let model = escape(&profile.model).into_owned();
            let ProfileView { engine, model: own, label, parameters, .. } = profile;
            let back = SaveProfile { engine, model: own, label, parameters };
            removed(state, "toast.profile_deleted", &[("model", &model)], Some(back));
            read_store(state, Noun::Profiles);
        }
        Reply::DeletePrompt(call, Ok(())) => {
            let id = escape(&call.api_id).into_owned();
            let known = state.world.prompts.value.iter().flatten().find(|prompt| prompt.api_id == call.api_id);
            let back = known.map(|prompt| SetPrompt { api_id: prompt.api_id.clone(), text: prompt.text.clone() });
            removed(state, "toast.prompt_deleted", &[("id", &id)], back);
            read_store(state, Noun::Prompts);
        }
        other => return Some(other),
    }
    None
}

/// Takes the answers of models, comparisons and the guard; answers back those of others, and failures that are told as
/// everywhere.
fn asked_or_guarded(state: &mut State, ticket: Ticket, reply: Reply) -> Option<Reply> {
    match reply {
        Reply::Chat(_, outcome) | Reply::ReplayCapture(_, outcome) => {
            tab_models::chat::answered(state, ticket, outcome);
        }
        Reply::ListCaptures(_, outcome) => state.world.captures.take(outcome),
        Reply::ShowCapture(_, outcome) => bodies::take(state, ticket, outcome),
        Reply::ClearCaptures(_, Ok(count)) => {
            done(state, "toast.captures_cleared", &[("count", &count.to_string())]);
            read_store(state, Noun::Captures);
        }
        Reply::CompareModels(_, outcome) => tab_models::compare::answered(state, ticket, outcome),
        Reply::SaveComparison(_, outcome) => tab_models::compare::saved(state, ticket, outcome),
        Reply::ShowComparison(_, Ok(comparison)) => tab_models::compare::show(state, comparison),
        Reply::ListComparisons(_, outcome) => state.world.comparisons.take(outcome),
        Reply::DeleteComparison(call, Ok(())) => {
            done(state, "compare.deleted", &[("number", &call.id.to_string())]);
            state.read(ListComparisons {});
        }
        Reply::PreviewFirewall(_, outcome) => firewall::take_preview(state, outcome),
        Reply::ShowFirewall(_, outcome) | Reply::RecordFirewall(_, outcome) => firewall::take_status(state, outcome),
        Reply::DecideFirewall(call, outcome) => firewall::take_decision(state, call.decision, outcome),
        Reply::FirewallOrder(_, outcome) => firewall::take_done(state, outcome),
        Reply::ExposeCheck(_, Ok(report)) => overlays::expose::show(state, &report),
        Reply::PreviewLeak(call, Ok(report)) => leak::ask(state, &call, &report),
        Reply::RevokeLeaked(_, Ok(answer)) => {
            let (label, count) = (escape(&answer.key.label).into_owned(), answer.blocked.len().to_string());
            done(state, "toast.leak_answered", &[("label", &label), ("count", &count)]);
            read_store(state, Noun::Keys);
            read_store(state, Noun::Blocklist);
        }
        Reply::SecurityStats(_, outcome) => state.world.security_counts.take(outcome),
        Reply::ListAudit(_, outcome) => tab_security::list::take(state, ticket, outcome),
        Reply::PageRequests(_, outcome) => list::take(state, ticket, outcome),
        Reply::ListInbox(_, outcome) => state.world.inbox.take(outcome),
        Reply::ListAlertChannels(_, outcome) => state.world.channels.take(outcome),
        Reply::ShowPolicy(_, outcome) => {
            // The box that asked may be closed.
            let _nobody_waits = policy::take(state, ticket, outcome);
        }
        Reply::SetPolicy(_, outcome) => policy::saved(state, ticket, outcome),
        other => return Some(other),
    }
    None
}

/// A file was written, or could not be.
pub fn written(state: &mut State, ticket: Ticket, path: &Path, outcome: Outcome<()>) {
    state.pending.remove(&ticket);
    let asked_by_form = settle_form(state, ticket, outcome.as_ref().err());
    match outcome {
        Ok(()) => done(state, "toast.written", &[("path", &escape(&path.to_string_lossy()))]),
        Err(failure) if asked_by_form == AskedBy::Person => state.complain(&failure),
        // The form says it.
        Err(_) => {}
    }
}

/// The bodies of a key are captured, or no longer.
fn capture_switched(state: &mut State, key: &KeyView) {
    let label = escape(&key.label).into_owned();
    match key.captures_at(state.now) {
        Some(until) => {
            let until = state.words.date_time(until);
            done(state, "toast.capture_on", &[("label", &label), ("until", &until)]);
        }
        None => done(state, "toast.capture_off", &[("label", &label)]),
    }
    read_store(state, Noun::Keys);
}

/// A channel was added or changed; a secret that was made for it is shown this once.
fn channel_settled(state: &mut State, key: &'static str, settled: ChannelSettled) {
    done(state, key, &[("id", settled.view.id.as_str())]);
    if let Some(secret) = settled.secret {
        overlays::open(state, Overlay::Key(NewKey::signing(settled.view.id.as_str(), secret)));
    }
    read_store(state, Noun::Alerts);
}

/// Something that takes long was done, most often with a model, or failed.
fn managed_model(state: &mut State, ticket: Ticket, reply: Reply) {
    work::ended(state, ticket);
    match reply {
        Reply::LoadModel(_, Ok(model)) => {
            done(state, "toast.model_loaded", &[("model", &escape(&model.name.model))]);
        }
        Reply::CreateBackup(_, Ok(view)) => done(state, "toast.backed_up", &[("path", &escape(&view.path))]),
        Reply::ApplyLegacy(_, Ok(report)) => overlays::legacy::applied(state, &report),
        Reply::UnloadModel(_, Ok(model)) => {
            done(state, "toast.model_unloaded", &[("model", &escape(&model.name.model))]);
        }
        Reply::DeleteModel(_, Ok(model)) => done(state, "toast.model_deleted", &[("model", &escape(&model.model))]),
        Reply::PullModel(call, Ok(_)) => done(state, "toast.model_pulled", &[("model", &escape(&call.model))]),
        Reply::PullModel(call, Err(failure)) => pull_again(state, &call, failure),
        other => {
            if let Some(failure) = other.failure() {
                state.complain(failure);
            }
        }
    }
}

/// What was typed is not lost: the form comes back with what went wrong.
fn pull_again(state: &mut State, call: &PullModel, failure: Failure) {
    match forms::pull_model(state, call.engine.as_ref(), &call.model) {
        Some(mut form) => {
            form.failure = Some(failure);
            overlays::open(state, Overlay::Form(form));
        }
        None => state.complain(&failure),
    }
}

fn noun(list: NetworkList) -> Noun {
    match list {
        NetworkList::Allow => Noun::Allowlist,
        NetworkList::Trusted => Noun::Trusted,
    }
}

fn done(state: &mut State, key: &'static str, values: &[(&str, &str)]) {
    let note = state.words.fill(key, values);
    state.toast(Level::Ok, note);
}

/// Something was removed; `back` takes that back.
fn removed(state: &mut State, key: &'static str, values: &[(&str, &str)], back: Option<impl Into<Request>>) {
    let mut note = state.words.fill(key, values);
    state.undo = back.map(Into::into);
    if state.undo.is_some() {
        let keys = state.keymap.first(Command::Undo);
        note.push('\n');
        note.push_str(&state.words.fill("undo.hint", &[("key", &keys)]));
    }
    state.toast(Level::Ok, note);
}

/// Who asked for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskedBy {
    /// A form that is still open.
    Form,
    /// A key press.
    Person,
}

/// Closes the form that waited for this answer, or lets it say why it failed.
fn settle_form(state: &mut State, ticket: Ticket, failure: Option<&Failure>) -> AskedBy {
    let waiting = |overlay: &Overlay| matches!(overlay, Overlay::Form(form) if form.waiting == Some(ticket));
    let Some(at) = state.overlays.iter().position(waiting) else { return AskedBy::Person };
    match (failure, &mut state.overlays[at]) {
        (Some(failure), Overlay::Form(form)) => {
            form.waiting = None;
            form.failure = Some(failure.clone());
        }
        _ => {
            state.overlays.remove(at);
        }
    }
    AskedBy::Form
}

fn started(
    state: &mut State,
    ticket: Ticket,
    config: Option<ListenerConfig>,
    outcome: Outcome<ListenerStatus>,
    asked_by: AskedBy,
) {
    let at_start = state.proxy.starting.take_if(|starting| *starting == ticket).is_some();
    match outcome {
        Ok(status) => {
            let address = status.addresses.first().map(|address| escape(address).into_owned()).unwrap_or_default();
            done(state, "toast.started", &[("address", &address)]);
        }
        Err(_) if asked_by == AskedBy::Form => {}
        // Somebody else was faster, which is what was wanted.
        Err(failure) if at_start && failure.code == ErrorCode::ProxyAlreadyRunning => {}
        Err(failure) if failure.code == ErrorCode::ProxyPortInUse => {
            let wanted = config
                .or_else(|| state.world.main_listener().map(|listener| listener.config.clone()))
                .unwrap_or_default();
            let mut form = forms::other_port(wanted, failure.suggestion.as_deref());
            form.failure = Some(failure);
            overlays::open(state, Overlay::Form(form));
        }
        Err(failure) => state.complain(&failure),
    }
}

fn detected(state: &mut State, ticket: Ticket, outcome: Outcome<DetectionReport>) {
    // A detection that the console began by itself must not cover the screen.
    let by_itself = state.engines.detecting.take_if(|detecting| *detecting == ticket).is_some();
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => return state.complain(&failure),
    };
    let count = report.engines.len().to_string();
    if by_itself {
        if !report.engines.is_empty() {
            done(state, "toast.detected", &[("count", &count)]);
        }
        return;
    }
    let took = text::millis(f64::from(report.took_ms));
    let mut lines = vec![(state.words.fill("detect.summary", &[("count", &count), ("took", &took)]), Role::Popup)];
    lines.push((String::new(), Role::Popup));
    let place = |engine: &DetectedEngine| {
        escape(engine.url.as_deref().or(engine.binary.as_deref()).unwrap_or_default()).into_owned()
    };
    let places = report.engines.iter().map(|engine| text::width(&place(engine))).max().unwrap_or(0);
    for engine in &report.engines {
        let (sign, role) = match engine.state {
            EngineState::RunningHealthy { .. } => (state.symbols().ok, Role::Ok),
            EngineState::InstalledOnly => (state.symbols().off, Role::Muted),
            EngineState::RunningDegraded { .. } | EngineState::Unchecked => (state.symbols().warn, Role::Warn),
            EngineState::ErrorNetwork { .. } | EngineState::ErrorApi { .. } => (state.symbols().error, Role::Error),
        };
        let version = engine.version.as_deref().unwrap_or(state.symbols().off);
        let (kind, place) = (text::pad(engine.kind.as_str(), 10), text::pad(&place(engine), places));
        let line = format!("{sign} {kind} {place}  {version}  ({})", engine.evidence);
        lines.push((escape(&line).into_owned(), role));
    }
    if report.engines.is_empty() {
        lines.push((state.words.say("detect.nothing").into_owned(), Role::Muted));
    }
    overlays::open(state, Overlay::Notice(Notice::new("detect.title", lines)));
}
