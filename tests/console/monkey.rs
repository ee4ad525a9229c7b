//! A monkey at the keyboard: a hundred thousand random keys, clicks, wheels, pastes and resizes while events flow, calls are
//! answered well and badly and the owner comes and goes. The console ends alive, with what it remembers bounded.

use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use flm::tui::action::{Action, Command, WindowFocus};
use flm::tui::effect::{Answer, Effect, Progressed, Told};
use flm::tui::state::State;
use flm::tui::tabs::Tab;
use flm::tui::update::update;
use flm::tui::window::KEPT;
use flm::tui::world::KEPT_ROWS;
use flm::tui::{OwnerOrigin, event};
use flm::types::audit::{AuditKind, Severity};
use flm::types::calls::chat::ChatProgress;
use flm::types::comparison::{CompareProgress, CompareTold};
use flm::types::failure::{ErrorCode, Failure};
use flm::types::live::{LiveEvent, LiveLine, Noun};

use crate::fixture::{audit_row, busy, draw, full_page, happen, request, screen_text, snapshot, status};

/// Things that each monkey does; there are four of them.
const DEEDS: u32 = 25_000;
/// Deeds between two drawings, as the loop draws many events at once.
const DRAWN_EVERY: u32 = 40;

/// Numbers without a pattern that matters (xorshift64*, Vigna 2016); the same seed gives the same numbers.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn cell(&mut self, sides: u64) -> u16 {
        u16::try_from(self.throw(sides)).expect("small")
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.throw(among.len() as u64)).expect("small")]
    }
}

const CODES: [KeyCode; 28] = [
    KeyCode::Enter,
    KeyCode::Enter,
    KeyCode::Esc,
    KeyCode::Esc,
    KeyCode::Tab,
    KeyCode::BackTab,
    KeyCode::Up,
    KeyCode::Down,
    KeyCode::Left,
    KeyCode::Right,
    KeyCode::Home,
    KeyCode::End,
    KeyCode::PageUp,
    KeyCode::PageDown,
    KeyCode::Backspace,
    KeyCode::Delete,
    KeyCode::F(1),
    KeyCode::F(2),
    KeyCode::F(3),
    KeyCode::F(4),
    KeyCode::F(5),
    KeyCode::F(6),
    KeyCode::F(7),
    KeyCode::F(8),
    KeyCode::F(9),
    KeyCode::F(10),
    KeyCode::F(12),
    KeyCode::Null,
];

fn key(dice: &mut Dice) -> KeyEvent {
    let letters: Vec<char> = "abcdefghijklmnopqrstuvwxyzCDFGLRSUY0123456789/?:![] 日本é-_.".chars().collect();
    let code = if dice.throw(3) == 0 { dice.pick(&CODES) } else { KeyCode::Char(dice.pick(&letters)) };
    let modifiers = match dice.throw(14) {
        0 => KeyModifiers::CONTROL,
        1 => KeyModifiers::SHIFT,
        2 => KeyModifiers::ALT,
        _ => KeyModifiers::NONE,
    };
    KeyEvent::new(code, modifiers)
}

/// What the world outside makes of effects: answers good and bad, words of models, files.
fn outside(state: &mut State, dice: &mut Dice, effects: Vec<Effect>) {
    let failure = || Failure::new(ErrorCode::DbError, "the disk is full\u{1b}[31m").hint("free some space");
    for effect in effects {
        match effect {
            Effect::Call { ticket, request } => {
                if dice.throw(8) == 0 {
                    // Some are never answered.
                    continue;
                }
                let words = ["one ", "日本 ", "\u{1b}[2Jx\n", "- item\n"];
                for _ in 0..dice.throw(4) {
                    let text = dice.pick(&words).to_owned();
                    let told = if dice.throw(2) == 0 {
                        Told::Chat(ChatProgress::Text(text))
                    } else {
                        Told::Compare(CompareProgress { model: 1, run: 1, told: CompareTold::Text(text) })
                    };
                    update(state, Action::Progressed(Box::new(Progressed { ticket, told })));
                }
                let reply = match full_page(request.clone()) {
                    Some(reply) if dice.throw(4) > 0 => reply,
                    _ => request.failed(failure()),
                };
                update(state, Action::Answered(Box::new(Answer { ticket, reply })));
            }
            Effect::Write { ticket, path, .. } => {
                let outcome = if dice.throw(2) == 0 { Ok(()) } else { Err(failure()) };
                update(state, Action::Written { ticket, path, outcome });
            }
            Effect::Read { ticket, .. } => {
                let outcome = if dice.throw(2) == 0 { Ok("10.9.8.7\n".to_owned()) } else { Err(failure()) };
                update(state, Action::FileRead { ticket, outcome });
            }
            // A real one would end, stop or draw here; this one goes on.
            Effect::Leave(_)
            | Effect::Copy(_)
            | Effect::Repaint
            | Effect::Suspend
            | Effect::Mouse(_)
            | Effect::Notify(_)
            | Effect::End(_) => {}
        }
    }
}

