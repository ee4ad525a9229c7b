//! What FLM costs: its CPU time per request and per streamed chunk, beside a bare hyper pass-through, nginx and haproxy.
//!
//! `cargo bench --bench proxy` (or scripts/bench.sh) visits nginx and haproxy where they are installed, the baseline in both
//! runtime shapes and FLM in turn, several rounds, and prints medians, ratios and verdicts. Every program is a process of its own:
//! this executable starts itself again as fake engine, baseline and load client, so that `/proc` tells what each of them used. A run
//! counts only if the baseline costs at most 1.3 times what nginx does. Figures: docs/benchmarks.md.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures real time and owns its scratch files; the bans protect the product"
)]

#[path = "../acceptor.rs"]
mod acceptor;
#[path = "../baseline/mod.rs"]
mod baseline;
#[path = "../connector.rs"]
mod connector;
mod engine;
mod load;
#[expect(dead_code, reason = "other benches use the rest")]
#[path = "../measure.rs"]
mod measure;
mod report;
mod targets;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use load::{Plan, Run, Sizes, Spoken};
use report::{Figures, Table};
use targets::Program;

/// Any failure: told to the person who runs the bench.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How a program spreads its connections over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One current-thread runtime per core.
    PerCore,
    /// Tokio's multi-thread runtime.
    WorkStealing,
}

impl Shape {
    /// Its name in arguments and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerCore => "per-core",
            Self::WorkStealing => "work-stealing",
        }
    }

    fn parse(name: &str) -> Result<Self, Fault> {
        [Self::PerCore, Self::WorkStealing]
            .into_iter()
            .find(|shape| shape.name() == name)
            .ok_or_else(|| format!("no shape {name:?}").into())
    }
}

const USAGE: &str = "usage: cargo bench --bench proxy -- [--quick] [--rounds N] [--held STREAMS] [--only time|memory] [--json FILE] \
                     [--targets nginx,haproxy,per-core,work-stealing,flm]";

