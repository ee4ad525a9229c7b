//! The setup wizard: from an endpoint for this machine to one that others reach (SPEC §9.3).
//!
//! Looks first, asks for mode, ports and policy, says what will change, and only then does it; the firewall comes last,
//! when there is something to let in. Going back and closing keep what was typed. Nothing is changed before the last step,
//! and a step that fails leaves those before it as they are and says so.

use std::net::IpAddr;

use crossterm::event::{KeyCode, KeyEvent};

use crate::tui::effect::{Reply, Request, Ticket};
use crate::tui::overlays::form::{Choice, Edited, Field, Value};
use crate::tui::overlays::forms::{self, Faults};
use crate::tui::overlays::{self, Overlay, Stays, wizard_acme};
use crate::tui::state::State;
use crate::tui::update::read_store;
use crate::tui::widgets::input::LineInput;
use crate::types::calls::policy::SetPolicy;
use crate::types::calls::proxy::StartListener;
use crate::types::calls::publish::{CheckPublish, PortState, PublishReport, WirePrivacy};
use crate::types::calls::settings::SetSetting;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{CertificateFiles, ListenerConfig, TlsMode};
use crate::types::live::Noun;
use crate::types::policy::{Mode, SecurityPolicy};

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// How things are.
    Check,
    /// Mode, address and ports.
    Way,
    /// What a certificate from an ACME directory is for; only in the mode that has one.
    Certificate,
    /// What the rules do.
    Policy,
    /// What will change.
    Summary,
    /// It is done: where clients go, and the firewall.
    Done,
}

impl Page {
    /// All pages in their order, with the keys of their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Check, "wizard.check"),
        (Self::Way, "wizard.way"),
        (Self::Certificate, "wizard.certificate"),
        (Self::Policy, "wizard.policy"),
        (Self::Summary, "wizard.summary"),
        (Self::Done, "wizard.done"),
    ];
}

/// What becomes of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stance {
    /// They stay as they are.
    Keep,
    /// They record what they would do.
    Simulate,
    /// They act.
    Enforce,
}

impl Stance {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Enforce, "enforce", "wizard.enforce"),
        (Self::Simulate, "simulate", "wizard.simulate"),
        (Self::Keep, "keep", "wizard.keep"),
    ];
}

/// One of the things that the last step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Stores the settings that the certificate is obtained with.
    Certificate,
    /// Puts the policy in force.
    Policy,
    /// Starts the listener.
    Listener,
}

/// How a deed stands.
#[derive(Debug, Clone, PartialEq)]
pub enum DeedState {
    /// Not begun.
    Waits,
    /// On its way.
    Runs(Ticket),
    /// Done.
    Done,
    /// It failed; those before it stay done.
    Failed(Failure),
}

/// Fields of [`Wizard::way`].
pub(super) const MODE: usize = 0;
pub(super) const BIND: usize = 1;
pub(super) const PORT: usize = 2;
pub(super) const HTTPS_PORT: usize = 3;
pub(super) const CHAIN: usize = 4;
pub(super) const KEY: usize = 5;

