//! What guarding costs: the block list with a million entries, the whole chain per accepted request, and memory while a
//! million addresses attack.
//!
//! `cargo bench --bench guard`. Each figure stands beside its limit (SPEC §5.3, §5.7); a missed one ends with failure.
//! Figures: docs/benchmarks.md.

#[expect(dead_code, reason = "other benches use the rest")]
#[path = "measure.rs"]
mod measure;

use std::hint::black_box;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use flm::guard::detectors::{self, head::Head};
use flm::guard::suspects::Finding;
use flm::guard::{Guard, HashOutcome, Standing, key_text};
use flm::types::address::{BlockEntry, BlockSource};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::{KeyLimits, KeyRecord, KeyView};
use flm::types::policy::{RuleName, SecurityPolicy};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use ipnet::IpNet;

type Fault = Box<dyn std::error::Error + Send + Sync>;

const ENTRIES: u32 = 1_000_000;
const LOOK_UPS: u32 = 2_000_000;
const REQUESTS: u32 = 200_000;
const ATTACKERS: u32 = 1_000_000;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            let _nobody_listens = writeln!(std::io::stderr(), "error: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// A figure, its limit and its unit.
struct Figure(&'static str, f64, f64, &'static str);

fn run() -> Result<bool, Fault> {
    let mut figures = Vec::new();
    // Kept, so that what it holds is not given back and taken for room by what is measured next.
    let attacked = attackers(&mut figures)?;
    block_list(&mut figures)?;
    chain(&mut figures)?;
    drop(attacked);
    let mut out = std::io::stdout();
    writeln!(out, "{:<60} {:>10} {:>10}", "", "measured", "limit")?;
    let mut all = true;
    for Figure(name, measured, limit, unit) in figures {
        all &= measured < limit;
        writeln!(out, "{name:<60} {measured:>10.2} {limit:>10.2} {unit}")?;
    }
    Ok(all)
}

fn resident() -> Result<f64, Fault> {
    Ok(measure::resident_of_tree(std::process::id())? / 1024.0)
}

/// CPU time of `count` calls in microseconds each.
fn each(count: u32, mut work: impl FnMut(u32)) -> Result<f64, Fault> {
    measure::microseconds_each(ROUNDS, count, || {
        (0..count).for_each(&mut work);
        Ok(())
    })
}

/// A well spread number (Steele and Vigna's `SplitMix64`), the same in every run.
fn spread(number: u32) -> u64 {
    let mut z = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Half IPv4 of all lengths from /12 on, half IPv6 from /32 on, most of them single addresses and /64s, as attacks leave
/// them.
fn address(number: u32) -> IpAddr {
    let random = spread(number);
    if number.is_multiple_of(2) {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(random >> 32).unwrap_or(0)))
    } else {
        IpAddr::V6(Ipv6Addr::from(0x2000_u128 << 112 | u128::from(random) << 56 | u128::from(random >> 11)))
    }
}

fn entry(number: u32) -> Result<BlockEntry, Fault> {
    let address = address(number);
    let length = match (address, number % 100) {
        (IpAddr::V4(_), shape @ 0..20) => 12 + u8::try_from(shape)?,
        (IpAddr::V4(_), _) => 32,
        (IpAddr::V6(_), shape @ 0..20) => 32 + u8::try_from(shape)? * 4,
        (IpAddr::V6(_), 20..50) => 128,
        (IpAddr::V6(_), _) => 64,
    };
    Ok(BlockEntry {
        network: IpNet::new(address, length)?.trunc(),
        reason: format!("{} wrong keys", number % 30),
        source: BlockSource::FailedAuthentication,
        failures: 5,
        created: UnixMillis(i64::from(number)),
        expires: Some(UnixMillis(2_000_000_000_000)),
    })
}

