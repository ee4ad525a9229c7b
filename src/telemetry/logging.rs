//! Log set-up: JSON lines to daily files for an owner, a few plain lines to stderr for a command (SPEC §5.11).
//!
//! Called once per process, by the binaries. Lines are handed to a thread over a bounded channel: a slow disk sheds
//! log lines, which are counted, and never holds up a request.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::types::clock::{Clock, UnixMillis};
use crate::types::text::{is_hostile, redact_keys};

/// SPEC §5.11: daily rotation, 7 kept.
const FILES_KEPT: usize = 7;
/// Lines that may wait for the disk.
const QUEUE: usize = 4096;
const PREFIX: &str = "flm.";
const SUFFIX: &str = ".log";

/// Changes the filter of the one subscriber that a process has.
static FILTER: OnceLock<(reload::Handle<Targets, Registry>, Reader)> = OnceLock::new();

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Files: heads of the audit log are always in them (SPEC §5.9).
    Files,
    /// A person, on stderr.
    Person,
}

/// Target of the lines that hold the audit log's head.
const HEADS: &str = "flm::audit::head";

/// Opens a log file for appending; handed in, because `telemetry` does not know files.
pub type OpenLog = fn(&Path) -> io::Result<std::fs::File>;

/// Where an owner logs.
#[derive(Debug, Clone)]
pub struct LogFiles {
    /// The folder.
    pub folder: PathBuf,
    /// Opens one file in it.
    pub open: OpenLog,
    /// Tells the day.
    pub clock: Clock,
}

/// Writes what is queued and ends the log's thread when dropped.
#[must_use = "dropping it ends the log"]
pub struct LogGuard {
    lines: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Line(Vec<u8>),
    /// The guard is dropped: write what is queued and end, although the subscriber still holds a sender.
    End,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            // An error only says that the thread has ended.
            let _thread_gone = lines.send(Message::End);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // The log itself failed: there is nowhere left to tell it.
        }
    }
}

/// Logs JSON lines to daily files from now on. A process that logs already keeps its log.
///
/// # Errors
/// When the system gives no thread.
pub fn start_files(files: LogFiles) -> io::Result<LogGuard> {
    let (lines, queue) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new().name("flm-log".to_owned()).spawn(move || write_files(&files, &queue))?;
    let (filter, handle) = reload::Layer::new(targets(LevelFilter::INFO, Reader::Files));
    let layer = fmt::layer().json().with_writer(QueueWriter { lines: lines.clone() });
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        // Only the one subscriber that was accepted gets here.
        let _first = FILTER.set((handle, Reader::Files));
    }
    Ok(LogGuard { lines: Some(lines), thread: Some(thread) })
}

/// Logs warnings and errors to stderr from now on: for commands.
pub fn start_stderr() {
    let (filter, handle) = reload::Layer::new(targets(LevelFilter::WARN, Reader::Person));
    let layer = fmt::layer().with_writer(io::stderr).with_target(false).without_time();
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _first = FILTER.set((handle, Reader::Person));
    }
}

/// Changes how much an owner logs: of everything, and of parts (`proxy=debug`). Unknown names change nothing; the
/// settings table allows none.
pub fn set_levels(name: &str, parts: &[String]) {
    let (Some((handle, reader)), Ok(level)) = (FILTER.get(), name.parse::<LevelFilter>()) else { return };
    // A command says only what its person needs, whatever the owner logs.
    if *reader == Reader::Person {
        return;
    }
    if let Err(error) = handle.reload(with_parts(targets(level, *reader), parts)) {
        tracing::error!(%error, "the log level cannot be changed");
    }
}

/// FLM's own lines at the given level; libraries only warn, since their debug lines may quote headers and bodies.
fn targets(level: LevelFilter, reader: Reader) -> Targets {
    let targets = Targets::new().with_target("flm", level).with_default(level.min(LevelFilter::WARN));
    match reader {
        Reader::Files => targets.with_target(HEADS, LevelFilter::INFO),
        Reader::Person => targets,
    }
}

/// Lays levels of parts over the filter. A part is a room, or a path of modules that begins with one: never a library.
fn with_parts(targets: Targets, parts: &[String]) -> Targets {
    let parsed = parts.iter().filter_map(|part| {
        let (name, level) = part.split_once('=')?;
        Some((format!("flm::{}", name.trim()), level.trim().parse::<LevelFilter>().ok()?))
    });
    // The heads of the audit log stay, whatever is said of `audit`.
    parsed.filter(|(name, _)| name != HEADS).fold(targets, |targets, (name, level)| targets.with_target(name, level))
}

/// What is outside text in a line cannot steer whoever shows the file, and what looks like a key has lost its secret. The
/// last resort (SPEC §5.11, §5.13): nothing that logs may hand either over. JSON strings are all that such characters
/// can stand in.
fn made_safe(line: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(line) else { return line.escape_ascii().collect() };
    let body = text.strip_suffix('\n').unwrap_or(text);
    let body = redact_keys(body);
    if !body.chars().any(is_hostile) {
        return [body.as_bytes(), b"\n"].concat();
    }
    let mut out = String::with_capacity(body.len() + 16);
    for c in body.chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.push('\n');
    out.into_bytes()
}

/// Lines that were shed because the disk was slow.
static SHED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
struct QueueWriter {
    lines: SyncSender<Message>,
}