/// The wizard.
#[derive(Debug)]
pub struct Wizard {
    /// What is in front.
    pub(super) page: Page,
    /// A field, then Back, then Next.
    pub(super) focus: usize,
    /// Mode, address, ports, files.
    pub(super) way: Vec<Field>,
    /// What the certificate is for, and how its domains are proved.
    pub(super) acme: Vec<Field>,
    /// What becomes of the rules.
    pub(super) stance: Vec<Field>,
    /// What was found, for the listener as it was described then.
    pub(super) report: Option<Outcome<PublishReport>>,
    /// A look on its way.
    pub(super) checking: Option<Ticket>,
    /// What is done, in order, once it was begun.
    pub(super) deeds: Vec<(Deed, DeedState)>,
    /// Addresses of the listener that was started.
    pub(super) addresses: Vec<String>,
    /// Settings that are still to be stored.
    storing: Vec<(&'static str, String)>,
    /// The plain port that is proposed where no other one is usual.
    port: u16,
}

/// Opens the wizard where it was left, and looks again.
pub fn open(state: &mut State) {
    let kept = state.proxy.wizard.take().filter(|wizard| wizard.page != Page::Done);
    let mut wizard = kept.unwrap_or_else(|| Box::new(Wizard::new(state)));
    wizard.look(state);
    overlays::open(state, Overlay::Wizard(wizard));
}

impl Wizard {
    fn new(state: &State) -> Self {
        // A listener that runs keeps its port and its clients.
        let taken = state.world.status.as_ref().map_or(&[] as &[_], |status| &status.listeners);
        let port = if taken.is_empty() { ListenerConfig::DEFAULT_PORT } else { ListenerConfig::DEFAULT_PORT + 10 };
        let packaged = Choice { value: TlsMode::PACKAGED_CA.to_owned(), label: TlsMode::PACKAGED_CA.to_owned() };
        let way = vec![
            Field::choice("wizard.mode", "wizard.mode_hint", vec![packaged]),
            Field::text("wizard.bind", "wizard.bind_hint", "0.0.0.0"),
            Field::text("wizard.port", "wizard.port_hint", &port.to_string()),
            Field::text("wizard.https_port", "wizard.https_port_hint", &(port + 1).to_string()),
            Field::text("wizard.chain", "wizard.chain_hint", ""),
            Field::text("wizard.key", "wizard.key_hint", ""),
        ];
        let options = Stance::ALL
            .map(|(_, value, label)| Choice { value: value.to_owned(), label: state.words.say(label).into_owned() });
        let stance = vec![Field::choice("wizard.rules", "wizard.rules_hint", options.to_vec())];
        Self {
            page: Page::Check,
            focus: 1,
            way,
            acme: wizard_acme::fields(state),
            stance,
            report: None,
            checking: None,
            deeds: Vec::new(),
            addresses: Vec::new(),
            storing: Vec::new(),
            port,
        }
    }

    /// Numbers of the fields of the page in front; those of no use to the mode are left out.
    pub(super) fn shown(&self) -> Vec<usize> {
        match self.page {
            Page::Way if self.way[MODE].get() == TlsMode::CERTIFICATE_FILES => (MODE..=KEY).collect(),
            Page::Way if self.is_clear() => vec![MODE, BIND, PORT],
            Page::Way => (MODE..=HTTPS_PORT).collect(),
            Page::Certificate => wizard_acme::shown(&self.acme),
            Page::Policy => vec![0],
            Page::Check | Page::Summary | Page::Done => Vec::new(),
        }
    }

    /// The fields of the page in front.
    pub(super) fn fields(&self) -> &[Field] {
        match self.page {
            Page::Policy => &self.stance,
            Page::Certificate => &self.acme,
            _ => &self.way,
        }
    }

    fn fields_mut(&mut self) -> &mut Vec<Field> {
        match self.page {
            Page::Policy => &mut self.stance,
            Page::Certificate => &mut self.acme,
            _ => &mut self.way,
        }
    }

    /// Whether the chosen mode obtains its certificate from an ACME directory.
    pub(super) fn is_acme(&self) -> bool {
        self.way[MODE].get() == TlsMode::HTTPS_ACME
    }

    /// The pages of this way, in their order.
    pub(super) fn pages(&self) -> impl Iterator<Item = (Page, &'static str)> + use<> {
        let acme = self.is_acme();
        Page::ALL.into_iter().filter(move |(page, _)| acme || *page != Page::Certificate)
    }

    fn field_mut(&mut self) -> Option<&mut Field> {
        let number = *self.shown().get(self.focus)?;
        self.fields_mut().get_mut(number)
    }

    /// Whether the chosen mode is plain HTTP.
    pub(super) fn is_clear(&self) -> bool {
        let report = self.report.as_ref().and_then(|report| report.as_ref().ok());
        let mode = self.way[MODE].get();
        report
            .into_iter()
            .flat_map(|report| &report.modes)
            .any(|known| known.name == mode && known.privacy == WirePrivacy::InClear)
    }

    /// What the rules shall do.
    pub(super) fn stance(&self) -> Stance {
        let wanted = self.stance.first().map_or("", Field::get);
        Stance::ALL.iter().find(|(_, value, _)| *value == wanted).map_or(Stance::Keep, |(stance, ..)| *stance)
    }

