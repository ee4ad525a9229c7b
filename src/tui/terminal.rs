//! The terminal: taking it over, giving it back whatever happens, and writing a frame in one piece.
//!
//! Called by the loop in `tui` only. Must never ask the terminal anything: an answer would race with key presses
//! and a terminal that does not answer would hold the first frame up. What is switched on is listed once, in
//! [`enter`] and [`leave`].

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, queue};
use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};

use crate::tui::cells;
use crate::tui::effect::{Bell, MouseUse, Notification};
use crate::tui::geometry::Geometry;
use crate::tui::state::State;
use crate::tui::view::view;
use crate::types::text::{escape, is_hostile};

/// Clicks and wheel (1000) with coordinates beyond 223 (1006); no motion (1002, 1003), which would be traffic for
/// nothing over SSH (TUI.md §1).
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Begin and end of a frame that is shown at once (DEC private mode 2026); other terminals ignore it.
const SYNC_ON: &[u8] = b"\x1b[?2026h";
const SYNC_OFF: &[u8] = b"\x1b[?2026l";

/// Keys that say what they are (kitty's keyboard protocol, flag 1: disambiguate), as long as the console runs. The terminal
/// keeps a stack of its own for the alternate screen, so it is pushed and popped there.
const KEYBOARD_ON: &str = "\x1b[>1u";
const KEYBOARD_OFF: &str = "\x1b[<1u";

/// The last line, emptied: where there is no second screen to leave (GNU screen unless `altscreen` is on), the shell goes on
/// there and not in the middle of the last frame.
const BELOW_ALL: &[u8] = b"\x1b[999;1H\x1b[K";

/// Bytes of a sequence that GNU screen hands on in one piece (its MAXSTR is 768, with room for what is around).
const SCREEN_PIECE: usize = 512;

/// How the terminal tells key presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyboard {
    /// As terminals have always done.
    #[default]
    Classic,
    /// By kitty's protocol, where Esc is no beginning of anything and Alt-Enter is a key of its own.
    Kitty,
}

impl Keyboard {
    /// Kitty's protocol where the environment names a terminal that speaks it. A terminal cannot be asked (see above), and
    /// over SSH only `TERM` is known of it.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str, wanted: &[&str]| {
            variable(name).is_some_and(|value| wanted.iter().any(|known| value.starts_with(known)))
        };
        // Whatever the terminal outside speaks, a multiplexer speaks for itself.
        if Multiplexer::detect(&variable) != Multiplexer::None {
            return Self::Classic;
        }
        let speaks = is("TERM", &["xterm-kitty", "xterm-ghostty", "foot", "alacritty", "wezterm", "rio", "contour"])
            || is("TERM_PROGRAM", &["WezTerm", "ghostty", "iTerm", "rio"]);
        if speaks { Self::Kitty } else { Self::Classic }
    }
}

/// What stands between the console and the person's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multiplexer {
    /// Nothing that is known.
    #[default]
    None,
    /// tmux.
    Tmux,
    /// GNU screen.
    Screen,
}

impl Multiplexer {
    /// As the environment tells.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        if is_set("TMUX") {
            Self::Tmux
        } else if is_set("STY") {
            Self::Screen
        } else {
            Self::None
        }
    }

    /// A sequence that is meant for the terminal outside, written so that it gets there.
    fn hand_on(self, sequence: &[u8]) -> Vec<u8> {
        match self {
            Self::None => sequence.to_vec(),
            // tmux takes a copy itself where `set-clipboard` is on, and hands on what is wrapped where `allow-passthrough`
            // is: either is enough, and twice the same does no harm.
            Self::Tmux => {
                let mut out = sequence.to_vec();
                out.extend_from_slice(b"\x1bPtmux;");
                for byte in sequence {
                    if *byte == 0x1b {
                        out.push(0x1b);
                    }
                    out.push(*byte);
                }
                out.extend_from_slice(b"\x1b\\");
                out
            }
            Self::Screen => {
                // What ends the sequence would end the wrapping too: the bell ends it as well.
                let mut sequence = sequence.to_vec();
                if sequence.ends_with(b"\x1b\\") {
                    sequence.truncate(sequence.len() - 2);
                    sequence.push(0x07);
                }
                let mut out = Vec::with_capacity(sequence.len() + 32);
                for piece in sequence.chunks(SCREEN_PIECE) {
                    out.extend_from_slice(b"\x1bP");
                    out.extend_from_slice(piece);
                    out.extend_from_slice(b"\x1b\\");
                }
                out
            }
        }
    }
}

