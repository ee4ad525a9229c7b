//! What commands print, and the only place that prints: results to stdout, errors for people to stderr (SPEC §2).

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::StyledStr;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use unicode_width::UnicodeWidthStr as _;

use super::style::{self, Tone};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::{escape, is_hostile};

/// Version of the JSON shapes (SPEC §2).
const SHAPE: &str = "1.0";

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON document: {"version":"1.0","data":…}.
    Json,
    /// One JSON value per line, for lists.
    Jsonl,
    /// Comma-separated cells, for exports into a file.
    Csv,
    /// Tables and sentences.
    Text,
}

impl Format {
    /// JSON is for programs, text for people: stdout tells who reads.
    pub(super) fn of(chosen: Option<Self>) -> Self {
        chosen.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Text } else { Self::Json })
    }

    /// The format of a command line that could not be parsed.
    pub(super) fn guessed(words: &[OsString]) -> Self {
        let words: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
        let after = words.iter().position(|&word| word == "--format").and_then(|at| words.get(at + 1)).copied();
        let named = after.or_else(|| words.iter().find_map(|word| word.strip_prefix("--format=")));
        Self::of(named.and_then(|name| Self::from_str(name, true).ok()))
    }
}

/// The result of a command, for both kinds of readers.
#[derive(Debug)]
pub(super) struct Output {
    data: Value,
    text: String,
    /// For people only, to stderr: what to do next.
    note: Option<String>,
    /// Whether the data is printed as it is in every format.
    frame: Frame,
    /// The exit status: of a report that tells of faults, not 0.
    status: u8,
}

/// What stands around the data of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Version and `data`.
    Versioned,
    /// Nothing: the data is a document of its own.
    Bare,
    /// Nothing: the text is what is printed.
    Document,
    /// Nobody reads it.
    Unread,
}

impl Output {
    /// A result. What of it is outside text must be safe in `text` already.
    pub(super) fn new(data: &impl Serialize, text: impl Into<String>) -> Self {
        // Values of `types` always serialise.
        Self {
            data: serde_json::to_value(data).unwrap_or(Value::Null),
            text: text.into(),
            note: None,
            frame: Frame::Versioned,
            status: 0,
        }
    }

    /// A document of its own, such as a schema: printed as it is in every format.
    pub(super) fn bare(data: &impl Serialize, text: impl Into<String>) -> Self {
        Self { frame: Frame::Bare, ..Self::new(data, text) }
    }

    /// A document of its own in a form that is not JSON, or has its own layout: printed as it is in every format.
    pub(super) fn document(text: String) -> Self {
        Self { frame: Frame::Document, ..Self::new(&Value::Null, text) }
    }

    /// Nothing: the reader has gone.
    pub(super) fn nothing() -> Self {
        Self { frame: Frame::Unread, ..Self::new(&Value::Null, "") }
    }