    /// The policy that the stance makes of the one in force; `None` where nothing changes.
    pub(super) fn policy(&self) -> Option<SecurityPolicy> {
        let Some(Ok(report)) = &self.report else { return None };
        let mode = match self.stance() {
            Stance::Keep => return None,
            Stance::Simulate => Mode::Simulate,
            Stance::Enforce => Mode::Enforce,
        };
        let mut policy = report.policy.clone();
        policy.rules = policy.rules.all_in(mode);
        (policy != report.policy).then_some(policy)
    }

    /// The listener as it is described, or what is wrong with which field.
    pub(super) fn config(&self, state: &State) -> Result<ListenerConfig, Faults> {
        let mut faults = Faults::new();
        let say = |key| state.words.say(key).into_owned();
        let get = |number: usize| self.way[number].get();
        let bind = get(BIND).parse::<IpAddr>().map_err(|_| faults.push((BIND, say("wizard.bind_rule")))).ok();
        let mut port = |number: usize| forms::port(state, number, get(number), &mut faults);
        let plain = port(PORT);
        let https = if self.is_clear() { None } else { port(HTTPS_PORT) };
        if plain.is_some() && plain == https {
            faults.push((HTTPS_PORT, say("wizard.same_port")));
        }
        if self.is_clear() && bind.is_some_and(|bind| !bind.is_loopback()) {
            faults.push((MODE, say("wizard.in_clear")));
        }
        let files = get(MODE) == TlsMode::CERTIFICATE_FILES;
        if files {
            for number in [CHAIN, KEY] {
                if !get(number).starts_with('/') {
                    faults.push((number, say("wizard.file_rule")));
                }
            }
        }
        match (bind, plain) {
            (Some(bind), Some(port)) if faults.is_empty() => Ok(ListenerConfig {
                mode: TlsMode(get(MODE).to_owned()),
                bind,
                port,
                https_port: https,
                certificate: files.then(|| CertificateFiles { chain: get(CHAIN).into(), key: get(KEY).into() }),
                ..ListenerConfig::default()
            }),
            _ => Err(faults),
        }
    }

    /// Looks at the listener as it is described; what cannot be read yet is looked at as the default.
    fn look(&mut self, state: &mut State) {
        let config = self.config(state).unwrap_or_default();
        self.checking = Some(state.read(CheckPublish { config, unnamed: Vec::new() }));
    }