/// Characters of a message of the desktop.
const LONGEST_MESSAGE: usize = 160;

/// Whether this process has the terminal in raw mode: read by the panic hook, which may run on any thread.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether the terminal was asked for kitty's keyboard.
static KEYBOARD_TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether input and output are both a terminal.
#[must_use]
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// A backend that writes a frame in one piece and is silent when nothing changed: ratatui resets colours, hides the
/// cursor and flushes several times on every frame, which would be bytes for nothing on an idle screen.
#[derive(Debug)]
pub struct QuietBackend<W: Write> {
    /// What the frame has come to so far.
    frame: Vec<u8>,
    target: W,
    size: Size,
    cursor: Option<Position>,
    /// Where the terminal's cursor stands after the last drawing, when it is shown.
    shown_at: Option<Position>,
    /// Bytes of the last frame.
    written: usize,
}

impl<W: Write> QuietBackend<W> {
    /// Draws to `target`, which has this many columns and rows.
    #[must_use]
    pub fn new(target: W, size: (u16, u16)) -> Self {
        Self {
            frame: Vec::with_capacity(16 * 1024),
            target,
            size: Size::new(size.0, size.1),
            cursor: None,
            shown_at: None,
            written: 0,
        }
    }

    /// Says that the terminal has another size now.
    pub fn set_size(&mut self, columns: u16, rows: u16) {
        self.size = Size::new(columns, rows);
    }

    /// Writes what was collected, if anything was, between the marks of a synchronised frame.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        self.written = 0;
        if self.frame.is_empty() {
            return Ok(());
        }
        let mut whole = Vec::with_capacity(self.frame.len() + SYNC_ON.len() + SYNC_OFF.len());
        whole.extend_from_slice(SYNC_ON);
        whole.append(&mut self.frame);
        whole.extend_from_slice(SYNC_OFF);
        self.written = whole.len();
        self.target.write_all(&whole)?;
        self.target.flush()
    }

    /// Crossterm's backend holds nothing but its writer, so one is made where it is needed.
    fn crossterm(&mut self) -> CrosstermBackend<&mut Vec<u8>> {
        CrosstermBackend::new(&mut self.frame)
    }
}

impl<W: Write> Backend for QuietBackend<W> {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut content = content.peekable();
        if content.peek().is_none() {
            return Ok(());
        }
        if self.cursor.is_some() {
            // The cursor must not be seen running over the screen.
            self.crossterm().hide_cursor()?;
            self.shown_at = None;
        }
        cells::write(&mut self.frame, content);
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.cursor = None;
        if self.shown_at.take().is_some() {
            self.crossterm().hide_cursor()?;
        }
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        // The place follows; both are written together.
        self.cursor.get_or_insert_default();
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // Never asks the terminal.
        Ok(self.cursor.unwrap_or_default())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let position = position.into();
        self.cursor = Some(position);
        if self.shown_at != Some(position) {
            self.crossterm().set_cursor_position(position)?;
            if self.shown_at.is_none() {
                self.crossterm().show_cursor()?;
            }
            self.shown_at = Some(position);
        }
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.crossterm().clear()
    }

    fn clear_region(&mut self, clear_type: ClearType) -> io::Result<()> {
        self.crossterm().clear_region(clear_type)
    }

    fn size(&self) -> io::Result<Size> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::default() })
    }

    fn flush(&mut self) -> io::Result<()> {
        // The end of a frame is when the cursor is in place: `Screen::draw` knows.
        Ok(())
    }
}

