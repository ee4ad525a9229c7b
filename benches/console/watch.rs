//! A program on a terminal while it is watched: bytes, frames, writes, processor, memory, how old what it shows is, and how soon
//! it answers a key.

use std::time::{Duration, Instant};

use crate::terminal::Terminal;
use crate::{Fault, measure};

/// What ends a frame (DEC private mode 2026).
pub(crate) const FRAME_END: &[u8] = b"\x1b[?2026l";

/// Time between key presses: quicker than anybody types, and below the 30 frames a second that are drawn at most.
const BETWEEN_KEYS: Duration = Duration::from_millis(60);

/// What was seen.
pub(crate) struct Watched {
    pub(crate) bytes_per_second: f64,
    pub(crate) frames_per_second: f64,
    pub(crate) writes_per_frame: f64,
    pub(crate) cpu_percent: f64,
    pub(crate) resident_mib: f64,
    /// Memory that no other process shares.
    pub(crate) private_mib: f64,
    /// Longest time without a frame.
    pub(crate) longest_gap_ms: f64,
    /// How late the clock of the newest row showed the next second, at the latest; where rows show a time.
    pub(crate) oldest_ms: Option<f64>,
    pub(crate) keys_p50_ms: Option<f64>,
    pub(crate) keys_p99_ms: Option<f64>,
}

/// Watches a program once it has settled.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
pub(crate) fn watch(terminal: &Terminal, span: Duration, keys: Option<usize>) -> Result<Watched, Fault> {
    // News of the start fade, and a load comes to its pace.
    std::thread::sleep(Duration::from_secs(8));
    let pid = terminal.pid();
    let start = terminal.screen().received.len();
    let (cpu, writes) = (measure::cpu_seconds(pid)?, written(pid)?);
    let began = Instant::now();
    let (mut seen, mut last_frame, mut longest, mut oldest) = (start, began, Duration::ZERO, None::<f64>);
    let mut shown = newest_second(&terminal.screen().text());
    while began.elapsed() < span {
        std::thread::sleep(Duration::from_millis(2));
        let screen = terminal.screen();
        if screen.received.len() == seen {
            continue;
        }
        let frames = frames(&screen.received[seen..]);
        seen = screen.received.len();
        if frames > 0 {
            longest = longest.max(last_frame.elapsed());
            last_frame = Instant::now();
        }
        let newest = newest_second(&screen.text());
        drop(screen);
        if let (Some(second), true) = (newest, newest != shown) {
            let since_midnight = jiff::Timestamp::now().as_millisecond().rem_euclid(86_400_000) as f64;
            let late = since_midnight - second as f64 * 1_000.0;
            if shown.is_some() && late >= 0.0 {
                oldest = Some(oldest.map_or(late, |known| known.max(late)));
            }
            shown = newest;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, writes) = (measure::cpu_seconds(pid)? - cpu, written(pid)? - writes);
    let screen = terminal.screen();
    let bytes = screen.received.len() - start;
    let frames = frames(&screen.received[start..]);
    drop(screen);
    let (keys_p50_ms, keys_p99_ms) = match keys {
        Some(count) => {
            let times = answers(terminal, count)?;
            let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
            (at(50), at(99))
        }
        None => (None, None),
    };
    Ok(Watched {
        bytes_per_second: bytes as f64 / seconds,
        frames_per_second: frames as f64 / seconds,
        writes_per_frame: if frames == 0 { 0.0 } else { writes / frames as f64 },
        cpu_percent: cpu / seconds * 100.0,
        resident_mib: memory(pid, &["VmRSS:"])?,
        private_mib: memory(pid, &["RssAnon:"])?,
        longest_gap_ms: longest.as_secs_f64() * 1e3,
        oldest_ms: oldest,
        keys_p50_ms,
        keys_p99_ms,
    })
}

/// Goes to the security events and down through them, key by key; milliseconds from the press to the frame that shows it,
/// sorted.
fn answers(terminal: &Terminal, count: usize) -> Result<Vec<f64>, Fault> {
    terminal.send("4");
    std::thread::sleep(Duration::from_secs(2));
    terminal.send("jj");
    std::thread::sleep(Duration::from_secs(1));
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let before = marked(&terminal.screen().text());
        let pressed = Instant::now();
        terminal.send("j");
        terminal.wait_until("the next row is selected", crate::PATIENCE, |screen| {
            let now = marked(&screen.text());
            now.is_some() && now != before
        });
        times.push(pressed.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(BETWEEN_KEYS);
    }
    times.sort_by(f64::total_cmp);
    if times.is_empty() { Err("no key was pressed".into()) } else { Ok(times) }
}

/// The selected row and where it is on the screen: rows may read the same, and at the end of the screen they move instead.
fn marked(text: &str) -> Option<(usize, String)> {
    text.lines().enumerate().find(|(_, line)| line.contains('▌')).map(|(at, line)| (at, line.to_owned()))
}

/// The second of the day that the newest request's time shows: the first row whose first column is a time.
fn newest_second(text: &str) -> Option<i64> {
    text.lines().find_map(|line| {
        let word = line.trim_start_matches(['│', '▌', ' ']).get(..8)?;
        let mut parts = word.split(':').map(|part| part.parse::<i64>().ok().filter(|_| part.len() == 2));
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        Some(hour * 3_600 + minute * 60 + second)
    })
}

fn frames(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, FRAME_END).count()
}

/// Calls that wrote something (`syscw` of proc(5)), those to the daemon's socket and to wake a thread included.
fn written(pid: u32) -> Result<f64, Fault> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("syscw:")).ok_or("no syscw")?;
    Ok(line.trim().parse()?)
}

/// Memory in MiB, from `/proc/PID/status`.
pub(crate) fn memory(pid: u32, names: &[&str]) -> Result<f64, Fault> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut kibibytes = 0.0;
    for name in names {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("not in /proc/PID/status")?;
        kibibytes += line.split_whitespace().next().ok_or("an empty line")?.parse::<f64>()?;
    }
    Ok(kibibytes / 1024.0)
}