    fn mark_faults(&mut self, faults: Faults) {
        let fields = self.fields_mut();
        for field in &mut *fields {
            field.fault = None;
        }
        for (number, fault) in faults {
            if let Some(field) = fields.get_mut(number) {
                field.fault = Some(fault);
            }
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let (fields, count) = (self.shown().len(), self.shown().len() + 2);
        match key.code {
            KeyCode::Esc => return self.back(state),
            KeyCode::Enter if self.focus == fields => return self.back(state),
            KeyCode::Enter => return self.next(state),
            KeyCode::Tab | KeyCode::Down => self.focus = (self.focus + 1) % count,
            KeyCode::BackTab | KeyCode::Up => self.focus = (self.focus + count - 1) % count,
            KeyCode::Left | KeyCode::Right if self.focus >= fields => {
                self.focus = if self.focus == fields { fields + 1 } else { fields };
            }
            _ => self.edit(state, key),
        }
        Stays::Open
    }

    fn edit(&mut self, state: &State, key: KeyEvent) {
        let number = self.shown().get(self.focus).copied();
        if self.field_mut().is_some_and(|field| field.press(key) == Edited::Yes) {
            self.changed(state, number);
        }
    }

    /// Takes pasted text.
    pub fn paste(&mut self, state: &State, text: &str) {
        let number = self.shown().get(self.focus).copied();
        if self.field_mut().is_some_and(|field| field.paste(text) == Edited::Yes) {
            self.changed(state, number);
        }
    }

    /// The port for TLS follows the plain one while it is not the person's own; what is wrong is told as it is typed.
    fn changed(&mut self, state: &State, number: Option<usize>) {
        if self.page == Page::Certificate {
            let faults = wizard_acme::faults(&state.words, &self.acme);
            self.mark_faults(faults);
            return;
        }
        if self.page != Page::Way {
            return;
        }
        if number == Some(MODE) {
            self.usual_ports();
        }
        let beside = match self.way[PORT].get().parse::<u16>() {
            Ok(80) if self.is_acme() => Some(443),
            Ok(port) => port.checked_add(1),
            Err(_) => None,
        };
        if let (Some(PORT), Some(port), Edited::No) = (number, beside, self.way[HTTPS_PORT].edited) {
            self.way[HTTPS_PORT].value = Value::Text(LineInput::with(&port.to_string()));
        }
        let faults = self.config(state).err().unwrap_or_default();
        self.mark_faults(faults);
    }

    /// The ports that the mode is usually reached at, while they are not the person's own: the directory and browsers expect
    /// those of the web.
    fn usual_ports(&mut self) {
        let usual = if self.is_acme() { (80, 443) } else { (self.port, self.port + 1) };
        for (number, port) in [(PORT, usual.0), (HTTPS_PORT, usual.1)] {
            if self.way[number].edited == Edited::No {
                self.way[number].value = Value::Text(LineInput::with(&port.to_string()));
            }
        }
    }

    /// Takes a click on a field.
    pub fn focus_on(&mut self, row: usize) -> Stays {
        self.focus = row.min(self.shown().len() + 1);
        Stays::Open
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        if button == 0 { self.back(state) } else { self.next(state) }
    }

    fn show(&mut self, page: Page) {
        self.page = page;
        // The first field, or Next.
        self.focus = usize::from(self.shown().is_empty());
    }

    fn back(&mut self, state: &mut State) -> Stays {
        if self.runs() {
            self.break_off(state);
            return Stays::Open;
        }
        match self.page {
            Page::Check | Page::Done => return Stays::Closed,
            Page::Way => self.show(Page::Check),
            Page::Policy if self.is_acme() => self.show(Page::Certificate),
            Page::Certificate | Page::Policy => self.show(Page::Way),
            Page::Summary => self.show(Page::Policy),
        }
        Stays::Open
    }

    /// Ends the start of the listener, which may wait minutes for its certificate; it is tried again by the same button. What
    /// is stored takes no time.
    fn break_off(&mut self, state: &mut State) {
        let Some((_, deed)) = self.deeds.iter_mut().find(|(deed, _)| *deed == Deed::Listener) else { return };
        if let DeedState::Runs(ticket) = *deed {
            state.leave(ticket);
            let told = state.words.say("wizard.broken_off").into_owned();
            *deed = DeedState::Failed(Failure::new(ErrorCode::Cancelled, told));
        }
    }

    /// Whether what runs can be broken off.
    pub(super) fn can_be_broken_off(&self) -> bool {
        self.deeds.iter().any(|(deed, state)| *deed == Deed::Listener && matches!(state, DeedState::Runs(_)))
    }

    fn next(&mut self, state: &mut State) -> Stays {
        match self.page {
            Page::Check => match &self.report {
                Some(Ok(_)) => self.show(Page::Way),
                // A failed look is tried again.
                Some(Err(_)) if self.checking.is_none() => self.look(state),
                _ => {}
            },
            Page::Way if self.checking.is_some() => {}
            Page::Way => match self.config(state) {
                Ok(_) => {
                    self.mark_faults(Faults::new());
                    self.look(state);
                }
                Err(faults) => self.insist(faults),
            },
            Page::Certificate => {
                let faults = wizard_acme::faults(&state.words, &self.acme);
                if faults.is_empty() {
                    self.mark_faults(faults);
                    self.show(Page::Policy);
                } else {
                    self.insist(faults);
                }
            }
            Page::Policy => self.show(Page::Summary),
            Page::Summary => self.begin(state),
            Page::Done => {
                overlays::firewall::open(state);
                return Stays::Closed;
            }
        }
        Stays::Open
    }

    /// Says beside every field of the page what is wrong with it, and goes to the first one.
    fn insist(&mut self, faults: Faults) {
        for field in self.fields_mut() {
            field.edited = Edited::Yes;
        }
        let first = self.shown().into_iter().find(|number| faults.iter().any(|(wrong, _)| wrong == number));
        self.mark_faults(faults);
        self.focus = self.shown().iter().position(|number| Some(*number) == first).unwrap_or(0);
    }

    /// Whether something is being changed.
    pub(super) fn runs(&self) -> bool {
        self.deeds.iter().any(|(_, state)| matches!(state, DeedState::Runs(_)))
    }

    /// Begins what the summary says; what an earlier try did already is not done again.
    fn begin(&mut self, state: &mut State) {
        if self.runs() {
            return;
        }
        let mut deeds = Vec::new();
        self.storing = if self.is_acme() { wizard_acme::changes(state, &self.acme) } else { Vec::new() };
        if !self.storing.is_empty() {
            deeds.push((Deed::Certificate, DeedState::Waits));
        }
        if self.policy().is_some() {
            deeds.push((Deed::Policy, DeedState::Waits));
        }
        deeds.push((Deed::Listener, DeedState::Waits));
        self.deeds = deeds;
        self.go_on(state);
    }

    /// Begins the next deed, or shows that all are done.
    fn go_on(&mut self, state: &mut State) {
        let Some(at) = self.deeds.iter().position(|(_, state)| *state == DeedState::Waits) else {
            self.show(Page::Done);
            return;
        };
        let request: Option<Request> = match self.deeds[at].0 {
            Deed::Certificate => {
                let next = self.storing.first().cloned();
                next.map(|(key, value)| SetSetting { key: key.to_owned(), value }.into())
            }
            Deed::Policy => {
                let json = self.policy().and_then(|policy| serde_json::to_string(&policy).ok());
                json.map(|json| SetPolicy { json }.into())
            }
            Deed::Listener => {
                let config = self.config(state).ok();
                config.map(|config| StartListener { config: Some(config), unnamed: Vec::new() }.into())
            }
        };
        let Some(request) = request else { return };
        let ticket = state.call(request);
        if state.pending.contains_key(&ticket) {
            self.deeds[at].1 = DeedState::Runs(ticket);
        }
    }

    /// Takes an answer that it waits for.
    fn take(&mut self, state: &mut State, ticket: Ticket, reply: Reply) {
        match reply {
            Reply::CheckPublish(_, outcome) => self.take_report(state, outcome),
            Reply::SetSetting(_, outcome) => {
                if outcome.is_ok() && self.storing.len() > 1 {
                    self.storing.remove(0);
                    self.again(ticket);
                    self.go_on(state);
                } else {
                    self.settle(state, ticket, outcome.map(|_stored| ()));
                    // The next try begins from what is in force then.
                    read_store(state, Noun::Settings);
                }
            }
            Reply::SetPolicy(_, outcome) => {
                // The policy in force is another one now: a second try must not do it again.
                let outcome = outcome.map(|policy| {
                    if let Some(Ok(report)) = &mut self.report {
                        report.policy = policy;
                    }
                });
                self.settle(state, ticket, outcome);
            }
            Reply::StartListener(_, outcome) => {
                let outcome = outcome.map(|status| self.addresses = status.addresses);
                self.settle(state, ticket, outcome);
            }
            _ => {}
        }
    }

    /// A deed of several calls goes on with the next one.
    fn again(&mut self, ticket: Ticket) {
        if let Some((_, deed)) = self.deeds.iter_mut().find(|(_, state)| *state == DeedState::Runs(ticket)) {
            *deed = DeedState::Waits;
        }
    }

    fn settle(&mut self, state: &mut State, ticket: Ticket, outcome: Outcome<()>) {
        let Some((_, deed)) = self.deeds.iter_mut().find(|(_, state)| *state == DeedState::Runs(ticket)) else {
            return;
        };
        match outcome {
            Ok(()) => {
                *deed = DeedState::Done;
                self.go_on(state);
            }
            Err(failure) => *deed = DeedState::Failed(failure),
        }
    }

    fn take_report(&mut self, state: &State, outcome: Outcome<PublishReport>) {
        self.checking = None;
        let fine = outcome.as_ref().is_ok_and(|report| report.ports.iter().all(|finding| finding.state.is_free()));
        if let Ok(report) = &outcome {
            self.offer_modes(report);
        }
        let asked_for = self.page == Page::Way;
        self.report = Some(outcome);
        if asked_for {
            if fine {
                self.show(if self.is_acme() { Page::Certificate } else { Page::Policy });
            } else {
                self.tell_ports(state);
            }
        }
    }

    /// The modes of this version; the one that was chosen stays chosen.
    fn offer_modes(&mut self, report: &PublishReport) {
        let chosen = self.way[MODE].get().to_owned();
        let options: Vec<Choice> =
            report.modes.iter().map(|mode| Choice { value: mode.name.clone(), label: mode.name.clone() }).collect();
        if let Value::Choice { options: known, at } = &mut self.way[MODE].value
            && !options.is_empty()
        {
            *at = options.iter().position(|choice| choice.value == chosen).unwrap_or(0);
            *known = options;
        }
    }

    /// Says beside the fields why a port cannot be had.
    fn tell_ports(&mut self, state: &State) {
        let Some(Ok(report)) = &self.report else { return };
        let faults: Faults = report
            .ports
            .iter()
            .filter(|finding| !finding.state.is_free())
            .map(|finding| {
                let plain = self.way[PORT].get() == finding.port.to_string();
                (if plain { PORT } else { HTTPS_PORT }, port_words(state, &finding.state))
            })
            .collect();
        let first = faults.first().map(|(number, _)| *number);
        self.mark_faults(faults);
        for number in [PORT, HTTPS_PORT] {
            self.way[number].edited = Edited::Yes;
        }
        if let Some(place) = self.shown().iter().position(|number| Some(*number) == first) {
            self.focus = place;
        }
    }
}

/// How a port stands, in words.
pub(super) fn port_words(state: &State, port: &PortState) -> String {
    let words = &state.words;
    match port {
        PortState::Free => words.say("wizard.port_free").into_owned(),
        PortState::Ours => words.say("wizard.port_ours").into_owned(),
        PortState::Held { by, free } => {
            let by = by.as_deref().map_or_else(|| words.say("wizard.somebody"), |by| by.to_owned().into());
            let by = crate::types::text::escape(&by).into_owned();
            match free {
                Some(free) => words.fill("wizard.port_held_free", &[("by", &by), ("free", &free.to_string())]),
                None => words.fill("wizard.port_held", &[("by", &by)]),
            }
        }
        PortState::Forbidden => words.say("wizard.port_forbidden").into_owned(),
        PortState::Unusable { why } => words.fill("wizard.port_unusable", &[("why", &crate::types::text::escape(why))]),
    }
}

/// Gives an answer to the wizard that waits for it; answers it back when none does.
pub fn take(state: &mut State, ticket: Ticket, reply: Reply) -> Option<Reply> {
    let waits = |wizard: &Wizard| {
        wizard.checking == Some(ticket) || wizard.deeds.iter().any(|(_, state)| *state == DeedState::Runs(ticket))
    };
    let place = state.overlays.iter().position(|overlay| matches!(overlay, Overlay::Wizard(wizard) if waits(wizard)));
    let Some(place) = place else { return Some(reply) };
    if let Overlay::Wizard(mut wizard) = state.overlays.remove(place) {
        wizard.take(state, ticket, reply);
        state.overlays.insert(place.min(state.overlays.len()), Overlay::Wizard(wizard));
    }
    None
}

/// Keeps what was typed for the next time.
pub fn closed(state: &mut State, wizard: Box<Wizard>) {
    state.proxy.wizard = Some(wizard);
}

/// The owner is gone: nothing that was waited for will come.
pub fn forget(wizard: &mut Wizard, failure: &Failure) {
    if wizard.checking.take().is_some() {
        wizard.report = Some(Err(failure.clone()));
    }
    for (_, state) in &mut wizard.deeds {
        if matches!(state, DeedState::Runs(_)) {
            *state = DeedState::Failed(failure.clone());
        }
    }
}