/// The screen: draws states, only what changed, in one write.
#[derive(Debug)]
pub struct Screen<W: Write> {
    terminal: Terminal<QuietBackend<W>>,
    multiplexer: Multiplexer,
}

impl<W: Write> Screen<W> {
    /// Draws to `target`, which has this many columns and rows.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn new(target: W, size: (u16, u16)) -> io::Result<Self> {
        Ok(Self { terminal: Terminal::new(QuietBackend::new(target, size))?, multiplexer: Multiplexer::None })
    }

    /// The same behind a multiplexer.
    #[must_use]
    pub fn behind(mut self, multiplexer: Multiplexer) -> Self {
        self.multiplexer = multiplexer;
        self
    }

    /// Draws a state and answers where things are.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, state: &State) -> io::Result<Geometry> {
        let mut geometry = Geometry::default();
        self.terminal.draw(|frame| geometry = view(state, frame))?;
        self.terminal.backend_mut().finish()?;
        Ok(geometry)
    }

    /// Bytes of the last frame; 0 when nothing had changed.
    #[must_use]
    pub fn written(&self) -> usize {
        self.terminal.backend().written
    }

    /// Takes a new size; the next drawing is a full one.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&mut self, columns: u16, rows: u16) -> io::Result<()> {
        self.terminal.backend_mut().set_size(columns, rows);
        self.repaint()
    }

    /// Forgets what is on the screen; the next drawing is a full one. Not `Terminal::clear`, which asks the terminal
    /// for its cursor and waits (TUI.md, finding 1).
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn repaint(&mut self) -> io::Result<()> {
        let size = self.terminal.backend().size;
        self.terminal.resize(ratatui::layout::Rect::new(0, 0, size.width, size.height))
    }

    /// Puts text on the clipboard through the terminal (OSC 52): works over SSH, needs no tool.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let mut sequence = Vec::new();
        queue!(sequence, CopyToClipboard::to_clipboard_from(text))?;
        let sequence = self.multiplexer.hand_on(&sequence);
        let backend = self.terminal.backend_mut();
        backend.frame.extend_from_slice(&sequence);
        backend.finish()
    }

    /// Calls the person: a message of the desktop (OSC 9, as iTerm2, kitty, Windows Terminal and others show it;
    /// others ignore it), and the bell.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn notify(&mut self, notification: &Notification) -> io::Result<()> {
        let multiplexer = self.multiplexer;
        let backend = self.terminal.backend_mut();
        if let Some(message) = &notification.message {
            // ConEmu takes a number and a semicolon for a command of its own, and a control character would end it early.
            let plain: String =
                message.chars().filter(|c| !is_hostile(*c) && *c != ';').take(LONGEST_MESSAGE).collect();
            let sequence = multiplexer.hand_on(format!("\x1b]9;{plain}\x1b\\").as_bytes());
            backend.frame.extend_from_slice(&sequence);
        }
        if notification.bell == Bell::Rings {
            backend.frame.push(b'\x07');
        }
        backend.finish()
    }

    /// Takes or releases the mouse.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn use_mouse(&mut self, mouse: MouseUse) -> io::Result<()> {
        let sequence = if mouse == MouseUse::Console { MOUSE_ON } else { MOUSE_OFF };
        let backend = self.terminal.backend_mut();
        backend.frame.extend_from_slice(sequence.as_bytes());
        backend.finish()
    }
}

