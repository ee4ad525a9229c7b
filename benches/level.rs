//! That what FLM costs stays level as its lists grow, how soon the daemon listens, what an idle one holds, and that ten million requests
//! leave nothing behind (issue 8).
//!
//! `cargo bench --bench level [-- --quick] [--only lists|start|flat]` starts real daemons side by side, one of them with nothing, one with
//! nothing again (what differs between these two is the machine), and others with many keys, blocks and rows of the audit log; each
//! answers the same requests in turn. Then the time from exec to a listener with 10,000 keys and 100,000 blocks in the encrypted
//! database, and the resident memory of a daemon with empty lists 10 s after its last Argon2 run. Then ten million requests to one daemon,
//! some four minutes: its memory and its databases after each million, and after a start that trims. Fails when a limit is missed,
//! unless `--quick`, whose figures say little. Writes some 3 GB to the temporary folder. Figures: docs/benchmarks.md.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench measures real time, and a failed measurement ends it"
)]

mod connector;
#[path = "proxy/engine.rs"]
mod engine;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/home.rs"]
mod home;
#[expect(dead_code, reason = "the proxy's bench uses the rest of it")]
#[path = "proxy/load.rs"]
mod load;
#[expect(dead_code, reason = "other benches use the rest")]
mod measure;
mod own_engine;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/terminal.rs"]
mod terminal;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use flm::audit::AuditLog;
use flm::guard::key_hash;
use flm::storage::SecurityStore;
use flm::telemetry::live::Hub;
use flm::telemetry::tasks::Tasks;
use flm::types::address::{BlockEntry, BlockSource};
use flm::types::audit::{AuditEvent, AuditKind, Severity};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::ids::KeyId;
use flm::types::key::{KeyLimits, KeyRecord, KeyView};
use home::{Home, PATIENCE, wait_until};
use load::{Sizes, Spoken, Target};
use own_engine::Engine;

/// Any failure: told to the person who runs the bench.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What a request may cost of one with empty lists.
const LEVEL: f64 = 1.05;
/// From exec to a listener, in ms.
const START: f64 = 50.0;
/// Resident memory of an idle daemon, in MiB.
const IDLE: f64 = 16.0;
/// How long after the last Argon2 run it is weighed, and after a start that trims.
const REST: Duration = Duration::from_secs(10);
/// Steps of the long run.
const STEPS: u32 = 10;
/// What a daemon's own memory may grow by from the first step to the last, in MiB.
const FLAT: f64 = 4.0;
/// What its databases may grow by when there is room of rows that were trimmed, in MiB.
const TRIMMED: f64 = 4.0;
/// Rows that are written at once, and events that wait at most: well below what the audit queue holds, so that none is shed.
const BATCH: u64 = 4_096;

/// What fills a home.
#[derive(Debug, Clone, Copy, Default)]
struct Contents {
    keys: u64,
    blocks: u64,
    events: u64,
}

/// How much is measured.
struct Amount {
    lists: &'static [(&'static str, Contents)],
    /// Fresh processes so often, and rounds with each.
    passes: usize,
    rounds: usize,
    /// Requests of one visit.
    requests: usize,
    start: Contents,
    starts: usize,
    /// Requests of one step of the long run.
    step: usize,
}

const EMPTY: Contents = Contents { keys: 0, blocks: 0, events: 0 };
const FULL: Amount = Amount {
    lists: &[
        ("empty lists, one key", EMPTY),
        ("the same again", EMPTY),
        ("1,000 keys", Contents { keys: 1_000, ..EMPTY }),
        ("100,000 keys", Contents { keys: 100_000, ..EMPTY }),
        ("10,000 blocks", Contents { blocks: 10_000, ..EMPTY }),
        ("1,000,000 blocks", Contents { blocks: 1_000_000, ..EMPTY }),
        ("1,000,000 audit rows", Contents { events: 1_000_000, ..EMPTY }),
        ("10,000,000 audit rows", Contents { events: 10_000_000, ..EMPTY }),
    ],
    passes: 3,
    rounds: 12,
    requests: 5_000,
    start: Contents { keys: 10_000, blocks: 100_000, events: 0 },
    starts: 15,
    step: 1_000_000,
};
const QUICK: Amount = Amount {
    lists: &[
        ("empty lists, one key", EMPTY),
        ("the same again", EMPTY),
        ("1,000 keys, 10,000 blocks, 10,000 audit rows", Contents { keys: 1_000, blocks: 10_000, events: 10_000 }),
    ],
    passes: 1,
    rounds: 2,
    requests: 500,
    start: Contents { keys: 100, blocks: 1_000, events: 0 },
    starts: 3,
    step: 20_000,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["engine"] => engine::run().map(|()| true),
        ["client", plan] => serde_json::from_str(plan).map_err(Fault::from).and_then(load::run).map(|()| true),
        _ => {
            let is_quick = words.contains(&"--quick");
            let amount = if is_quick { QUICK } else { FULL };
            let only = words.iter().position(|word| *word == "--only").map(|at| words.get(at + 1).copied());
            measure_all(&amount, only.flatten()).map(|met| met || is_quick)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => panic!("{fault}"),
    }
}

