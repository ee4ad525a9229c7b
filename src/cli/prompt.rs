//! Asking a person for a passphrase or a word, on the terminal itself: standard input and output may be files (SPEC §5.12).
//!
//! Must never show what is typed as a passphrase, and always leaves the terminal as it was.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;

/// Longest passphrase, bytes.
const LONGEST: usize = 1024;
/// Control characters as a terminal in this mode hands them over.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const CLEAR_LINE: u8 = 0x15;

/// A terminal that shows nothing of what is typed, for as long as this lives.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn begin(terminal: File) -> Outcome<Self> {
        let before = tcgetattr(&terminal).map_err(|error| no_terminal(&error.into()))?;
        let mut hidden = before.clone();
        // Ctrl-C too comes as a byte, so that the terminal is never left without its echo.
        hidden.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &hidden).map_err(|error| no_terminal(&error.into()))?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _gone = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        let _gone = self.terminal.write_all(b"\n");
    }
}

/// Asks for a passphrase.
///
/// # Errors
/// `CANCELLED` on Ctrl-C; `INVALID_ARGUMENT` without a terminal.
pub(super) fn passphrase(question: &str) -> Outcome<Secret> {
    // Hidden before it asks: a fast hand types as soon as it sees the question.
    let mut hidden = Hidden::begin(open()?)?;
    hidden.terminal.write_all(question.as_bytes()).map_err(|error| no_terminal(&error))?;
    // Reserved at once, so that no reallocation leaves a copy behind.
    let mut typed = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = Zeroizing::new([0]);
    loop {
        if hidden.terminal.read(byte.as_mut_slice()).map_err(|error| no_terminal(&error))? == 0 {
            break;
        }
        match byte[0] {
            b'\n' | b'\r' => break,
            END if typed.is_empty() => return Err(cancelled()),
            END => break,
            INTERRUPT => return Err(cancelled()),
            CLEAR_LINE => typed.clear(),
            back if BACKSPACE.contains(&back) => {
                // A character may have several bytes; all but the first begin with the bits 10.
                while typed.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
            }
            other if typed.len() < LONGEST => typed.push(other),
            _too_long => {}
        }
    }
    let text = std::str::from_utf8(&typed)
        .map_err(|_| Failure::new(ErrorCode::InvalidArgument, "what was typed is no text in UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

/// Asks twice for a new passphrase.
///
/// # Errors
/// As [`passphrase`], and `INVALID_ARGUMENT` when the two differ.
pub(super) fn new_passphrase(question: &str) -> Outcome<Secret> {
    let first = passphrase(question)?;
    let second = passphrase("The same again: ")?;
    if first == second {
        return Ok(first);
    }
    Err(Failure::new(ErrorCode::InvalidArgument, "the two passphrases differ").hint("run the command again"))
}

/// Whether there is a person to ask.
pub(super) fn is_possible() -> bool {
    open().is_ok()
}

/// Asks for yes or no; everything but yes is no.
///
/// # Errors
/// `INVALID_ARGUMENT` without a terminal.
pub(super) fn confirmed(question: &str) -> Outcome<Answer> {
    let mut terminal = open()?;
    terminal.write_all(format!("{question} [y/N] ").as_bytes()).map_err(|error| no_terminal(&error))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST && terminal.read(&mut byte).map_err(|error| no_terminal(&error))? > 0 {
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    let word = String::from_utf8_lossy(&line).trim().to_ascii_lowercase();
    Ok(if matches!(word.as_str(), "y" | "yes") { Answer::Yes } else { Answer::No })
}

/// What a person answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Do it.
    Yes,
    /// Leave it.
    No,
}

fn open() -> Outcome<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|error| no_terminal(&error))
}

fn no_terminal(error: &std::io::Error) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("there is no terminal to ask on: {error}")).hint(
        "run it in a terminal; a service gets the passphrase of its home as the systemd credential flm-db-passphrase",
    )
}

fn cancelled() -> Failure {
    Failure::new(ErrorCode::Cancelled, "cancelled: nothing was typed, and nothing was changed")
}
