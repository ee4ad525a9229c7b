//! What an hour of 1,000 events a second leaves in the memory of a console, in simulated time: requests, security events,
//! counters and alerts through the real update, with a frame drawn every quarter of a second.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use flm::tui::OwnerOrigin;
use flm::tui::action::{Action, Command as Key};
use flm::tui::state::State;
use flm::tui::text::Words;
use flm::tui::theme::{Depth, ThemeShelf};
use flm::tui::update::update;
use flm::tui::view;
use flm::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use flm::types::clock::UnixMillis;
use flm::types::live::{LiveEvent, LiveLine, NumberedEvent, Traffic};
use flm::types::request::RequestRow;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::{Fault, seed, watch};

const EVENTS_PER_SECOND: u64 = 1_000;
/// Seconds of the hour.
pub(crate) const HOUR: u64 = 3_600;

/// Runs it in a process of its own; anonymous memory in MiB before and after.
pub(crate) fn measured(seconds: u64) -> Result<(f64, f64), Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(["hour", &seconds.to_string()]).stdout(Stdio::piped()).spawn()?;
    let mut told = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut told)?;
    child.wait()?;
    let mut figures = told.split_whitespace().map(str::parse::<f64>);
    let before = figures.next().ok_or("no figures")??;
    Ok((before, figures.next().ok_or("one figure")??))
}

/// Lives through so many seconds and writes both figures.
pub(crate) fn run(seconds: u64) -> Result<(), Fault> {
    let theme = ThemeShelf::default().load("dark", Depth::True)?;
    let mut state = State::new(Words::new("en", jiff::tz::TimeZone::UTC), theme, (80, 24), UnixMillis(0));
    update(&mut state, Action::Attached(OwnerOrigin::AlreadyRan));
    draw(&mut state);
    let own = || watch::memory(std::process::id(), &["RssAnon:"]);
    let before = own()?;
    let mut number = 0;
    for second in 0..seconds {
        // Every tab is in front for some time.
        let tab = [Key::Tab3, Key::Tab4, Key::Tab1, Key::Tab5][usize::try_from(second / 60 % 4)?];
        update(&mut state, Action::Run(tab));
        if second % 7 == 0 {
            update(&mut state, Action::Run(Key::Down));
        }
        for part in 0..EVENTS_PER_SECOND {
            number += 1;
            let at = UnixMillis(i64::try_from(second * 1_000 + part)?);
            state.now = at;
            let numbered = NumberedEvent { sequence: number, event: Arc::new(event(number, at)) };
            update(&mut state, Action::Live(Box::new(LiveLine::Event(numbered))));
            if part % (EVENTS_PER_SECOND / 4) == 0 {
                draw(&mut state);
            }
        }
    }
    writeln!(std::io::stdout(), "{before} {}", own()?)?;
    Ok(())
}

fn draw(state: &mut State) {
    let area = Rect::new(0, 0, state.size.0, state.size.1);
    let mut buffer = Buffer::empty(area);
    let geometry = view::draw(state, &mut buffer, area);
    state.drawn(geometry);
}

fn event(number: u64, at: UnixMillis) -> LiveEvent {
    match number % 10 {
        0 => LiveEvent::Traffic(Box::new(Traffic { at, requests_total: number, ..Traffic::default() })),
        1..=3 => {
            let details = format!("refused, number {number}");
            let event = AuditEvent::new(at, AuditKind::AddressRefused, Severity::Low, details);
            LiveEvent::Audit(Box::new(AuditRow { sequence: number, event }))
        }
        _ => LiveEvent::Request(Box::new(RequestRow {
            model: Some(format!("model-{}", number % 100).into()),
            user_agent: Some("bench".into()),
            ..seed::request(number, at)
        })),
    }
}