fn measure_all(amount: &Amount, only: Option<&str>) -> Result<bool, Fault> {
    let wants = |part| only.is_none_or(|only| only == part);
    let mut all = true;
    if wants("lists") {
        all &= lists(amount)?;
    }
    if wants("start") {
        all &= starts(amount)?;
        all &= idle()?;
    }
    if wants("flat") {
        all &= flat(amount)?;
    }
    Ok(all)
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

// ------------------------------------------------------------------------------------------ lists

/// No rates that would stand in the way of the load.
const POLICY: &str = r#"{"address_rate": {"per_minute": 1000000, "burst": 1000000},
"address_in_flight": {"most": 1000000}, "resources": {"mode": "off"}}"#;

/// A home with its lists.
struct Case {
    name: &'static str,
    home: Home,
    key: String,
    /// CPU µs per request, of every round of every pass.
    costs: Vec<f64>,
}

impl Case {
    fn new(name: &'static str, contents: Contents, engine: u16) -> Result<Self, Fault> {
        let home = Home::new();
        home.start_proxy();
        let policy = home.path().join("policy.json");
        std::fs::write(&policy, POLICY)?;
        home.answer(&["security", "policy", "set", "--json", &policy.to_string_lossy()]);
        // Ten million rows are more than the log keeps by default (2 GiB).
        home.answer(&["config", "set", "audit.size", "16GiB"]);
        home.add_engine("openai", "bench", engine);
        let created = home.answer(&["api-keys", "create", "--label", "bench", "--rpm", "0"]);
        let key = created["key"].as_str().ok_or("no key")?.to_owned();
        home.end_owner();
        seed(&home, contents)?;
        Ok(Self { name, home, key, costs: Vec::new() })
    }

    /// Starts its daemon and waits until it answers.
    fn start(&self) -> Result<(u32, Target), Fault> {
        self.home.start_proxy();
        self.home.answer(&["models", "refresh"]);
        let port = self.home.proxy_port().ok_or("no listener")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target { address, spoken: Spoken::Clear, key: self.key.clone() };
        let one = Sizes { single: 1, ..Sizes::QUICK }.single(&target);
        wait_until("an answer", PATIENCE, || load::drive_client(&one).is_ok_and(|outcome| outcome.failed == 0));
        Ok((self.home.owner().ok_or("no daemon")?, target))
    }
}

fn lists(amount: &Amount) -> Result<bool, Fault> {
    let engine = Engine::start()?;
    let mut cases = Vec::new();
    for (name, contents) in amount.lists {
        let began = Instant::now();
        cases.push(Case::new(name, *contents, engine.1)?);
        writeln!(std::io::stderr(), "{name}: made in {:.0} s", began.elapsed().as_secs_f64())?;
    }
    let sizes = Sizes { flood: amount.requests, ..Sizes::FULL };
    for _ in 0..amount.passes {
        let mut running = Vec::new();
        for case in &cases {
            running.push(case.start()?);
        }
        // The first round warms up.
        for round in 0..=amount.rounds {
            for (case, (pid, target)) in cases.iter_mut().zip(&running) {
                let run =
                    load::measured(*pid, &sizes.flood(target)).map_err(|fault| format!("{}: {fault}", case.name))?;
                if round > 0 {
                    case.costs.push(run.cpu_us_per_request());
                }
            }
        }
        for case in &cases {
            case.home.end_owner();
        }
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} passes of {} interleaved rounds of {} requests; CPU µs per request, median (least–most)\n",
        amount.passes, amount.rounds, amount.requests
    )?;
    writeln!(
        out,
        "| | CPU µs/request | of the first, of medians | median of the rounds' own | limit {LEVEL} |\n|---|---:|---:|---:|---|"
    )?;
    let mut all = true;
    let Some((first, rest)) = cases.split_first() else { return Ok(true) };
    writeln!(out, "| {} | {} | | | |", first.name, measure::spread(&first.costs))?;
    for (number, case) in rest.iter().enumerate() {
        let of_medians = measure::median(&case.costs) / measure::median(&first.costs);
        let own: Vec<f64> = case.costs.iter().zip(&first.costs).map(|(cost, base)| cost / base).collect();
        let own = measure::median(&own);
        let told = if number == 0 { "what the machine makes of it" } else { verdict(own <= LEVEL) };
        all &= number == 0 || own <= LEVEL;
        writeln!(out, "| {} | {} | {of_medians:.3} | {own:.3} | {told} |", case.name, measure::spread(&case.costs))?;
    }
    Ok(all)
}

