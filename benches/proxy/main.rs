//! What FLM costs: its CPU time per request and per streamed chunk, beside a bare hyper pass-through and nginx.
//!
//! `cargo bench --bench proxy` (or scripts/bench.sh) visits nginx, the baseline in both runtime shapes and FLM in
//! turn, several rounds, and prints medians and ratios. Every program is a process of its own: this executable starts
//! itself again as fake engine, baseline and load client, so that `/proc` tells what each of them used. A run counts
//! only if the baseline costs at most 1.3 times what nginx does. Figures: docs/benchmarks.md.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures real time and owns its scratch files; the bans protect the product"
)]

#[path = "../baseline/mod.rs"]
mod baseline;
mod engine;
mod load;
#[expect(dead_code, reason = "other benches use the rest")]
#[path = "../measure.rs"]
mod measure;
mod report;
mod targets;

use std::io::{BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use load::{Outcome, Plan, Sizes};
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

const USAGE: &str = "usage: cargo bench --bench proxy -- [--quick] [--rounds N] [--held STREAMS] [--targets nginx,per-core,work-stealing,flm]";

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
        ["baseline", shape, workers, address] => {
            baseline::run(Shape::parse(shape)?, workers.parse()?, address.parse()?)?;
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
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Fault> {
        let mut options = Self {
            sizes: Sizes::FULL,
            rounds: 5,
            targets: ["nginx", "per-core", "work-stealing", "flm"].map(String::from).to_vec(),
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
                "--held" => options.sizes.held = words.next().ok_or(USAGE)?.parse()?,
                "--targets" => options.targets = words.next().ok_or(USAGE)?.split(',').map(String::from).collect(),
                _ => return Err(format!("unknown argument {word:?}\n{USAGE}").into()),
            }
        }
        Ok(options)
    }
}

