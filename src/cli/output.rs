//! What commands print, and the only place that prints: results to stdout, errors for people to stderr (SPEC §2).

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::types::failure::{ErrorCode, Failure};
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

    /// Prints it and answers the exit code.
    pub(super) fn print(self, format: Format) -> ExitCode {
        let code = ExitCode::from(self.status);
        if self.frame != Frame::Unread {
            self.write(format);
        }
        code
    }

    fn write(self, format: Format) {
        match (format, self.data) {
            _ if self.frame == Frame::Document => line(for_stdout(&self.text).trim_end()),
            // What an export into a file tells is no table: it is told as JSON.
            (Format::Json | Format::Csv, data) if self.frame == Frame::Bare => line(&format!("{data:#}")),
            (Format::Json | Format::Csv, data) => line(&json!({ "version": SHAPE, "data": data }).to_string()),
            (Format::Jsonl, Value::Array(items)) => items.iter().for_each(|item| line(&item.to_string())),
            (Format::Jsonl, data) => line(&data.to_string()),
            (Format::Text, _) if self.text.is_empty() => {}
            (Format::Text, _) => line(&self.text),
        }
        if let (Format::Text, Some(note)) = (format, self.note) {
            error_line(&note);
        }
    }
}

/// Prints one item of a list that goes on.
pub(super) fn item(format: Format, data: &impl Serialize, text: &str) {
    match format {
        Format::Text => line(text),
        Format::Json | Format::Jsonl | Format::Csv => {
            line(&serde_json::to_value(data).unwrap_or(Value::Null).to_string());
        }
    }
}

/// Tells a failure and answers the exit code (SPEC §2).
pub(super) fn fail(format: Format, failure: &Failure) -> ExitCode {
    match format {
        Format::Json | Format::Jsonl | Format::Csv => line(&json!({ "error": failure }).to_string()),
        Format::Text => {
            error_line(&format!("error: {}", escape_lines(&failure.message)));
            if let Some(id) = &failure.request_id {
                error_line(&format!("request: {}", escape(id)));
            }
            if let Some(hint) = &failure.hint {
                error_line(&format!("\nhint: {}", escape_lines(hint)));
            }
        }
    }
    ExitCode::from(failure.code.exit_status())
}

/// Tells wrong usage, in clap's words.
pub(super) fn fail_usage(format: Format, rendered: &str) -> ExitCode {
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            let message = rendered.trim().strip_prefix("error: ").unwrap_or(rendered.trim()).to_owned();
            let failure = Failure::new(ErrorCode::InvalidArgument, message).hint("add --help to see what it takes");
            fail(format, &failure)
        }
        Format::Text => {
            error_line(rendered.trim_end());
            ExitCode::from(ErrorCode::InvalidArgument.exit_status())
        }
    }
}

/// Prints help or version.
pub(super) fn help(rendered: &str) {
    line(rendered.trim_end());
}

/// Prints the completions of a shell.
pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command, name: &str) {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    line(String::from_utf8_lossy(&script).trim_end());
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
            line("");
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
            line(&json!({ "progress": data }).to_string());
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

fn line(text: &str) {
    write(&mut io::stdout().lock(), text);
}

fn error_line(text: &str) {
    write(&mut io::stderr().lock(), text);
}

/// A reader that has gone, such as `head`, is no fault of the command.
fn write(stream: &mut impl Write, text: &str) {
    let _reader_gone = writeln!(stream, "{text}").and_then(|()| stream.flush());
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