/// Writes lists into a home whose owner has ended.
fn seed(home: &Home, contents: Contents) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let folder = home.path();
        let store = SecurityStore::open(&folder.join("security.db"), &folder.join("keys").join("security.key"))?;
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let now = clock.wall();
        if contents.keys > 0 {
            // Their secrets are nobody's; what is stored of each is as long as it ever is.
            let hash = key_hash::hash("nobody's")?;
            let keys = (0..contents.keys).map(|number| key(number, &hash, now)).collect::<Result<Vec<_>, Fault>>()?;
            store.import_keys(keys).await?;
        }
        for batch in (0..contents.blocks).step_by(BATCH.try_into()?) {
            let numbers = batch..(batch + BATCH).min(contents.blocks);
            store.put_blocks(numbers.map(|number| block(number, now)).collect()).await?;
        }
        if contents.events > 0 {
            let log = AuditLog::start(store.clone(), Hub::new(), &tasks, clock.clone()).await?;
            let sink = log.sink();
            let first = log.head().sequence;
            for number in 0..contents.events {
                while (first + number).saturating_sub(log.head().sequence) >= BATCH {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                sink.record(event(number, now));
            }
            sink.record_acknowledged(event(contents.events, now)).await;
        }
        tasks.shutdown(Duration::from_secs(10)).await;
        store.close().await?;
        Ok(())
    })
}

fn key(number: u64, hash: &str, now: UnixMillis) -> Result<KeyRecord, Fault> {
    let id = KeyId::parse(&format!("{number:08}"))?;
    let view = KeyView::unused(id, format!("key {number}"), "abcd", KeyLimits::default(), now);
    Ok(KeyRecord { view, hash: hash.to_owned() })
}

/// Single addresses of both families, and some networks.
fn block(number: u64, now: UnixMillis) -> BlockEntry {
    let low = u32::try_from(number).unwrap_or(u32::MAX);
    let network = match number % 4 {
        0 => format!("2001:db8:{:x}:{:x}::/64", low >> 16, low & 0xffff),
        1 => format!("{}/24", Ipv4Addr::from_bits(0x2000_0000 + (low << 8))),
        _ => format!("{}/32", Ipv4Addr::from_bits(0x0b00_0000 + low * 3)),
    };
    BlockEntry {
        network: network.parse().expect("a network"),
        reason: "a list".to_owned(),
        source: BlockSource::Import,
        failures: 0,
        created: now,
        expires: None,
    }
}

fn event(number: u64, now: UnixMillis) -> AuditEvent {
    let mut event = AuditEvent::new(now, AuditKind::AddressRefused, Severity::Low, format!("refused, number {number}"));
    let [_, a, b, c] = u32::try_from(number).unwrap_or(0).to_be_bytes();
    event.address = Some(Ipv4Addr::new(198, a, b, c).into());
    event.endpoint = Some("/v1/chat/completions".to_owned());
    event.status = Some(403);
    event
}

// ------------------------------------------------------------------------------------------ start and rest

