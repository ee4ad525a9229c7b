//! What the console costs the person who watches, and how quick it is: the issue's figures for speed and size.
//!
//! `cargo bench --bench console [-- --quick]` starts the real programs on a home with a million security events and a million
//! requests, the console on a pseudo-terminal of 80 by 24 cells, and prints one table with the limits; it fails when one is
//! missed. `btop` is measured beside it where it is installed (scripts/install-test-components.sh). `--quick` fills the home
//! with less and watches shorter: it shows that everything works, and its figures say little.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench measures real time, and a failed measurement ends it"
)]

#[path = "../proxy/engine.rs"]
mod engine;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/support/home.rs"]
mod home;
mod hour;
#[expect(dead_code, reason = "the proxy's bench uses the rest of it")]
#[path = "../measure.rs"]
mod measure;
#[path = "../own_engine.rs"]
mod own_engine;
mod seed;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/support/terminal.rs"]
mod terminal;
mod traffic;
mod watch;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use home::{Home, PATIENCE};
use own_engine::Engine;
use portable_pty::CommandBuilder;
use terminal::Terminal;
use traffic::Load;
use watch::{Watched, watch};

/// Why a measurement could not be made.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Columns and rows of every terminal here.
const SIZE: (u16, u16) = (80, 24);

/// How much is measured.
#[derive(Clone, Copy)]
struct Amount {
    /// Starts of the console; the first one warms the cache and is not counted.
    starts: usize,
    /// How long each state is watched.
    span: Duration,
    /// Security events and requests in the home.
    rows: u64,
    /// Key presses that are timed.
    keys: usize,
    /// Seconds of simulated time under 1,000 events each.
    hour: u64,
}

const FULL: Amount = Amount { starts: 21, span: Duration::from_secs(20), rows: 1_000_000, keys: 400, hour: hour::HOUR };
const QUICK: Amount = Amount { starts: 5, span: Duration::from_secs(6), rows: 20_000, keys: 60, hour: 60 };

/// Requests a second of a busy proxy, and of one in ordinary use.
const BUSY: u32 = 5_000;
const ORDINARY: u32 = 50;

/// A row of the table: what was measured, the figure, its unit and its limit.
struct Figure {
    what: &'static str,
    is: f64,
    unit: &'static str,
    limit: Option<f64>,
}

impl Figure {
    fn is_met(&self) -> bool {
        self.limit.is_none_or(|limit| self.is <= limit)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["engine"] => engine::run().map(|()| true),
        ["load", target, key, rate] => {
            let parsed = target.parse::<SocketAddr>().ok().zip(rate.parse().ok());
            let (target, rate) = parsed.expect("an address and a rate");
            traffic::run(target, key, rate).map(|()| true)
        }
        ["hour", seconds] => hour::run(seconds.parse().expect("seconds")).map(|()| true),
        _ => measure_all(if words.contains(&"--quick") { QUICK } else { FULL }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => panic!("{fault}"),
    }
}

/// No rates that would stand in the way of the load.
const POLICY: &str = r#"{"address_rate": {"per_minute": 1000000, "burst": 1000000},
"address_in_flight": {"most": 1000000}, "resources": {"mode": "off"}}"#;