impl fmt::MakeWriter<'_> for QueueWriter {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for QueueWriter {
    /// The formatter hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.try_send(Message::Line(made_safe(line))) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                SHED.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_files(files: &LogFiles, queue: &Receiver<Message>) {
    let mut open: Option<(String, std::fs::File)> = None;
    while let Ok(Message::Line(line)) = queue.recv() {
        let name = file_name(files.clock.wall());
        if open.as_ref().is_none_or(|(current, _)| *current != name) {
            // A file that cannot be opened is tried again with the next line.
            open = (files.open)(&files.folder.join(&name)).ok().map(|file| (name, file));
            remove_old(&files.folder);
        }
        let Some((_, file)) = &mut open else { continue };
        let shed = SHED.swap(0, Ordering::Relaxed);
        let told = if shed == 0 {
            Ok(())
        } else {
            writeln!(file, "{{\"level\":\"WARN\",\"message\":\"{shed} log lines were shed: the disk was slow\"}}")
        };
        if told.and_then(|()| file.write_all(&line)).is_err() {
            open = None;
        }
    }
}

/// `flm.2026-11-23.log`, by local date.
fn file_name(at: UnixMillis) -> String {
    let date = jiff::Timestamp::from_millisecond(at.0)
        .map(|time| time.to_zoned_datetime(jiff::tz::TimeZone::system()).date().to_string())
        .unwrap_or_default();
    format!("{PREFIX}{date}{SUFFIX}")
}

/// The log files of a folder, oldest first; empty when there are none or the folder cannot be read.
#[must_use]
pub fn log_files_in(folder: &Path) -> Vec<PathBuf> {
    log_names(folder).into_iter().map(|name| folder.join(name)).collect()
}

fn log_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_log = |name: &String| {
        name.strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix(SUFFIX))
            .is_some_and(|date| date.parse::<jiff::civil::Date>().is_ok())
    };
    let mut names: Vec<_> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(is_log).collect();
    // Dates sort by name.
    names.sort();
    names
}

fn remove_old(folder: &Path) {
    let names = log_names(folder);
    let surplus = names.len().saturating_sub(FILES_KEPT);
    for name in &names[..surplus] {
        // What cannot be removed today is tried again tomorrow.
        let _stays = std::fs::remove_file(folder.join(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn append(path: &Path) -> io::Result<std::fs::File> {
        std::fs::OpenOptions::new().append(true).create(true).open(path)
    }

    #[test]
    fn a_new_day_is_a_new_file_and_seven_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
        let files = LogFiles { folder: folder.path().to_owned(), open: append, clock: clock.clone() };
        std::fs::create_dir(folder.path().join("kept")).expect("another entry");
        for day in 0..10 {
            let (lines, queue) = sync_channel(QUEUE);
            lines.send(Message::Line(format!("day {day}\n").into_bytes())).expect("queues");
            lines.send(Message::End).expect("queues");
            write_files(&files, &queue);
            clock.advance(Duration::from_secs(86_400));
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("lists")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        assert_eq!(names.len(), FILES_KEPT + 1, "{names:?}");
        let newest = std::fs::read_to_string(folder.path().join(&names[FILES_KEPT - 1])).expect("reads");
        assert_eq!(newest, "day 9\n");
    }

    #[test]
    fn heads_of_the_audit_log_are_written_at_every_level() {
        for level in [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::TRACE] {
            assert!(targets(level, Reader::Files).would_enable(HEADS, &tracing::Level::INFO), "{level}");
        }
        assert!(!targets(LevelFilter::ERROR, Reader::Files).would_enable("flm::audit", &tracing::Level::INFO));
        assert!(!targets(LevelFilter::WARN, Reader::Person).would_enable(HEADS, &tracing::Level::INFO));
    }

    #[test]
    fn parts_have_levels_of_their_own_and_libraries_and_heads_keep_theirs() {
        let parts =
            ["proxy=debug", "net::pool=trace", "audit::head=error", "nonsense", "guard=loud"].map(str::to_owned);
        let filter = with_parts(targets(LevelFilter::WARN, Reader::Files), &parts);
        assert!(filter.would_enable("flm::proxy::relay", &tracing::Level::DEBUG));
        assert!(filter.would_enable("flm::net::pool", &tracing::Level::TRACE));
        assert!(!filter.would_enable("flm::net::egress", &tracing::Level::INFO));
        assert!(!filter.would_enable("flm::guard", &tracing::Level::INFO));
        assert!(filter.would_enable(HEADS, &tracing::Level::INFO));
        assert!(!filter.would_enable("hyper::proto", &tracing::Level::INFO));
    }

    #[test]
    fn a_line_holds_no_control_character_no_bidi_control_and_no_key() {
        let hostile =
            "{\"m\":\"a\u{9b}2J\u{202e}b\u{e0041} flm_Ab12Cd34_0123456789012345678901234567890123456789abcdef\"}\n";
        let safe = String::from_utf8(made_safe(hostile.as_bytes())).expect("text");
        assert_eq!(safe, "{\"m\":\"a\\u009b2J\\u202eb\\udb40\\udc41 flm_Ab12Cd34…\"}\n");
        let value: serde_json::Value = serde_json::from_str(&safe).expect("still JSON");
        assert!(value["m"].as_str().expect("text").contains('\u{202e}'));
        assert_eq!(made_safe(b"{\"m\":\"plain\"}\n"), b"{\"m\":\"plain\"}\n");
    }

    #[test]
    fn libraries_never_log_below_warnings() {
        let filter = targets(LevelFilter::TRACE, Reader::Person);
        assert!(filter.would_enable("flm::proxy", &tracing::Level::TRACE));
        assert!(!filter.would_enable("hyper::proto", &tracing::Level::INFO));
        assert!(filter.would_enable("hyper::proto", &tracing::Level::WARN));
        assert!(!targets(LevelFilter::ERROR, Reader::Files).would_enable("hyper::proto", &tracing::Level::WARN));
    }
}