    /// Adds a line for people.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Ends the command with this status, although there is a result.
    pub(super) fn exit(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Prints it and answers the exit code: also that of a result that could not be written.
    pub(super) fn print(self, format: Format) -> ExitCode {
        let code = ExitCode::from(self.status);
        match if self.frame == Frame::Unread { Ok(()) } else { self.write(format) } {
            Ok(()) => code,
            Err(fault) => unwritten(&fault),
        }
    }

    fn write(self, format: Format) -> io::Result<()> {
        match (format, self.data) {
            _ if self.frame == Frame::Document => line(for_stdout(&self.text).trim_end()),
            // What an export into a file tells is no table: it is told as JSON.
            (Format::Json | Format::Csv, data) if self.frame == Frame::Bare => line(&format!("{data:#}")),
            (Format::Json | Format::Csv, data) => line(&json!({ "version": SHAPE, "data": data }).to_string()),
            (Format::Jsonl, Value::Array(items)) => items.iter().try_for_each(|item| line(&item.to_string())),
            (Format::Jsonl, data) => line(&data.to_string()),
            (Format::Text, _) if self.text.is_empty() => Ok(()),
            (Format::Text, _) => line(&self.text),
        }?;
        if let (Format::Text, Some(note)) = (format, self.note) {
            error_line(&note);
        }
        Ok(())
    }
}

/// Prints one item of a list that goes on; breaks when nobody reads it any more.
///
/// # Errors
/// `IO_ERROR` when it cannot be written, such as into a file on a full disk.
pub(super) fn item(format: Format, data: &impl Serialize, text: &str) -> Outcome<ControlFlow<()>> {
    let line = match format {
        Format::Text => Cow::Borrowed(text),
        Format::Json | Format::Jsonl | Format::Csv => {
            Cow::Owned(serde_json::to_value(data).unwrap_or(Value::Null).to_string())
        }
    };
    let mut stream = io::stdout().lock();
    match writeln!(stream, "{line}").and_then(|()| stream.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if is_reader_gone(&error) => Ok(ControlFlow::Break(())),
        Err(error) => Err(unwritable(&error)),
    }
}

/// Ends when nobody reads standard output any more, although there is nothing to tell; never where it is no pipe.
pub(super) async fn reader_gone() {
    // Opened anew, so that it is not the pipe of all who write into it that no longer waits for room (proc(5)).
    match pipe::OpenOptions::new().open_sender("/proc/self/fd/1") {
        Ok(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {}
        _ => std::future::pending().await,
    }
}

/// A reader that has gone, such as `head`, is no fault of the command.
fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::new(ErrorCode::IoError, format!("the result could not be written to standard output: {error}"))
        .hint("make room where it goes, or send it elsewhere; what the command changed stays changed")
}

/// Tells that a result was not written, where it can be read: stdout is what failed.
fn unwritten(error: &io::Error) -> ExitCode {
    fail(Format::Text, &unwritable(error))
}

/// Tells a failure and answers the exit code (SPEC §2).
pub(super) fn fail(format: Format, failure: &Failure) -> ExitCode {
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            if let Err(error) = line(&json!({ "error": failure }).to_string()) {
                error_line(&format!("error: {}", unwritable(&error).message));
            }
        }
        Format::Text => {
            let colour = style::shown_by(&io::stderr());
            let word = |word, tone| style::put_on(word, tone, colour);
            error_line(&format!("{} {}", word("error:", Tone::Bad), escape_lines(&failure.message)));
            if let Some(id) = &failure.request_id {
                error_line(&format!("request: {}", escape(id)));
            }
            if let Some(hint) = &failure.hint {
                error_line(&format!("\n{} {}", word("hint:", Tone::Heading), escape_lines(hint)));
            }
        }
    }
    ExitCode::from(failure.code.exit_status())
}

/// Tells wrong usage, in clap's words.
pub(super) fn fail_usage(format: Format, rendered: &StyledStr) -> ExitCode {
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            let rendered = plain(rendered);
            let message = rendered.trim().strip_prefix("error: ").unwrap_or(rendered.trim()).to_owned();
            let failure = Failure::new(ErrorCode::InvalidArgument, message).hint("add --help to see what it takes");
            fail(format, &failure)
        }
        Format::Text => {
            error_line(styled(rendered, style::shown_by(&io::stderr())).trim_end());
            ExitCode::from(ErrorCode::InvalidArgument.exit_status())
        }
    }
}

/// Prints help or version and answers the exit code.
pub(super) fn help(rendered: &StyledStr) -> ExitCode {
    let text = styled(rendered, style::shown_by(&io::stdout()));
    line(text.trim_end()).map_or_else(|error| unwritten(&error), |()| ExitCode::SUCCESS)
}

/// What clap says, with its own styles where colour shows. It quotes arguments as they are: hostile ones are shown without styles.
fn styled(rendered: &StyledStr, colour: bool) -> String {
    let text = plain(rendered);
    if colour && text == rendered.to_string() { rendered.ansi().to_string() } else { text }
}

/// The same without styles, with what could steer a terminal made visible, and what Rust says of numbers in words of people.
fn plain(rendered: &StyledStr) -> String {
    let text = rendered.to_string().split('\n').map(escape).collect::<Vec<_>>().join("\n");
    text.replace("invalid digit found in string", "write a whole number")
        .replace("invalid float literal", "write a number")
}

/// The completions of a shell.
pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command, name: &str) -> Output {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    Output::document(String::from_utf8_lossy(&script).into_owned())
}

/// A text that comes in pieces: to stdout as it is, made safe where stdout is a terminal; what a model thinks goes to stderr.
/// Each piece as a line of JSON for programs.
#[derive(Debug)]
pub(super) struct TextStream {
    format: Format,
    /// What stdout does not end with a line end after.
    open_line: bool,
}

impl TextStream {
    /// Nothing came yet.
    pub(super) fn new(format: Format) -> Self {
        Self { format, open_line: false }
    }

