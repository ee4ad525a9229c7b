//! What the console costs the person who watches: time to the first frame, and bytes and CPU while nothing happens.
//!
//! `cargo bench --bench console` starts the real `flm-tui` on a pseudo-terminal, on a home whose daemon runs, and prints
//! one table. Limits: first frame within 150 ms of exec on a warm cache; idle 0 bytes and at most 0.2 % of a core.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench measures real time, and a failed measurement ends it"
)]

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/home.rs"]
mod home;
#[expect(dead_code, reason = "the proxy's bench uses the rest of it")]
mod measure;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/terminal.rs"]
mod terminal;

use std::io::Write as _;
use std::time::{Duration, Instant};

use home::{Home, PATIENCE};
use terminal::Terminal;

/// Starts of the console; the first one warms the cache and is not counted.
const STARTS: usize = 21;
/// How long the idle console is watched.
const IDLE: Duration = Duration::from_secs(20);

/// Starts the console and answers when it has drawn its first frame, and how long that took from exec.
fn open(home: &Home) -> (Terminal, Duration) {
    let began = Instant::now();
    let console = home.console(&[], 120, 36);
    console.wait_until("the first frame", PATIENCE, |screen| screen.text().contains("Blocklist"));
    (console, began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "bytes and seconds of a bench are far below 2^52")]
fn main() {
    let home = Home::new();
    home.start_proxy();
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| open(&home).1).skip(1).collect();
    starts.sort_unstable();
    let milliseconds = |index: usize| starts[index].as_secs_f64() * 1e3;

    let (console, _first) = open(&home);
    console.wait_until_quiet(Duration::from_secs(3), PATIENCE);
    let (bytes, cpu) = (console.screen().received.len(), measure::cpu_seconds(console.pid()).expect("reads /proc"));
    std::thread::sleep(IDLE);
    let bytes = console.screen().received.len() - bytes;
    let cpu = measure::cpu_seconds(console.pid()).expect("reads /proc") - cpu;

    let table = format!(
        "| console, 120x36, attached to a daemon | |\n|---|---:|\n\
         | first frame after exec, ms, median of {} (least–most) | {:.0} ({:.0}–{:.0}) |\n\
         | idle, bytes/s to the terminal | {:.1} |\n\
         | idle, % of a core | {:.2} |",
        starts.len(),
        milliseconds(starts.len() / 2),
        milliseconds(0),
        milliseconds(starts.len() - 1),
        bytes as f64 / IDLE.as_secs_f64(),
        cpu / IDLE.as_secs_f64() * 100.0,
    );
    writeln!(std::io::stdout(), "{table}").expect("prints");
}