/// Takes the terminal over.
///
/// # Errors
/// When it is none, or gone.
pub fn enter(mut out: impl Write, mouse: MouseUse, keyboard: Keyboard) -> io::Result<()> {
    // NO_COLOR is the theme's business; crossterm's own handling would wipe bold and reverse (TUI.md, finding 6).
    crossterm::style::force_color_output(true);
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut sequences = Vec::with_capacity(128);
    queue!(sequences, EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange, cursor::Hide)?;
    if mouse == MouseUse::Console {
        sequences.extend_from_slice(MOUSE_ON.as_bytes());
    }
    if keyboard == Keyboard::Kitty {
        sequences.extend_from_slice(KEYBOARD_ON.as_bytes());
        KEYBOARD_TAKEN.store(true, Ordering::SeqCst);
    }
    out.write_all(&sequences)?;
    out.flush()
}

/// Gives the terminal back: everything that [`enter`] switched on, in reverse. Errors are answered, and every step
/// is tried whatever the others did.
///
/// # Errors
/// When the terminal is gone.
pub fn leave(mut out: impl Write) -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let mut sequences = Vec::with_capacity(128);
    sequences.extend_from_slice(SYNC_OFF);
    if KEYBOARD_TAKEN.swap(false, Ordering::SeqCst) {
        sequences.extend_from_slice(KEYBOARD_OFF.as_bytes());
    }
    sequences.extend_from_slice(MOUSE_OFF.as_bytes());
    queue!(sequences, DisableFocusChange, DisableBracketedPaste)?;
    sequences.extend_from_slice(BELOW_ALL);
    queue!(sequences, LeaveAlternateScreen, cursor::Show)?;
    let written = out.write_all(&sequences).and_then(|()| out.flush());
    disable_raw_mode().and(written)
}

/// Gives the terminal back when the loop ends by any way.
#[derive(Debug)]
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _gone = leave(io::stdout());
    }
}

/// Before any panic message is printed, gives the terminal back and writes a report; then the hook that was there
/// before runs. Called once, by the loop; the report names version, place and thread, and no data.
pub fn install_panic_hook(report: Option<PathBuf>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _gone = leave(io::stdout());
        let written = report.as_ref().filter(|path| write_report(path, panic).is_ok());
        before(panic);
        if let Some(path) = written {
            // Nobody may be there to read it.
            let _gone = writeln!(io::stderr(), "The report of this fault is in {}", escape(&path.to_string_lossy()));
        }
    }));
}

