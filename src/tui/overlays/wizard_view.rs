//! How the setup wizard looks: the steps above, what the step asks or tells, Back and Next below.

use std::net::SocketAddr;

use ratatui::layout::Rect;

use crate::tui::overlays::form::{self, spinner};
use crate::tui::overlays::wizard::{self, Deed, DeedState, Page, Stance, Wizard, port_words};
use crate::tui::overlays::wizard_acme;
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, row};
use crate::tui::widgets::popup;
use crate::types::calls::publish::{PortPurpose, PublishReport, WirePrivacy};
use crate::types::listener::{Exposure, ListenerConfig, ListenerStatus, TlsMode};
use crate::types::policy::{Mode, RuleName};
use crate::types::text::escape;

/// Columns and rows of the box, where the screen has them.
const SIZE: (u16, u16) = (84, 23);

/// A sign, what it says, and its colour.
type Finding = (&'static str, String, Role);

impl Wizard {
    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let title = painter.say("wizard.title");
        let area = popup::open(painter, screen, &title, SIZE.0, SIZE.1);
        self.draw_steps(painter, row(area, 0));
        let body = Rect { y: area.y + 2.min(area.height), height: area.height.saturating_sub(4), ..area };
        match self.page {
            Page::Check => self.draw_check(state, painter, body),
            Page::Way | Page::Certificate | Page::Policy => self.draw_fields(state, painter, body),
            Page::Summary => self.draw_summary(state, painter, body),
            Page::Done => self.draw_done(state, painter, body),
        }
        let buttons = row(area, area.height.saturating_sub(1));
        if self.checking.is_some() || self.runs() {
            painter.text(buttons, spinner(state), Role::Info);
        }
        let back = painter.say(match self.page {
            _ if self.can_be_broken_off() => "work.leave",
            Page::Check | Page::Done => "button.close",
            _ => "button.back",
        });
        let next = painter.say(match self.page {
            Page::Summary => "button.do_it",
            Page::Done => "button.firewall",
            _ => "button.next",
        });
        popup::buttons(painter, buttons, &[&back, &next], self.focus.checked_sub(self.shown().len()));
    }

    fn draw_steps(&self, painter: &mut Painter<'_>, line: Rect) {
        let between = format!(" {} ", painter.symbols.running);
        let steps: Vec<_> =
            (1..).zip(self.pages()).map(|(number, (page, name))| (number, page, painter.say(name))).collect();
        let whole: usize = steps.iter().map(|(_, _, name)| text::width(name) + 2).sum();
        // Where not all names have room, only that of the page in front is told.
        let fits = whole + text::width(&between) * steps.len().saturating_sub(1) <= usize::from(line.width);
        let mut parts: Vec<(String, Role)> = Vec::new();
        for (number, page, name) in steps {
            if number > 1 {
                parts.push((between.clone(), Role::Faint));
            }
            let role = match page.cmp(&self.page) {
                std::cmp::Ordering::Less => Role::Ok,
                std::cmp::Ordering::Equal => Role::Accent,
                std::cmp::Ordering::Greater => Role::Muted,
            };
            let named = fits || page == self.page;
            parts.push((if named { format!("{number} {name}") } else { number.to_string() }, role));
        }
        let parts: Vec<(&str, Role)> = parts.iter().map(|(text, role)| (text.as_str(), *role)).collect();
        painter.parts(line, &parts);
    }

    fn draw_check(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let mut y = painter.paragraph(area, &painter.say("wizard.intro"), Role::Popup) + 1;
        match &self.report {
            None => {
                let reading = painter.say("link.reading");
                painter.text(row(area, y), &reading, Role::Muted);
            }
            Some(Err(failure)) => {
                y += painter.paragraph(below(area, y), &escape(&failure.message), Role::Error);
                let hint = escape(failure.hint.as_deref().unwrap_or_default());
                painter.paragraph(below(area, y), &hint, Role::Muted);
            }
            Some(Ok(report)) => draw_findings(painter, below(area, y), &findings(state, report)),
        }
    }

    fn draw_fields(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let (fields, shown) = (self.fields(), self.shown());
        let label_cells =
            cells(shown.iter().map(|number| text::width(&painter.say(fields[*number].label))).max().unwrap_or(0));
        for (place, number) in shown.iter().enumerate() {
            let emphasis = Emphasis::when(place == self.focus);
            form::draw_field(painter, row(area, cells(place)), place, &fields[*number], label_cells, emphasis);
        }
        let mut y = cells(shown.len()) + 1;
        if let Some(field) = shown.get(self.focus).and_then(|number| fields.get(*number)) {
            let (note, role) = match field.told() {
                Some(fault) => (fault.to_owned(), Role::Error),
                None => (painter.say(field.hint).into_owned(), Role::Muted),
            };
            y += painter.paragraph(below(area, y), &note, role) + 1;
        }
        let about = match self.page {
            Page::Way => self.mode_title(state),
            Page::Certificate => painter.say("obtain.about").into_owned(),
            _ => painter
                .say(match self.stance() {
                    Stance::Keep => "wizard.about_keep",
                    Stance::Simulate => "wizard.about_simulate",
                    Stance::Enforce => "wizard.about_enforce",
                })
                .into_owned(),
        };
        y += painter.paragraph(below(area, y), &about, Role::Popup);
        // Here, and not when all is done: without the forwarding there will be no certificate.
        if let (Page::Certificate, Ok(ListenerConfig { port, https_port: Some(https_port), .. })) =
            (self.page, self.config(state))
        {
            let way_in = wizard_acme::way_in(&state.words, &self.acme, port, https_port);
            y += painter.paragraph(below(area, y), &way_in, Role::Popup);
        }
        y += 1;
        if let (Page::Policy, Some(Ok(report))) = (self.page, &self.report) {
            draw_findings(painter, below(area, y), &guards(state, report));
        }
    }

    /// What the chosen mode does. A mode that has no words in this language tells its own.
    fn mode_title(&self, state: &State) -> String {
        let Some(Ok(report)) = &self.report else { return String::new() };
        let mode = self.way[wizard::MODE].get();
        let Some(known) = report.modes.iter().find(|known| known.name == mode) else { return String::new() };
        let title = match mode {
            TlsMode::LOCAL_HTTP => state.words.say("mode.local_http"),
            TlsMode::DEV_SELFSIGNED => state.words.say("mode.dev_selfsigned"),
            TlsMode::PACKAGED_CA => state.words.say("mode.packaged_ca"),
            TlsMode::CERTIFICATE_FILES => state.words.say("mode.certificate_files"),
            TlsMode::HTTPS_ACME => state.words.say("mode.https_acme"),
            _ => escape(&known.title),
        };
        format!("{}: {title}", escape(&known.name))
    }

    fn draw_summary(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let words = &state.words;
        let intro = painter.say("wizard.will_change");
        let mut y = painter.paragraph(area, &intro, Role::Popup) + 1;
        let begun = |deed: Deed| self.deeds.iter().find(|(known, _)| *known == deed).map(|(_, state)| state);
        let symbols = painter.symbols;
        let mut line = |painter: &mut Painter<'_>, state_of: Option<&DeedState>, text: &str| {
            let (sign, role) = match state_of {
                None | Some(DeedState::Waits) => (symbols.off, Role::Popup),
                Some(DeedState::Runs(_)) => (spinner(state), Role::Info),
                Some(DeedState::Done) => (symbols.ok, Role::Ok),
                Some(DeedState::Failed(_)) => (symbols.error, Role::Error),
            };
            painter.text(row(area, y), sign, role);
            let place = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..below(area, y) };
            y += painter.paragraph(place, text, role);
            if let Some(DeedState::Failed(failure)) = state_of {
                let place = |y| Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..below(area, y) };
                y += painter.paragraph(place(y), &escape(&failure.message), Role::Error);
                if let Some(hint) = &failure.hint {
                    y += painter.paragraph(place(y), &escape(hint), Role::Muted);
                }
            }
        };
        // What was done already is no longer a change, and still belongs to the list.
        if self.is_acme() {
            line(painter, begun(Deed::Certificate), &escape(&wizard_acme::told(words, &self.acme)));
        }
        if self.policy().is_some() || begun(Deed::Policy).is_some() {
            let key = match self.stance() {
                Stance::Simulate => "wizard.do_simulate",
                _ => "wizard.do_enforce",
            };
            line(painter, begun(Deed::Policy), &words.say(key));
        } else {
            line(painter, None, &words.say("wizard.do_keep"));
        }
        if let Ok(config) = self.config(state) {
            let place = SocketAddr::new(config.bind, config.port).to_string();
            let values = [("mode", &*escape(&config.mode.0)), ("place", place.as_str())];
            let mut told = words.fill("wizard.do_listen", &values);
            if let Some(port) = config.https_port {
                told.push_str(&words.fill("wizard.do_listen_tls", &[("port", &port.to_string())]));
            }
            let own = |listener: &&ListenerStatus| listener.config.port == config.port;
            let mut listeners = state.world.status.iter().flat_map(|status| &status.listeners);
            let step = listeners.find(own).and_then(|listener| listener.tls.as_ref()?.progress.as_ref());
            let listening = begun(Deed::Listener);
            if let (Some(step), Some(DeedState::Runs(_))) = (step, listening) {
                told.push_str(&format!(": {}", escape(step)));
            }
            line(painter, listening, &told);
        }
        let new = self.config(state).ok().map(|config| config.port);
        let others = |listener: &&ListenerStatus| Some(listener.config.port) != new;
        for listener in state.world.status.iter().flat_map(|status| &status.listeners).filter(others) {
            let address = listener.addresses.first().map(|address| escape(address).into_owned()).unwrap_or_default();
            line(painter, None, &words.fill("wizard.stays", &[("address", &address)]));
        }
        line(painter, None, &words.say("wizard.firewall_later"));
    }

    fn draw_done(&self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        let words = &state.words;
        let mut y = painter.paragraph(area, &words.say("wizard.is_done"), Role::Ok) + 1;
        for address in &self.addresses {
            painter.text(row(area, y), &escape(address), Role::Accent);
            y += 1;
        }
        y += 1;
        y += painter.paragraph(below(area, y), &words.say("wizard.firewall"), Role::Popup);
        painter.paragraph(below(area, y + 1), &words.say("wizard.router"), Role::Muted);
    }
}