fn main() -> ExitCode {
    match role(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(fault) => {
            let _nobody_listens = writeln!(std::io::stderr(), "error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn role(arguments: &[String]) -> Result<ExitCode, Fault> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["engine"] => engine::run()?,
        [role @ ("baseline" | "baseline-tls"), shape, workers, address] => {
            let spoken = if *role == "baseline" { Spoken::Clear } else { Spoken::Tls };
            baseline::run(Shape::parse(shape)?, spoken, workers.parse()?, address.parse()?)?;
        }
        ["client", plan] => load::run(serde_json::from_str(plan)?)?,
        options => return compare(&Options::parse(options)?),
    }
    Ok(ExitCode::SUCCESS)
}

struct Options {
    sizes: Sizes,
    rounds: usize,
    targets: Vec<String>,
    figures: Vec<Figure>,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Fault> {
        let mut options = Self {
            sizes: Sizes::FULL,
            rounds: 10,
            targets: Vec::new(),
            figures: [Figure::MEMORY.as_slice(), &Figure::TIME].concat(),
            json: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                // What cargo itself adds.
                "--bench" => {}
                "--quick" => {
                    options.sizes = Sizes::QUICK;
                    options.rounds = 2;
                }
                "--rounds" => options.rounds = words.next().ok_or(USAGE)?.parse()?,
                "--held" => options.sizes.held.0 = words.next().ok_or(USAGE)?.parse()?,
                "--only" => {
                    options.figures = match *words.next().ok_or(USAGE)? {
                        "time" => Figure::TIME.to_vec(),
                        "memory" => Figure::MEMORY.to_vec(),
                        _ => return Err(USAGE.into()),
                    };
                }
                "--json" => options.json = Some(words.next().ok_or(USAGE)?.into()),
                "--targets" => options.targets = words.next().ok_or(USAGE)?.split(',').map(String::from).collect(),
                _ => return Err(format!("unknown argument {word:?}\n{USAGE}").into()),
            }
        }
        if options.targets.is_empty() {
            for peer in ["nginx", "haproxy"] {
                if targets::is_installed(peer) {
                    options.targets.push(peer.to_owned());
                } else {
                    writeln!(
                        std::io::stderr(),
                        "{peer} is not installed: left out (scripts/install-test-components.sh)"
                    )?;
                }
            }
            options.targets.extend(["per-core", "work-stealing", "flm"].map(String::from));
        }
        Ok(options)
    }
}

/// Starts everything, takes every figure of every target in turn, and prints the table.
fn compare(options: &Options) -> Result<ExitCode, Fault> {
    let workers = std::thread::available_parallelism()?.get();
    let engine = Program::engine()?;
    let at = engine.target.address;
    let mut table = Table::default();
    for round in 1..=options.rounds {
        // Fresh processes each round: the figures do not depend on what ran in them before. All of them are up at
        // once and idle but for one, so that one figure is taken of all targets within seconds of each other.
        let mut visits = Vec::new();
        for target in &options.targets {
            visits.push(Visit::new(start(target, Spoken::Clear, workers, at)?));
        }
        for figure in &options.figures {
            for _ in 0..figure.slices() {
                for (target, visit) in options.targets.iter().zip(&mut visits) {
                    let is_peer = matches!(target.as_str(), "nginx" | "haproxy");
                    if matches!(figure, Figure::HeldTls | Figure::FloodTls) && is_peer {
                        continue;
                    }
                    let secured = || start(target, Spoken::Tls, workers, at);
                    let taken = visit.take(*figure, &engine, &options.sizes, secured);
                    taken.map_err(|fault| format!("{target}: {fault}"))?;
                }
            }
        }
        for (target, visit) in options.targets.iter().zip(visits) {
            let figures = visit.figures;
            let _nobody_listens = writeln!(std::io::stderr(), "round {round} {target}: {figures}");
            table.add(target, figures);
        }
    }
    writeln!(std::io::stdout(), "{}", table.render(workers)?)?;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&table.ratios())? + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start(target: &str, spoken: Spoken, workers: usize, engine: SocketAddr) -> Result<Program, Fault> {
    match target {
        "nginx" => Program::nginx(workers, engine),
        "haproxy" => Program::haproxy(workers, engine),
        "flm" => Program::flm(spoken, engine),
        shape => Program::baseline(Shape::parse(shape)?, spoken, workers, engine),
    }
}

/// The kinds of load, in the order in which they are put on every target.
#[derive(Debug, Clone, Copy)]
enum Figure {
    // First, while the process is fresh: memory that an earlier load left behind would serve these streams for free.
    Held,
    HeldTls,
    Settle,
    Single,
    FirstToken,
    Flood,
    FloodTls,
    Paced,
    StreamFlood,
}

impl Figure {
    const MEMORY: [Self; 2] = [Self::Held, Self::HeldTls];
    const TIME: [Self; 7] =
        [Self::Settle, Self::Single, Self::FirstToken, Self::Flood, Self::FloodTls, Self::Paced, Self::StreamFlood];

    /// How often it is taken of all targets in turn, for the median. Where requests follow each other closely, a figure depends for
    /// seconds on which processors the system has put client, proxy and engine: one long visit shows one such placement.
    fn slices(self) -> usize {
        match self {
            Self::Single | Self::FirstToken => 9,
            Self::Flood | Self::FloodTls | Self::StreamFlood => 3,
            Self::Held | Self::HeldTls | Self::Settle | Self::Paced => 1,
        }
    }
}

/// One program in one round.
struct Visit {
    program: Program,
    /// The same with TLS, once it was needed.
    secured: Option<Program>,
    figures: Figures,
    single: Vec<Run>,
    first_tokens: Vec<Run>,
    flood: Vec<Run>,
    flood_tls: Vec<Run>,
    stream_flood: Vec<Run>,
}

impl Visit {
    fn new(program: Program) -> Self {
        Self {
            program,
            secured: None,
            figures: Figures::default(),
            single: Vec::new(),
            first_tokens: Vec::new(),
            flood: Vec::new(),
            flood_tls: Vec::new(),
            stream_flood: Vec::new(),
        }
    }

    /// Takes one figure, and notes how busy other programs kept the machine meanwhile. `secured` starts the same program with TLS.
    fn take(
        &mut self,
        figure: Figure,
        engine: &Program,
        sizes: &Sizes,
        secured: impl FnOnce() -> Result<Program, Fault>,
    ) -> Result<(), Fault> {
        let (busy, begun) = (measure::machine_busy_seconds()?, std::time::Instant::now());
        let own = measure::cpu_of_tree(self.program.pid())? + measure::cpu_of_tree(engine.pid())?;
        let (program, figures) = (&self.program, &mut self.figures);
        let (pid, target) = (program.pid(), &program.target);
        let note = |runs: &mut Vec<Run>, pid: u32, plan: &Plan| {
            let run = load::measured(pid, plan)?;
            let own_cpu = run.outcome.own_cpu;
            runs.push(run);
            Ok::<_, Fault>(own_cpu)
        };
        let client_cpu = match figure {
            // Connections, caches and the allocator settle before anything is counted.
            Figure::Settle => load::drive_client(&Plan { requests: sizes.flood / 10, ..sizes.flood(target) })?.own_cpu,
            Figure::Single => {
                let own_cpu = note(&mut self.single, pid, &sizes.single(target))?;
                figures.request_us_single = median(&self.single, Run::cpu_us_per_request);
                figures.p50_us = median(&self.single, |run| run.outcome.p50_us);
                figures.p99_us = median(&self.single, |run| run.outcome.p99_us);
                own_cpu
            }
            Figure::FirstToken => {
                let own_cpu = note(&mut self.first_tokens, pid, &sizes.first_tokens(target))?;
                figures.first_token_us = median(&self.first_tokens, |run| run.outcome.first_token_us);
                own_cpu
            }
            Figure::Flood => {
                let own_cpu = note(&mut self.flood, pid, &sizes.flood(target))?;
                figures.request_us = median(&self.flood, Run::cpu_us_per_request);
                figures.requests_per_second =
                    median(&self.flood, |run| per_second(run.outcome.completed, run.outcome.seconds));
                own_cpu
            }
            Figure::FloodTls => {
                if self.secured.is_none() {
                    let program = secured()?;
                    load::drive_client(&Plan { requests: sizes.flood / 10, ..sizes.flood(&program.target) })?;
                    self.secured = Some(program);
                }
                if let Some(program) = &self.secured {
                    note(&mut self.flood_tls, program.pid(), &sizes.flood(&program.target))?;
                    figures.request_tls_us = median(&self.flood_tls, Run::cpu_us_per_request);
                }
                return Ok(());
            }
            Figure::Paced => {
                let run = load::measured(pid, &sizes.paced(target))?;
                figures.chunk_us = run.cpu_us_per(run.outcome.events);
                run.outcome.own_cpu
            }
            Figure::StreamFlood => {
                let own_cpu = note(&mut self.stream_flood, pid, &sizes.stream_flood(target))?;
                figures.flood_chunk_us = median(&self.stream_flood, |run| run.cpu_us_per(run.outcome.events));
                figures.chunks_per_second =
                    median(&self.stream_flood, |run| per_second(run.outcome.events, run.outcome.seconds));
                own_cpu
            }
            Figure::Held => {
                figures.held_kib = held(program, sizes)?;
                return Ok(());
            }
            Figure::HeldTls => {
                figures.held_tls_kib = held(&secured()?, sizes)?;
                return Ok(());
            }
        };
        let own = measure::cpu_of_tree(pid)? + measure::cpu_of_tree(engine.pid())? - own + client_cpu;
        let others = (measure::machine_busy_seconds()? - busy - own).max(0.0) / begun.elapsed().as_secs_f64();
        self.figures.others_cores = self.figures.others_cores.max(others);
        Ok(())
    }
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    measure::median(&runs.iter().map(of).collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Memory per stream that is held open, in KiB.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn held(program: &Program, sizes: &Sizes) -> Result<f64, Fault> {
    let before = measure::resident_of_tree(program.pid())?;
    let plan = sizes.held(&program.target);
    let mut client = load::spawn_client(&plan)?;
    let mut most = before;
    // The streams last some seconds; the largest reading is the one with all of them open.
    while client.try_wait()?.is_none() {
        most = most.max(measure::resident_of_tree(program.pid())?);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let outcome = load::outcome_of(client)?;
    if outcome.failed > 0 {
        return Err(format!("{} of {} held streams failed: {:?}", outcome.failed, plan.requests, outcome.reason).into());
    }
    Ok((most - before) / plan.connections as f64)
}