fn write_report(path: &Path, panic: &std::panic::PanicHookInfo<'_>) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let thread = std::thread::current();
    writeln!(file, "flm-tui {} panicked", env!("CARGO_PKG_VERSION"))?;
    writeln!(file, "thread: {}", thread.name().unwrap_or("unnamed"))?;
    writeln!(file, "{panic}")?;
    writeln!(file, "{}\n", std::backtrace::Backtrace::force_capture())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::tui::text::Words;
    use crate::tui::theme::{Depth, ThemeShelf};
    use crate::types::clock::UnixMillis;

    fn state() -> State {
        let theme = ThemeShelf::default().load("dark", Depth::True).expect("loads");
        State::new(Words::new("en", jiff::tz::TimeZone::UTC), theme, (80, 24), UnixMillis(0))
    }

    #[derive(Clone, Default)]
    struct Sink(Rc<RefCell<Vec<Vec<u8>>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_is_one_write_and_an_unchanged_frame_is_none() {
        let sink = Sink::default();
        let mut screen = Screen::new(sink.clone(), (80, 24)).expect("opens");
        let state = state();
        screen.draw(&state).expect("draws");
        assert_eq!(sink.0.borrow().len(), 1, "one write");
        assert!(sink.0.borrow()[0].len() < 8192, "first frame is {} bytes", sink.0.borrow()[0].len());
        screen.draw(&state).expect("draws");
        assert_eq!(sink.0.borrow().len(), 1, "nothing for nothing");
        screen.repaint().expect("repaints");
        screen.draw(&state).expect("draws");
        assert_eq!(sink.0.borrow().len(), 2);
    }

    #[test]
    fn a_text_cursor_that_stands_still_is_not_written_again() {
        let sink = Sink::default();
        let mut screen = Screen::new(sink.clone(), (80, 24)).expect("opens");
        let mut state = state();
        crate::tui::update::update(&mut state, crate::tui::action::Action::Run(crate::tui::action::Command::Palette));
        screen.draw(&state).expect("draws");
        let written = sink.0.borrow().len();
        screen.draw(&state).expect("draws");
        assert_eq!(sink.0.borrow().len(), written);
    }

    #[test]
    fn a_notification_is_one_sequence_that_nothing_in_it_can_leave() {
        let sink = Sink::default();
        let mut screen = Screen::new(sink.clone(), (80, 24)).expect("opens");
        let message = Some("4;3;1 wrong\x1b]52;c;x\x07\u{202e} key".to_owned());
        screen.notify(&Notification { message, bell: Bell::Rings }).expect("writes");
        screen.notify(&Notification { message: None, bell: Bell::Silent }).expect("writes");
        let written = String::from_utf8(sink.0.borrow().concat()).expect("text");
        assert_eq!(written, "\x1b[?2026h\x1b]9;431 wrong]52cx key\x1b\\\x07\x1b[?2026l");
    }

    #[test]
    fn a_copy_gets_through_tmux_and_screen() {
        let written = |multiplexer, text: &str| {
            let sink = Sink::default();
            let mut screen = Screen::new(sink.clone(), (80, 24)).expect("opens").behind(multiplexer);
            screen.copy(text).expect("writes");
            let text = String::from_utf8(sink.0.borrow().concat()).expect("text");
            text.trim_start_matches("\x1b[?2026h").trim_end_matches("\x1b[?2026l").to_owned()
        };
        let plain = "\x1b]52;c;aGVsbG8=\x1b\\";
        assert_eq!(written(Multiplexer::None, "hello"), plain);
        let wrapped = "\x1bPtmux;\x1b\x1b]52;c;aGVsbG8=\x1b\x1b\\\x1b\\";
        assert_eq!(written(Multiplexer::Tmux, "hello"), format!("{plain}{wrapped}"));
        assert_eq!(written(Multiplexer::Screen, "hello"), "\x1bP\x1b]52;c;aGVsbG8=\x07\x1b\\");
        let long = written(Multiplexer::Screen, &"x".repeat(2_000));
        let pieces: Vec<_> = long.split_terminator("\x1b\\").collect();
        assert!(pieces.len() > 4 && pieces.iter().all(|piece| piece.starts_with("\x1bP") && piece.len() <= 514));
        let joined: String = pieces.iter().map(|piece| piece.trim_start_matches("\x1bP")).collect();
        assert_eq!(joined.matches('\x07').count(), 1, "one sequence in the end");
    }

    #[test]
    fn keys_of_kitty_are_asked_for_where_they_are_known() {
        let detect = |pairs: &[(&str, &str)]| {
            Keyboard::detect(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(detect(&[("TERM", "xterm-kitty")]), Keyboard::Kitty);
        assert_eq!(detect(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")]), Keyboard::Kitty);
        assert_eq!(detect(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux-0/default,1,0")]), Keyboard::Classic);
        assert_eq!(detect(&[("TERM", "xterm-256color")]), Keyboard::Classic);
        assert_eq!(detect(&[("TERM", "linux")]), Keyboard::Classic);
    }

    #[test]
    fn without_colour_no_colour_is_written() {
        crossterm::style::force_color_output(true);
        let sink = Sink::default();
        let mut screen = Screen::new(sink.clone(), (80, 24)).expect("opens");
        let mut state = state();
        state.theme = ThemeShelf::default().load("dark", Depth::Mono).expect("loads");
        screen.draw(&state).expect("draws");
        let text = String::from_utf8(sink.0.borrow().concat()).expect("text");
        assert!(!text.contains("38;") && !text.contains("48;"), "{text:?}");
    }
}