fn traffic(state: &mut State, dice: &mut Dice, number: u32) -> Vec<Effect> {
    let serial = u64::from(number);
    match dice.throw(9) {
        0 | 1 => happen(state, LiveEvent::Request(Box::new(request(u128::from(serial) << 8, dice.throw(60))))),
        2 | 3 => {
            let severity = dice.pick(&[Severity::Low, Severity::Medium, Severity::High, Severity::Critical]);
            let row = audit_row(1_000 + serial, AuditKind::RuleHit, severity, "x\u{202e}\u{1b}]0;y\u{7}");
            happen(state, LiveEvent::Audit(Box::new(row)))
        }
        4 => happen(state, LiveEvent::Traffic(Box::new(snapshot().traffic))),
        5 => {
            let engine = snapshot().engines[usize::try_from(dice.throw(4)).expect("small")].clone();
            happen(state, LiveEvent::Engine(Box::new(engine)))
        }
        6 => {
            happen(state, LiveEvent::Changed(dice.pick(&[Noun::Keys, Noun::Blocklist, Noun::Prompts, Noun::Profiles])))
        }
        7 => {
            let mut now = status();
            if dice.throw(3) == 0 {
                now.listeners.clear();
            }
            happen(state, LiveEvent::Status(Box::new(now)))
        }
        _ if dice.throw(20) == 0 => {
            let failure = Failure::new(ErrorCode::IoError, "the proxy's process ended");
            update(state, Action::Lost { failure, attempt: 1, retry_at: state.now.plus(Duration::from_secs(1)) });
            update(state, Action::Attached(OwnerOrigin::AlreadyRan));
            let line = LiveLine::Snapshot { snapshot: Box::new(snapshot()), dropped: dice.throw(3) };
            update(state, Action::Live(Box::new(line)))
        }
        _ => Vec::new(),
    }
}

fn monkey(seed: u64, language: &str) {
    let mut dice = Dice(seed);
    let mut state = busy(language, (80, 24));
    for number in 0..DEEDS {
        state.now = state.now.plus(Duration::from_millis(dice.throw(400)));
        let mouse = |kind, dice: &mut Dice| {
            let (column, row) = (dice.cell(130), dice.cell(45));
            Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
        };
        let event = match dice.throw(20) {
            0 => Some(mouse(MouseEventKind::Down(MouseButton::Left), &mut dice)),
            1 => Some(mouse(dice.pick(&[MouseEventKind::ScrollUp, MouseEventKind::ScrollDown]), &mut dice)),
            2 if dice.throw(20) == 0 => Some(Event::Resize(dice.cell(220), dice.cell(60))),
            3 if dice.throw(10) == 0 => Some(Event::Paste("pasted\n\u{1b}[31m日本\tq".to_owned())),
            4 if dice.throw(2) == 0 => Some(Event::FocusLost),
            4 => Some(Event::FocusGained),
            5 | 6 => None,
            _ => Some(Event::Key(key(&mut dice))),
        };
        let effects = match event {
            Some(event) => match event::translate(&state, event) {
                Some(action) => update(&mut state, action),
                None => Vec::new(),
            },
            None => traffic(&mut state, &mut dice, number),
        };
        outside(&mut state, &mut dice, effects);
        if dice.throw(50) == 0 {
            let effects = update(&mut state, Action::Tick);
            outside(&mut state, &mut dice, effects);
        }
        if number % DRAWN_EVERY == 0 {
            draw(&mut state);
            assert!(state.overlays.len() < 12, "boxes pile up: {:?}", state.overlays);
        }
    }
    assert!(state.world.requests.len() <= KEPT_ROWS && state.world.audit.len() <= KEPT_ROWS);
    assert!(state.security.window().rows().len() <= KEPT && state.proxy.requests.window.rows().len() <= KEPT);
    assert!(state.toasts.len() <= 4);
    // It is alive: boxes close, every tab shows, and it can be left.
    update(&mut state, Action::Focus(WindowFocus::Focused));
    update(&mut state, Action::Resize { columns: 80, rows: 24 });
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        state.overlays.clear();
        let commands = [Command::Tab1, Command::Tab2, Command::Tab3, Command::Tab4, Command::Tab5, Command::Tab6];
        update(&mut state, Action::Run(commands[number]));
        assert_eq!(state.tab, tab);
        assert!(screen_text(&draw(&mut state)).contains("FLM"));
    }
    let first = update(&mut state, Action::Run(Command::Quit));
    let second = update(&mut state, Action::Run(Command::Quit));
    assert!(first.iter().chain(&second).any(|effect| matches!(effect, Effect::End(_))), "it can be left");
}

#[test]
fn a_first_monkey_leaves_the_console_alive() {
    monkey(0x9E37_79B9_7F4A_7C15, "en");
}

#[test]
fn a_second_monkey_leaves_the_console_alive() {
    monkey(0xD1B5_4A32_D192_ED03, "ja");
}

#[test]
fn a_third_monkey_leaves_the_console_alive() {
    monkey(0x94D0_49BB_1331_11EB, "en");
}

#[test]
fn a_fourth_monkey_leaves_the_console_alive() {
    monkey(0xBF58_476D_1CE4_E5B9, "ja");
}