fn block_list(figures: &mut Vec<Figure>) -> Result<(), Fault> {
    let guard = Guard::new(SecurityPolicy::default(), [7; 32]);
    let before = resident()?;
    let entries = (0..ENTRIES).map(entry).collect::<Result<Vec<_>, _>>()?;
    let clock = Clock::system();
    let began = clock.monotonic();
    guard.load_blocks([entries.into_iter().collect()]);
    figures.push(Figure("block list: loading a million", began.elapsed().as_secs_f64(), 3.0, "s"));
    // What the list was made from is given back before memory is looked at; the allocator may keep some of it.
    figures.push(Figure("block list: memory of a million", resident()? - before, 100.0, "MiB"));
    let now = UnixMillis(1_900_000_000_000);
    let one = each(LOOK_UPS, |number| {
        // Every second one is in the list.
        let asked = address(if number.is_multiple_of(4) { number % ENTRIES } else { number + ENTRIES });
        black_box(guard.address(asked, Standing::Ordinary, now));
    })?;
    figures.push(Figure("block list: a look-up", one, 1.0, "µs"));
    let change = entry(ENTRIES + 1)?;
    let one = each(10_000, |_| guard.put_blocks(std::slice::from_ref(&change)))?;
    figures.push(Figure("block list: a change", one, 1000.0, "µs"));
    Ok(())
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn chain(figures: &mut Vec<Figure>) -> Result<(), Fault> {
    let library = headers(&[
        ("host", "models.example.org"),
        ("user-agent", "OpenAI/Python 1.52.0"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("content-length", "812"),
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "1.52.0"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.12.3"),
        ("x-stainless-async", "false"),
        ("x-stainless-retry-count", "0"),
    ]);
    let browser = headers(&[
        ("host", "models.example.org"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
        ),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "ja,en-US;q=0.9,en;q=0.8"),
        ("content-type", "application/json"),
        ("origin", "https://chat.example.org"),
        ("referer", "https://chat.example.org/c/4d2f-11"),
        ("sec-ch-ua", "\"Chromium\";v=\"129\", \"Not=A?Brand\";v=\"8\""),
        ("sec-ch-ua-platform", "\"Linux\""),
        ("sec-fetch-mode", "cors"),
        ("cookie", "session=4f9c2a71b0; _ga=GA1.2.1234567890.1700000000; theme=dark"),
    ]);
    let guard = Guard::new(SecurityPolicy::default(), [7; 32]);
    guard.exposure().notice();
    let (id, secret) = key_text::write(&mut || 7);
    let view = KeyView::unused(id, "bench", "xxxx", KeyLimits::default(), UnixMillis(0));
    guard.put_key(KeyRecord { view, hash: String::new() });
    let clock = Clock::system();
    guard.settle_key(secret.expose(), id, HashOutcome::Matches, clock.wall());
    let client: IpAddr = "203.0.113.9".parse()?;
    let uri: Uri = "/v1/chat/completions".parse()?;
    for (name, headers) in [("a client library", &library), ("a browser", &browser)] {
        let head = Head { method: &Method::POST, uri: &uri, headers, body_limit: 32 << 20 };
        let found = detectors::look(&guard.policy(), &head);
        if !found.is_empty() {
            return Err(format!("{name} meets a rule: {found:?}").into());
        }
        let rules = each(REQUESTS, |_| {
            black_box(detectors::look(&guard.policy(), &head));
        })?;
        let whole = each(REQUESTS, |_| {
            let now = clock.wall();
            let standing = if guard.trusted(client) { Standing::Trusted } else { Standing::Ordinary };
            black_box(guard.address(client, standing, now));
            let policy = guard.policy();
            black_box(detectors::look(&policy, &head));
            black_box(guard.arrive(&policy, client, clock.monotonic()));
            if let flm::guard::key_table::KeyCheck::Known(key) = guard.check_key(secret.expose(), now) {
                black_box(guard.key_rate(&key, clock.monotonic()));
            }
        })?;
        let names = if name == "a browser" {
            ("rules, a browser's request", "whole chain, a browser's request")
        } else {
            ("rules, a client library's request", "whole chain, a client library's request")
        };
        figures.push(Figure(names.0, rules, 5.0, "µs"));
        figures.push(Figure(names.1, whole, 5.0, "µs"));
    }
    Ok(())
}

/// A million addresses, each with a wrong key, a scanner's name and a burst of one.
fn attackers(figures: &mut Vec<Figure>) -> Result<Guard, Fault> {
    let guard = Guard::new(SecurityPolicy::default(), [7; 32]);
    guard.exposure().notice();
    let clock = Clock::system();
    let policy = guard.policy();
    let attack = |number: u32| {
        let (from, now) = (address(number), UnixMillis(1_900_000_000_000));
        black_box(guard.arrive(&policy, from, clock.monotonic()));
        guard.failed(from, Standing::Ordinary, "flm_wrong", now);
        guard.score(from, Standing::Ordinary, vec![Finding::new(RuleName::ScannerAgent, "sqlmap")], now);
        if number.is_multiple_of(1000) {
            // As the keeper does all the time.
            black_box(guard.take_pending());
        }
    };
    // What is bounded is full by now.
    (0..ATTACKERS / 5).for_each(attack);
    let before = resident()?;
    (ATTACKERS / 5..ATTACKERS / 5 + ATTACKERS).for_each(attack);
    figures.push(Figure("memory that a million more attacking addresses take", resident()? - before, 20.0, "MiB"));
    Ok(guard)
}