/// Starts everything, takes every figure of every target in turn, and prints the table.
fn compare(options: &Options) -> Result<ExitCode, Fault> {
    let workers = std::thread::available_parallelism()?.get();
    let engine = Program::engine()?;
    let mut table = Table::default();
    for round in 1..=options.rounds {
        // Fresh processes each round: the figures do not depend on what ran in them before. All of them are up at
        // once and idle but for one, so that one figure is taken of all targets within seconds of each other.
        let mut visits = Vec::new();
        for target in &options.targets {
            visits.push(Visit::new(start(target, workers, engine.address)?));
        }
        for figure in Figure::ALL {
            for _ in 0..figure.slices() {
                for (target, visit) in options.targets.iter().zip(&mut visits) {
                    visit.take(figure, &engine, &options.sizes).map_err(|fault| format!("{target}: {fault}"))?;
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
    Ok(ExitCode::SUCCESS)
}

fn start(target: &str, workers: usize, engine: SocketAddr) -> Result<Program, Fault> {
    match target {
        "nginx" => Program::nginx(workers, engine),
        "flm" => Program::flm(engine),
        shape => Program::baseline(Shape::parse(shape)?, workers, engine),
    }
}

/// The kinds of load, in the order in which they are put on every target.
#[derive(Debug, Clone, Copy)]
enum Figure {
    // First, while the process is fresh: memory that an earlier load left behind would serve these streams for free.
    Held,
    Settle,
    Single,
    Flood,
    Paced,
    StreamFlood,
}

impl Figure {
    const ALL: [Self; 6] = [Self::Held, Self::Settle, Self::Single, Self::Flood, Self::Paced, Self::StreamFlood];

    /// How often it is taken of all targets in turn, for the median. Where requests follow each other closely, a figure depends for
    /// seconds on which processors the system has put client, proxy and engine: one long visit shows one such placement.
    fn slices(self) -> usize {
        match self {
            Self::Single => 9,
            Self::Flood => 3,
            Self::Held | Self::Settle | Self::Paced | Self::StreamFlood => 1,
        }
    }
}

/// One program in one round.
struct Visit {
    program: Program,
    figures: Figures,
    single: Vec<Run>,
    flood: Vec<Run>,
}

impl Visit {
    fn new(program: Program) -> Self {
        Self { program, figures: Figures::default(), single: Vec::new(), flood: Vec::new() }
    }

    /// Takes one figure, and notes how busy other programs kept the machine meanwhile.
    fn take(&mut self, figure: Figure, engine: &Program, sizes: &Sizes) -> Result<(), Fault> {
        let (busy, begun) = (measure::machine_busy_seconds()?, std::time::Instant::now());
        let own = measure::cpu_of_tree(self.program.pid())? + measure::cpu_of_tree(engine.pid())?;
        let (program, figures) = (&self.program, &mut self.figures);
        let (address, key) = (program.address, program.key.as_str());
        let client_cpu = match figure {
            // Connections, caches and the allocator settle before anything is counted.
            Figure::Settle => drive_client(&Plan { requests: sizes.flood / 10, ..sizes.flood(address, key) })?.own_cpu,
            Figure::Single => {
                let run = measured(program, &sizes.single(address, key))?;
                let own_cpu = run.outcome.own_cpu;
                self.single.push(run);
                figures.request_us_single = median(&self.single, Run::cpu_us_per_request);
                figures.p50_us = median(&self.single, |run| run.outcome.p50_us);
                figures.p99_us = median(&self.single, |run| run.outcome.p99_us);
                own_cpu
            }
            Figure::Flood => {
                let run = measured(program, &sizes.flood(address, key))?;
                let own_cpu = run.outcome.own_cpu;
                self.flood.push(run);
                figures.request_us = median(&self.flood, Run::cpu_us_per_request);
                figures.requests_per_second =
                    median(&self.flood, |run| per_second(run.outcome.completed, run.outcome.seconds));
                own_cpu
            }
            Figure::Paced => {
                let run = measured(program, &sizes.paced(address, key))?;
                figures.chunk_us = run.cpu_us_per(run.outcome.events);
                run.outcome.own_cpu
            }
            Figure::StreamFlood => {
                let run = measured(program, &sizes.stream_flood(address, key))?;
                figures.flood_chunk_us = run.cpu_us_per(run.outcome.events);
                figures.chunks_per_second = per_second(run.outcome.events, run.outcome.seconds);
                run.outcome.own_cpu
            }
            Figure::Held => {
                let (kibibytes, client_cpu) = held(program, sizes)?;
                figures.held_kib = kibibytes;
                client_cpu
            }
        };
        let own = measure::cpu_of_tree(self.program.pid())? + measure::cpu_of_tree(engine.pid())? - own + client_cpu;
        let others = (measure::machine_busy_seconds()? - busy - own).max(0.0) / begun.elapsed().as_secs_f64();
        self.figures.others_cores = self.figures.others_cores.max(others);
        Ok(())
    }
}

struct Run {
    cpu_seconds: f64,
    outcome: Outcome,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
    fn cpu_us_per(&self, count: usize) -> f64 {
        self.cpu_seconds * 1e6 / count.max(1) as f64
    }

    fn cpu_us_per_request(&self) -> f64 {
        self.cpu_us_per(self.outcome.completed)
    }
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Runs a plan and tells what the program used meanwhile. A run with a failed request measures nothing.
fn measured(program: &Program, plan: &Plan) -> Result<Run, Fault> {
    let before = measure::cpu_of_tree(program.pid())?;
    let outcome = drive_client(plan)?;
    let cpu_seconds = measure::cpu_of_tree(program.pid())? - before;
    if outcome.failed > 0 {
        return Err(format!("{} of {} requests failed: {:?}", outcome.failed, plan.requests, outcome.reason).into());
    }
    if outcome.events != plan.requests * plan.chunks {
        return Err(format!("{} of {} chunks came through", outcome.events, plan.requests * plan.chunks).into());
    }
    Ok(Run { cpu_seconds, outcome })
}

/// Memory per stream that is held open, in KiB, and what the client used.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn held(program: &Program, sizes: &Sizes) -> Result<(f64, f64), Fault> {
    let before = measure::resident_of_tree(program.pid())?;
    let plan = sizes.held(program.address, &program.key);
    let mut client = spawn_client(&plan)?;
    let mut most = before;
    // The streams last two seconds; the largest reading is the one with all of them open.
    while client.try_wait()?.is_none() {
        most = most.max(measure::resident_of_tree(program.pid())?);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let outcome = outcome_of(client)?;
    if outcome.failed > 0 {
        return Err(format!("{} of {} held streams failed: {:?}", outcome.failed, plan.requests, outcome.reason).into());
    }
    Ok(((most - before) / plan.connections as f64, outcome.own_cpu))
}

fn spawn_client(plan: &Plan) -> Result<std::process::Child, Fault> {
    let plan = serde_json::to_string(plan)?;
    Ok(Command::new(std::env::current_exe()?).args(["client", &plan]).stdout(Stdio::piped()).spawn()?)
}

fn outcome_of(mut client: std::process::Child) -> Result<Outcome, Fault> {
    let mut text = String::new();
    BufReader::new(client.stdout.take().ok_or("no stdout")?).read_to_string(&mut text)?;
    client.wait()?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("the load client ended without an outcome: {error}"))?)
}

/// Runs the load client to its end.
pub(crate) fn drive_client(plan: &Plan) -> Result<Outcome, Fault> {
    outcome_of(spawn_client(plan)?)
}