#[expect(clippy::cast_precision_loss, reason = "bytes of a bench are far below 2^52")]
fn measure_all(amount: Amount) -> Result<bool, Fault> {
    let home = Home::in_use();
    let told = Instant::now();
    let asked = seed::fill(home.path(), amount.rows, amount.rows)?;
    let mut out = std::io::stdout();
    writeln!(out, "{} events and requests written in {:.0} s", amount.rows, told.elapsed().as_secs_f64())?;
    let engine = Engine::start()?;
    home.start_proxy();
    let policy = home.path().join("policy.json");
    std::fs::write(&policy, POLICY)?;
    home.answer(&["security", "policy", "set", "--json", &policy.to_string_lossy()]);
    home.add_engine("openai", "bench", engine.1);
    let key = home.create_key("bench");
    home.answer(&["api-keys", "edit", &key[4..12], "--rpm", "0"]);
    let target: SocketAddr = ([127, 0, 0, 1], home.proxy_port().ok_or("no listener")?).into();

    let mut figures: Vec<Figure> =
        asked.into_iter().map(|(what, is)| Figure { what, is, unit: "ms a page", limit: None }).collect();
    let (times, bytes) = starts(&home, amount.starts);
    let middle = times[times.len() / 2].as_secs_f64() * 1e3;
    figures.push(Figure { what: "first frame after exec, median", is: middle, unit: "ms", limit: Some(100.0) });
    let last = times[times.len() - 1].as_secs_f64() * 1e3;
    figures.push(Figure { what: "first frame after exec, slowest", is: last, unit: "ms", limit: None });
    figures.push(Figure { what: "bytes of the first frame", is: bytes as f64, unit: "B", limit: Some(8_192.0) });

    // Nothing on the Proxy tab moves by itself; the checks of engines are on another one.
    let idle = seen(&home, "3", amount.span, None)?;
    figures.push(Figure {
        what: "idle, bytes to the terminal",
        is: idle.bytes_per_second,
        unit: "B/s",
        limit: Some(0.0),
    });
    figures.push(Figure { what: "idle, processor", is: idle.cpu_percent, unit: "% of a core", limit: Some(0.1) });
    figures.push(Figure { what: "idle, resident", is: idle.resident_mib, unit: "MiB", limit: None });

    let load = Load::start(target, &key, ORDINARY)?;
    let ordinary = seen(&home, "1", amount.span, None)?;
    load.end()?;
    figures.push(Figure {
        what: "Engines, 50 requests/s, bytes",
        is: ordinary.bytes_per_second,
        unit: "B/s",
        limit: Some(1_000.0),
    });
    figures.push(Figure {
        what: "Engines, 50 requests/s, longest time between frames",
        // Rates change once a second, and may stay as they are.
        is: ordinary.longest_gap_ms,
        unit: "ms",
        limit: None,
    });
    figures.push(Figure {
        what: "Engines, 50 requests/s, processor",
        is: ordinary.cpu_percent,
        unit: "% of a core",
        limit: None,
    });

    let load = Load::start(target, &key, BUSY)?;
    let busy = seen(&home, "3", amount.span, Some(amount.keys))?;
    let reached = load.end()?;
    figures.push(Figure { what: "requests/s that the load came to", is: reached, unit: "", limit: None });
    figures.push(Figure {
        what: "Proxy following 5,000 requests/s, bytes",
        is: busy.bytes_per_second,
        unit: "B/s",
        limit: Some(3_000.0),
    });
    figures.push(Figure {
        what: "Proxy following, age of the newest row when it shows",
        is: busy.oldest_ms.unwrap_or(f64::INFINITY),
        unit: "ms",
        limit: Some(1_000.0),
    });
    // Wakers and what is asked of the daemon are among them; that a frame is one write is a test of `tui/terminal.rs`.
    figures.push(Figure {
        what: "Proxy following, writing calls per frame",
        is: busy.writes_per_frame,
        unit: "",
        limit: None,
    });
    figures.push(Figure { what: "Proxy following, frames", is: busy.frames_per_second, unit: "/s", limit: Some(30.0) });
    figures.push(Figure { what: "Proxy following, processor", is: busy.cpu_percent, unit: "% of a core", limit: None });
    figures.push(Figure {
        what: "key to painted frame under that load, p99",
        is: busy.keys_p99_ms.unwrap_or(f64::INFINITY),
        unit: "ms",
        limit: Some(16.0),
    });
    figures.push(Figure {
        what: "key to painted frame under that load, median",
        is: busy.keys_p50_ms.unwrap_or(f64::INFINITY),
        unit: "ms",
        limit: None,
    });
    figures.push(Figure { what: "resident after all that", is: busy.resident_mib, unit: "MiB", limit: None });
    let (before, after) = hour::measured(amount.hour)?;
    figures.push(Figure {
        what: "state of the console before an hour of 1,000 events/s",
        is: before,
        unit: "MiB",
        limit: None,
    });
    figures.push(Figure { what: "an hour of 1,000 events/s adds", is: after - before, unit: "MiB", limit: Some(12.0) });
    // The pages of the program itself are shared with `flm` and the page cache; what the console adds is its own memory.
    figures.push(Figure {
        what: "private memory of the attached console",
        is: busy.private_mib,
        unit: "MiB",
        limit: Some(12.0),
    });
    for figure in reference(amount.span)? {
        figures.push(figure);
    }
    print(&mut out, &figures)
}

