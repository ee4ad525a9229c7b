//! A terminal without a window: runs a program on a pseudo-terminal and keeps the screen that it draws.
//!
//! Waits are for what the screen shows, with a bound; a wait that fails shows the screen.

use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

/// A program on a terminal; killed on drop.
pub(crate) struct Terminal {
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
    screen: Arc<(Mutex<Screen>, Condvar)>,
}

/// What the terminal knows.
pub(crate) struct Screen {
    parser: vt100::Parser,
    /// What the program wrote so far.
    pub(crate) received: Vec<u8>,
    /// When it last wrote.
    written: Instant,
    /// Nobody holds the other side any more.
    closed: bool,
}

impl Screen {
    /// Everything on it, as text.
    pub(crate) fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Whether the full-screen buffer is shown.
    pub(crate) fn is_full_screen(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// Whether a person sees the cursor.
    pub(crate) fn has_cursor(&self) -> bool {
        !self.parser.screen().hide_cursor()
    }
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub(crate) fn start(command: CommandBuilder, columns: u16, rows: u16) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).expect("opens a pseudo-terminal");
        let child = pair.slave.spawn_command(command).expect("starts the program");
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().expect("reads the terminal");
        let writer = Arc::new(Mutex::new(pair.master.take_writer().expect("writes to the terminal")));
        let parser = vt100::Parser::new(count(rows), count(columns), 0);
        let state = Screen { parser, received: Vec::new(), written: Instant::now(), closed: false };
        let screen = Arc::new((Mutex::new(state), Condvar::new()));
        let (shared, answers) = (Arc::clone(&screen), Arc::clone(&writer));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            // A terminal whose last program ended reads as an error (EIO), not as the end.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                answer_questions(&buffer[..length], &answers);
                let (state, changed) = &*shared;
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.parser.process(&buffer[..length]);
                state.received.extend_from_slice(&buffer[..length]);
                state.written = Instant::now();
                changed.notify_all();
            }
            let (state, changed) = &*shared;
            state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            changed.notify_all();
        });
        Self { master: pair.master, child, writer, screen }
    }

    /// The screen as it is now.
    pub(crate) fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Types.
    pub(crate) fn send(&self, keys: &str) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(keys.as_bytes()).and_then(|()| writer.flush()).expect("types");
    }

    /// Waits until the screen is as wanted, and answers how long it took.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, bound: Duration, wanted: impl Fn(&Screen) -> bool) -> Duration {
        let began = Instant::now();
        let mut screen = self.screen();
        while !wanted(&screen) {
            let left = bound.saturating_sub(began.elapsed());
            assert!(!left.is_zero(), "not within {bound:?}: {what}\nthe screen shows:\n{}", screen.text());
            assert!(!screen.closed, "the program ended before: {what}\nthe screen shows:\n{}", screen.text());
            screen = self.screen.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        began.elapsed()
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, bound: Duration) -> Duration {
        self.wait_until(&format!("shows {text:?}"), bound, |screen| screen.text().contains(text))
    }

    /// Makes the window this large.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.screen().parser.set_size(count(rows), count(columns));
        self.master.resize(size(columns, rows)).expect("resizes");
    }

    /// Waits until the program has written nothing for `span`.
    #[track_caller]
    pub(crate) fn wait_until_quiet(&self, span: Duration, bound: Duration) {
        let began = Instant::now();
        let mut screen = self.screen();
        loop {
            let left = span.saturating_sub(screen.written.elapsed());
            if left.is_zero() {
                return;
            }
            assert!(began.elapsed() < bound, "still writes after {bound:?}; the screen shows:\n{}", screen.text());
            screen = self.screen.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Process id of the program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.process_id().expect("runs")
    }

    /// Waits until the program has ended and everything that it wrote is on the screen.
    #[track_caller]
    pub(crate) fn wait_until_ended(&mut self, bound: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("asks for the status") {
                let mut screen = self.screen();
                while !screen.closed && began.elapsed() < bound {
                    let wait = Duration::from_millis(100);
                    screen = self.screen.1.wait_timeout(screen, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
                return status;
            }
            assert!(began.elapsed() < bound, "still runs after {bound:?}; the screen shows:\n{}", self.screen().text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A terminal answers where its cursor is and what it can; a program may wait for that.
fn answer_questions(written: &[u8], writer: &Mutex<Box<dyn Write + Send>>) {
    const QUESTIONS: [(&[u8], &[u8]); 3] =
        [(b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[c", b"\x1b[?62;4c"), (b"\x1b]11;?", b"\x1b]11;rgb:1010/1010/1010\x1b\\")];
    for (question, answer) in QUESTIONS {
        if memchr::memmem::find(written, question).is_some() {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            // A program that has ended needs no answer.
            drop(writer.write_all(answer).and_then(|()| writer.flush()));
        }
    }
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }
}

fn count(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).expect("a terminal has rows and columns")
}