fn draw_findings(painter: &mut Painter<'_>, area: Rect, findings: &[Finding]) {
    let mut y = 0;
    for (sign, text, role) in findings {
        painter.text(row(area, y), sign, *role);
        let place = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..below(area, y) };
        y += painter.paragraph(place, text, if *role == Role::Ok { Role::Popup } else { *role }).max(1);
    }
}

/// How things are: reach, addresses, names, ports, and what guards.
fn findings(state: &State, report: &PublishReport) -> Vec<Finding> {
    let words = &state.words;
    let symbols = state.symbols();
    let (fine, look) = (|text| (symbols.ok, text, Role::Ok), |text| (symbols.warn, text, Role::Warn));
    let mut found = vec![match report.exposure {
        Exposure::Local => fine(words.say("wizard.reached_local").into_owned()),
        Exposure::Public => look(words.say("wizard.reached_public").into_owned()),
    }];
    let list = |things: Vec<String>| escape(&things.join(", ")).into_owned();
    found.push(if report.addresses.is_empty() {
        look(words.say("wizard.no_address").into_owned())
    } else {
        let addresses = list(report.addresses.iter().map(ToString::to_string).collect());
        fine(words.fill("wizard.addresses", &[("addresses", &addresses)]))
    });
    if !report.names.is_empty() {
        found.push(fine(words.fill("wizard.names", &[("names", &list(report.names.clone()))])));
    }
    for finding in &report.ports {
        let purpose = words.say(match finding.purpose {
            PortPurpose::Plain => "wizard.plain",
            PortPurpose::Tls => "wizard.tls",
        });
        let told = port_words(state, &finding.state);
        let text = words
            .fill("wizard.port_line", &[("port", &finding.port.to_string()), ("purpose", &purpose), ("state", &told)]);
        found.push(if finding.state.is_free() { fine(text) } else { look(text) });
    }
    if report.privacy == WirePrivacy::InClear {
        found.push(look(words.say("wizard.in_clear").into_owned()));
    }
    found.extend(guards(state, report));
    found
}

/// What guards the endpoint: keys, allow list, rules.
fn guards(state: &State, report: &PublishReport) -> Vec<Finding> {
    let words = &state.words;
    let symbols = state.symbols();
    let (fine, look) = (|text| (symbols.ok, text, Role::Ok), |text| (symbols.warn, text, Role::Warn));
    let count = |mode| RuleName::ALL.iter().filter(|rule| report.policy.rules.scoring(**rule).mode == mode).count();
    let (enforce, all) = (count(Mode::Enforce), RuleName::ALL.len());
    let rules = words.fill(
        "wizard.rules_are",
        &[
            ("enforce", &enforce.to_string()),
            ("simulate", &count(Mode::Simulate).to_string()),
            ("off", &count(Mode::Off).to_string()),
        ],
    );
    vec![
        match report.keys {
            0 => look(words.say("wizard.no_keys").into_owned()),
            keys => fine(words.fill("wizard.keys_are", &[("count", &keys.to_string())])),
        },
        match report.allowed {
            0 => look(words.say("wizard.everyone").into_owned()),
            networks => fine(words.fill("wizard.allowed", &[("count", &networks.to_string())])),
        },
        if enforce == all { fine(rules) } else { look(rules) },
    ]
}