/// A port that was free a moment ago.
fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A daemon in the foreground, and how long it took until it listened.
fn started(home: &Home, port: u16) -> Result<(Child, Duration), Fault> {
    let mut command = home.flm(&["proxy", "start", "--no-daemon", "--mode", "local-http", "--port", &port.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn()?;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the daemon ended with {status}").into());
        }
        assert!(began.elapsed() < PATIENCE, "nothing listens");
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((child, began.elapsed()))
}

fn starts(amount: &Amount) -> Result<bool, Fault> {
    let mut all = true;
    for (what, contents, limit) in [("with empty lists", EMPTY, None), ("with its lists", amount.start, Some(START))] {
        let (home, port) = (Home::new(), free_port()?);
        let mut took = Vec::new();
        // The first one makes the databases, the second one warms the cache.
        for number in 0..amount.starts + 2 {
            let (mut child, time) = started(&home, port)?;
            home.answer(&["proxy", "stop", "--all"]);
            child.wait()?;
            match number {
                0 => seed(&home, contents)?,
                1 => {}
                _ => took.push(time.as_secs_f64() * 1e3),
            }
        }
        let is_met = limit.is_none_or(|limit| measure::median(&took) <= limit);
        all &= is_met;
        writeln!(
            std::io::stdout(),
            "from exec to listening, {what} ({} keys, {} blocks), ms: {}{}",
            contents.keys,
            contents.blocks,
            measure::spread(&took),
            limit.map(|limit| format!(" (limit {limit}): {}", verdict(is_met))).unwrap_or_default(),
        )?;
    }
    Ok(all)
}

/// What a daemon holds that has answered with one key and then rests.
fn idle() -> Result<bool, Fault> {
    let (home, engine, port) = (Home::new(), Engine::start()?, free_port()?);
    let (mut child, _) = started(&home, port)?;
    home.add_engine("openai", "bench", engine.1);
    let key = home.create_key("bench");
    home.answer(&["models", "refresh"]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let target = Target { address, spoken: Spoken::Clear, key };
    let one = Sizes { single: 1, ..Sizes::QUICK }.single(&target);
    wait_until("an answer", PATIENCE, || load::drive_client(&one).is_ok_and(|outcome| outcome.failed == 0));
    // The key was verified with the first of these.
    std::thread::sleep(REST);
    let [resident, own] =
        ["VmRSS:", "RssAnon:"].map(|field| measure::memory_of(child.id(), field).map(|kibibytes| kibibytes / 1024.0));
    let (resident, own) = (resident?, own?);
    home.answer(&["proxy", "stop", "--all"]);
    child.wait()?;
    let is_met = resident <= IDLE;
    writeln!(
        std::io::stdout(),
        "idle daemon, {} s after the last Argon2 run: {resident:.1} MiB resident (limit {IDLE}), of which {own:.1} MiB are its own: {}",
        REST.as_secs(),
        verdict(is_met)
    )?;
    Ok(is_met)
}

// ------------------------------------------------------------------------------------------ ten million requests

fn flat(amount: &Amount) -> Result<bool, Fault> {
    let mut out = std::io::stdout();
    let engine = Engine::start()?;
    let case = Case::new("flat", EMPTY, engine.1)?;
    let plan = Sizes { flood: amount.step, ..Sizes::FULL };
    let (pid, target) = case.start()?;
    writeln!(
        out,
        "| after requests | resident MiB | of which its own | databases MiB | their journals | requests/s |\n|---:|---:|---:|---:|---:|---:|"
    )?;
    let mut row = |what: &str, pid: u32, target: &Target| -> Result<[f64; 2], Fault> {
        let run = load::measured(pid, &plan.flood(target))?;
        let [resident, own] = ["Rss:", "Anonymous:"].map(|field| measure::mapped(pid, field).map(|kib| kib / 1024.0));
        let (resident, own) = (resident?, own?);
        // A journal is as long as the largest transaction since the start, such as a trim, and gone with the end.
        let (disk, journals) = (on_disk(case.home.path(), ".db")?, on_disk(case.home.path(), ".db-wal")?);
        #[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
        let rate = run.outcome.completed as f64 / run.outcome.seconds;
        writeln!(out, "| {what} | {resident:.1} | {own:.1} | {disk:.1} | {journals:.1} | {rate:.0} |")?;
        Ok([own, disk])
    };
    let mut steps = Vec::new();
    for number in 1..=STEPS {
        steps.push(row(&format!("{number} x {}", amount.step), pid, &target)?);
    }
    // Rows beyond what the request log keeps go once an hour, and with each start.
    case.home.end_owner();
    let (pid, target) = case.start()?;
    std::thread::sleep(REST);
    let [_, after] = row("another start, and as many", pid, &target)?;
    let (Some([first, _]), Some([last, full])) = (steps.first(), steps.last()) else { return Ok(true) };
    let (grown, regrown) = (last - first, after - full);
    let (is_flat, is_trimmed) = (grown <= FLAT, regrown <= TRIMMED);
    writeln!(
        std::io::stdout(),
        "own memory, last step beside the first: {grown:+.1} MiB (limit {FLAT}): {}\n\
         databases, a step after rows were trimmed: {regrown:+.1} MiB (limit {TRIMMED}): {}",
        verdict(is_flat),
        verdict(is_trimmed),
    )?;
    Ok(is_flat && is_trimmed)
}

/// What the databases of a home have on disk, in MiB: those of their files whose names end so.
fn on_disk(home: &Path, ending: &str) -> Result<f64, Fault> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(home)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes of a bench are far below 2^52")]
    Ok(bytes as f64 / f64::from(1 << 20))
}