    /// Writes the next piece; breaks when the reader has gone, such as `head`.
    pub(super) fn piece(&mut self, data: &impl Serialize, text: Piece<'_>) -> ControlFlow<()> {
        let mut stream = io::stdout().lock();
        let written = match (self.format, text) {
            (Format::Json | Format::Jsonl | Format::Csv, _) => writeln!(stream, "{}", json!({ "progress": data })),
            (Format::Text, Piece::Silent) => Ok(()),
            (Format::Text, Piece::Thought(text)) => {
                write_same_line(&for_reader(text, io::stderr().is_terminal()));
                Ok(())
            }
            (Format::Text, Piece::Said(text)) => {
                self.open_line = !text.ends_with('\n');
                write!(stream, "{}", for_reader(text, stream.is_terminal()))
            }
        };
        match written.and_then(|()| stream.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_reader_gone) => ControlFlow::Break(()),
        }
    }

    /// The end of the text: what follows begins a line.
    pub(super) fn end(self) {
        if self.open_line {
            // What comes after it is told or not by itself.
            let _unwritten = line("");
        }
    }
}

/// What a piece is to a person.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    /// Nothing.
    Silent,
    /// Part of the text.
    Said(&'a str),
    /// Part of what led to it.
    Thought(&'a str),
}

/// Outside text as it is for a file or program, and without anything that could steer a terminal.
pub(super) fn for_stdout(text: &str) -> Cow<'_, str> {
    for_reader(text, io::stdout().is_terminal())
}

fn for_reader(text: &str, is_terminal: bool) -> Cow<'_, str> {
    if !is_terminal || !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    // Line ends and tabs belong to a text; a lone carriage return would write over it.
    let keeps = |c: char| matches!(c, '\n' | '\t');
    let mut out = String::with_capacity(text.len() + 16);
    for part in text.split_inclusive(keeps) {
        let (rest, kept) = match part.char_indices().next_back().filter(|(_, last)| keeps(*last)) {
            Some((at, _)) => part.split_at(at),
            None => (part, ""),
        };
        out.push_str(&escape(rest.strip_suffix('\r').unwrap_or(rest)));
        out.push_str(kept);
    }
    Cow::Owned(out)
}

/// Shows how far something is: one line of JSON each time, or one line for people on stderr that is written over where
/// that is a terminal, and only when the stage changes where it is not.
#[derive(Debug)]
pub(super) struct ProgressLine {
    format: Format,
    /// The stage told last.
    stage: String,
    /// Columns of the line on the screen.
    shown: usize,
}

impl ProgressLine {
    /// Nothing is shown yet.
    pub(super) fn new(format: Format) -> Self {
        Self { format, stage: String::new(), shown: 0 }
    }

    /// Shows the next.
    pub(super) fn show(&mut self, data: &impl Serialize, stage: &str, text: &str) {
        if self.format != Format::Text {
            // The result, which comes on the same way, tells when it cannot be written.
            let _unwritten = line(&json!({ "progress": data }).to_string());
            return;
        }
        if io::stderr().is_terminal() {
            let width = text.width();
            // Blanks over what was longer before.
            let rest = " ".repeat(self.shown.saturating_sub(width));
            self.shown = width;
            write_same_line(&format!("\r{text}{rest}"));
        } else if self.stage != stage {
            error_line(text);
        }
        stage.clone_into(&mut self.stage);
    }

    /// Leaves the line.
    pub(super) fn end(self) {
        if self.shown > 0 {
            write_same_line("\n");
        }
    }
}

fn write_same_line(text: &str) {
    let mut stream = io::stderr().lock();
    let _reader_gone = write!(stream, "{text}").and_then(|()| stream.flush());
}

/// A line for people beside the result.
pub(super) fn note(text: &str) {
    error_line(text);
}

/// Messages of other programs may hold several lines, which stay; everything else hostile is made visible.
fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Writes a line to stdout. A reader that has gone is no error.
fn line(text: &str) -> io::Result<()> {
    let mut stream = io::stdout().lock();
    writeln!(stream, "{text}")
        .and_then(|()| stream.flush())
        .or_else(|error| if is_reader_gone(&error) { Ok(()) } else { Err(error) })
}

fn error_line(text: &str) {
    let mut stream = io::stderr().lock();
    // Nobody is left to tell.
    let _unwritten = writeln!(stream, "{text}").and_then(|()| stream.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal_and_its_lines_stay() {
        let text = "one\r\n\ttwo\x1b]52;c;x\x07\u{202e}\rthree\n";
        assert_eq!(for_reader(text, true), "one\n\ttwo\\x1b]52;c;x\\x07\\u{202e}\\rthree\n");
        assert_eq!(for_reader(text, false), text);
        assert!(matches!(for_reader("plain\n\ttext 日本", true), Cow::Owned(text) if text == "plain\n\ttext 日本"));
    }
}