fn print(out: &mut impl std::io::Write, figures: &[Figure]) -> Result<bool, Fault> {
    writeln!(out, "| console, {}x{}, attached to a daemon | figure | limit | |", SIZE.0, SIZE.1)?;
    writeln!(out, "|---|---:|---:|---|")?;
    for figure in figures {
        let limit = figure.limit.map(|limit| format!("{limit:.1}")).unwrap_or_default();
        let verdict = match figure.limit {
            None => "",
            Some(_) if figure.is_met() => "met",
            Some(_) => "MISSED",
        };
        writeln!(out, "| {} | {:.2} {} | {limit} | {verdict} |", figure.what, figure.is, figure.unit)?;
    }
    Ok(figures.iter().all(Figure::is_met))
}

/// Starts the console again and again: from exec to its first frame, sorted, and the largest first frame in bytes.
fn starts(home: &Home, count: usize) -> (Vec<Duration>, usize) {
    let mut times = Vec::with_capacity(count);
    let mut largest = 0;
    for number in 0..count {
        let began = Instant::now();
        let console = home.console(&[], SIZE.0, SIZE.1);
        console.wait_until("the first frame", PATIENCE, |screen| first_frame(&screen.received).is_some());
        if number > 0 {
            times.push(began.elapsed());
        }
        largest = largest.max(first_frame(&console.screen().received).unwrap_or(usize::MAX));
    }
    times.sort_unstable();
    (times, largest)
}

/// Bytes up to the end of the first frame, everything before it included.
fn first_frame(received: &[u8]) -> Option<usize> {
    memchr::memmem::find(received, watch::FRAME_END).map(|at| at + watch::FRAME_END.len())
}

/// Opens the console on a tab and watches it.
fn seen(home: &Home, tab: &str, span: Duration, keys: Option<usize>) -> Result<Watched, Fault> {
    let console = home.console(&[], SIZE.0, SIZE.1);
    console.wait_for("Blocklist", PATIENCE);
    console.send(tab);
    watch(&console, span, keys)
}

/// The same figures of a program that many people watch machines with.
fn reference(span: Duration) -> Result<Vec<Figure>, Fault> {
    let Some(program) = ["/usr/bin/btop", "/usr/bin/btm"].into_iter().find(|path| std::path::Path::new(path).exists())
    else {
        return Ok(Vec::new());
    };
    let folder = tempfile::tempdir()?;
    let mut command = CommandBuilder::new(program);
    command.env_clear();
    for (name, value) in
        [("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("LANG", "C.UTF-8"), ("PATH", "/usr/bin:/bin")]
    {
        command.env(name, value);
    }
    command.env("HOME", folder.path());
    let terminal = Terminal::start(command, SIZE.0, SIZE.1);
    terminal.wait_until("its first frame", PATIENCE, |screen| screen.received.len() > 1_000);
    let watched = watch(&terminal, span, None)?;
    let figure = |what, is, unit| Figure { what, is, unit, limit: None };
    Ok(vec![
        figure("reference (btop), bytes", watched.bytes_per_second, "B/s"),
        figure("reference (btop), processor", watched.cpu_percent, "% of a core"),
        figure("reference (btop), resident", watched.resident_mib, "MiB"),
    ])
}
