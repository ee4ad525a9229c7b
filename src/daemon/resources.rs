//! Protects the machine (SPEC §5.8): while FLM's own cores are at their end, or memory is, new work is refused and what
//! runs goes on. What engines use of the processor never counts: they are meant to be busy.
//!
//! Reads the system once a second; [`Watch`] decides, so that tests hand in what was read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::files;
use crate::operations::context::Context;
use crate::types::audit::{AuditKind, Severity};
use crate::types::listener::Overload;
use crate::types::live::LiveEvent;
use crate::types::policy::{Mode, Resources};

/// How often the system is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// An overload is over at this share of what began it (SPEC §5.8).
const RELEASE_PERCENT: u64 = 80;
const MEGABYTE: u64 = 1_000_000;

/// Memory that is free, and all there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    free: u64,
    all: u64,
}

/// What the system told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    at: Instant,
    /// Processor time of this process since it started.
    processor: Duration,
    /// Of the machine.
    memory: Option<Memory>,
    /// Of the control group that holds this process most tightly, when one limits it.
    group: Option<Memory>,
}

/// What a reading led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Began(Overload),
    Ended,
}

/// A limit that must be passed for a while.
#[derive(Debug, Default)]
struct Patience {
    since: Option<Instant>,
}

impl Patience {
    fn passed(&mut self, over: bool, at: Instant, seconds: u32) -> bool {
        if !over {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(at);
        at.saturating_duration_since(since) >= Duration::from_secs(u64::from(seconds))
    }
}

/// Decides from readings.
#[derive(Debug)]
struct Watch {
    /// Cores that this process may keep busy.
    cores: u32,
    last: Option<Reading>,
    processor: Patience,
    memory: Patience,
    group: Patience,
    now: Option<Overload>,
    /// What the policy said at the last reading.
    mode: Mode,
}

impl Watch {
    fn new(cores: u32) -> Self {
        Self {
            cores: cores.max(1),
            last: None,
            processor: Patience::default(),
            memory: Patience::default(),
            group: Patience::default(),
            now: None,
            mode: Mode::Off,
        }
    }

    /// Takes a reading; answers what changed.
    fn see(&mut self, reading: Reading, limits: &Resources) -> Option<Step> {
        let percent = self.last.map_or(0, |last| share(&last, &reading, self.cores));
        self.last = Some(reading);
        // What began under one mode ends with it; the next reading begins it anew as the other has it.
        let changed = std::mem::replace(&mut self.mode, limits.mode) != limits.mode;
        if limits.mode == Mode::Off || changed && self.now.is_some() {
            return self.now.take().map(|_| Step::Ended);
        }
        let at = reading.at;
        let least = |memory: Memory| {
            let share = memory.all / 100 * u64::from(limits.memory_percent.get());
            share.max(u64::from(limits.memory_megabytes.get()) * MEGABYTE)
        };
        let busy = percent > u64::from(limits.cpu_percent.get());
        let began = if self.processor.passed(busy, at, limits.cpu_seconds.get()) {
            Some(Overload::Processor { percent })
        } else {
            None
        };
        let short = |memory: Option<Memory>| memory.is_some_and(|memory| memory.free < least(memory));
        let free = |memory: Option<Memory>| memory.map_or(0, |memory| memory.free / MEGABYTE);
        let machine_short = self.memory.passed(short(reading.memory), at, limits.memory_seconds.get());
        let group_short = self.group.passed(short(reading.group), at, limits.memory_seconds.get());
        let began = began
            .or(machine_short.then(|| Overload::Memory { free_megabytes: free(reading.memory) }))
            .or(group_short.then(|| Overload::ControlGroup { free_megabytes: free(reading.group) }));
        let enough =
            |memory: Option<Memory>| memory.is_none_or(|memory| memory.free * RELEASE_PERCENT / 100 >= least(memory));
        match self.now {
            None => {
                self.now = began;
                began.map(Step::Began)
            }
            Some(overload) => {
                let over = match overload {
                    Overload::Processor { .. } => percent * 100 < u64::from(limits.cpu_percent.get()) * RELEASE_PERCENT,
                    Overload::Memory { .. } => enough(reading.memory),
                    Overload::ControlGroup { .. } => enough(reading.group),
                };
                if !over {
                    return None;
                }
                // Another limit may be passed meanwhile: then that is why from now on.
                self.now = began.filter(|next| std::mem::discriminant(next) != std::mem::discriminant(&overload));
                Some(self.now.map_or(Step::Ended, Step::Began))
            }
        }
    }
}

/// Percent of the cores that were busy with this process between two readings.
fn share(last: &Reading, reading: &Reading, cores: u32) -> u64 {
    let span = reading.at.saturating_duration_since(last.at).as_micros() * u128::from(cores);
    let busy = reading.processor.saturating_sub(last.processor).as_micros();
    (busy * 100).checked_div(span).map_or(0, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// Asks the system.
struct Reader {
    system: System,
    own: Pid,
    /// Folders of the control groups that hold this process, the innermost first (cgroups(7), version 2).
    groups: Vec<PathBuf>,
}

impl Reader {
    fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self { system: System::new()?, own: Pid::from_u32(std::process::id()), groups: control_groups() })
    }

    fn read(&mut self, at: Instant) -> Reading {
        let kind = ProcessRefreshKind::nothing().with_cpu().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.own]), false, kind);
        self.system.refresh_memory();
        let processor = self.system.process(self.own).map_or(0, sysinfo::Process::accumulated_cpu_time);
        let all = self.system.total_memory();
        Reading {
            at,
            processor: Duration::from_millis(processor),
            memory: (all > 0).then(|| Memory { free: self.system.available_memory(), all }),
            group: self.groups.iter().filter_map(|folder| group_memory(folder)).min_by_key(|memory| memory.free),
        }
    }
}

fn control_groups() -> Vec<PathBuf> {
    let text = files::read_to_string("/proc/self/cgroup".as_ref()).unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let root = PathBuf::from("/sys/fs/cgroup");
    let whole = root.join(path);
    whole.ancestors().take_while(|folder| folder.starts_with(&root)).map(PathBuf::from).collect()
}

/// What a control group's limit leaves; what the kernel can drop from its caches counts as free.
fn group_memory(folder: &Path) -> Option<Memory> {
    let number = |name: &str| files::read_to_string(&folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let all = number("memory.max")?;
    let used = number("memory.current")?;
    let statistics = files::read_to_string(&folder.join("memory.stat")).unwrap_or_default();
    let dropped = statistics.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok()).unwrap_or(0);
    Some(Memory { free: all.saturating_sub(used.saturating_sub(dropped)), all })
}

/// Watches until the owner ends.
pub(super) async fn watch(context: Arc<Context>, workers: usize) {
    let Some(live) = &context.live else { return };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(workers);
    let mut watch = Watch::new(u32::try_from(cores).unwrap_or(u32::MAX));
    let mut reader = match tokio::task::spawn_blocking(Reader::new).await {
        Ok(Ok(reader)) => reader,
        Ok(Err(fault)) => {
            tracing::error!(%fault, "the system does not tell its use: the machine is not protected against overload");
            return;
        }
        Err(_ending) => return,
    };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Off the runtime: a machine short of memory may keep it waiting.
        let at = context.clock.monotonic();
        let read = tokio::task::spawn_blocking(move || {
            let reading = reader.read(at);
            (reader, reading)
        });
        let Ok((back, reading)) = read.await else { return };
        reader = back;
        let limits = live.proxy.guard.policy().resources;
        let Some(step) = watch.see(reading, &limits) else { continue };
        let simulated = limits.mode == Mode::Simulate;
        let (kind, severity, details) = match step {
            Step::Began(why) if simulated => {
                (AuditKind::Simulated, Severity::Medium, format!("would take no new work: {why}"))
            }
            Step::Began(why) => (AuditKind::ResourceAlert, Severity::High, format!("no new work is taken: {why}")),
            Step::Ended => (AuditKind::ResourceAlert, Severity::Low, "new work is taken again".to_owned()),
        };
        tracing::warn!(details, "protection of the machine");
        live.proxy.guard.set_overload(match step {
            Step::Began(why) if !simulated => Some(why),
            Step::Began(_) | Step::Ended => None,
        });
        context.record(kind, severity, details).await;
        context.hub.publish(LiveEvent::Status(Box::new(live.host.status())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::{Clock, UnixMillis};
    use crate::types::policy::SecurityPolicy;

    struct Case {
        watch: Watch,
        start: Instant,
        seconds: u64,
        used: Duration,
        limits: Resources,
    }

    impl Case {
        fn new() -> Self {
            let start = Clock::stepped(UnixMillis(0)).monotonic();
            let limits = SecurityPolicy::default().resources;
            Self { watch: Watch::new(2), start, seconds: 0, used: Duration::ZERO, limits }
        }

        /// A second later, with so many percent of both cores used and so many megabytes free of 16 GB.
        fn second(&mut self, percent: u32, free: u64) -> Option<Step> {
            self.seconds += 1;
            self.used += Duration::from_millis(20) * percent;
            let memory = Some(Memory { free: free * MEGABYTE, all: 16_000 * MEGABYTE });
            let at = self.start + Duration::from_secs(self.seconds);
            self.watch.see(Reading { at, processor: self.used, memory, group: None }, &self.limits)
        }
    }

    #[test]
    fn ten_seconds_above_ninety_percent_are_an_overload_and_it_ends_below_seventy_two() {
        let mut case = Case::new();
        case.second(0, 8000);
        assert!((0..10).all(|_| case.second(95, 8000).is_none()));
        assert_eq!(case.second(95, 8000), Some(Step::Began(Overload::Processor { percent: 95 })));
        assert!((0..5).all(|_| case.second(73, 8000).is_none()), "not released before 80 % of the trigger");
        assert_eq!(case.second(71, 8000), Some(Step::Ended));
        assert!((0..9).all(|_| case.second(95, 8000).is_none()));
        assert_eq!(case.second(50, 8000), None, "a pause begins anew");
        assert!((0..10).all(|_| case.second(95, 8000).is_none()));
    }

    #[test]
    fn too_little_memory_for_five_seconds_is_an_overload_until_there_is_a_quarter_more() {
        let mut case = Case::new();
        // Three percent of 16 GB are 480 MB, which is more than 256.
        assert!((0..5).all(|_| case.second(0, 479).is_none()));
        assert_eq!(case.second(0, 479), Some(Step::Began(Overload::Memory { free_megabytes: 479 })));
        assert_eq!(case.second(0, 599), None);
        assert_eq!(case.second(0, 600), Some(Step::Ended));
        case.limits.mode = Mode::Off;
        assert!((0..20).all(|_| case.second(100, 1).is_none()));
    }

    #[test]
    fn a_mode_that_changes_during_an_overload_takes_effect_with_the_next_readings() {
        let mut case = Case::new();
        let began = Some(Step::Began(Overload::Memory { free_megabytes: 100 }));
        case.limits.mode = Mode::Simulate;
        assert_eq!((0..6).find_map(|_| case.second(0, 100)), began, "only said");
        for mode in [Mode::Enforce, Mode::Simulate] {
            case.limits.mode = mode;
            assert_eq!(case.second(0, 100), Some(Step::Ended));
            assert_eq!(case.second(0, 100), began, "{mode:?}");
            assert_eq!(case.second(0, 100), None);
        }
    }

    #[test]
    fn a_control_groups_limit_counts_like_the_machines_memory() {
        let mut case = Case::new();
        let mut see = |second: u64, free: u64| {
            let group = Some(Memory { free: free * MEGABYTE, all: 1000 * MEGABYTE });
            let at = case.start + Duration::from_secs(second);
            case.watch.see(Reading { at, processor: Duration::ZERO, memory: None, group }, &case.limits)
        };
        assert!((0..5).all(|second| see(second, 255).is_none()));
        assert_eq!(see(5, 255), Some(Step::Began(Overload::ControlGroup { free_megabytes: 255 })));
        assert_eq!(see(6, 320), Some(Step::Ended));
    }

    #[test]
    fn the_system_tells_memory_and_the_own_use_of_the_processor() {
        let mut reader = Reader::new().expect("the system tells its use");
        let clock = Clock::system();
        let first = reader.read(clock.monotonic());
        let memory = first.memory.expect("memory");
        assert!(memory.all > 64 * MEGABYTE && memory.free <= memory.all, "{memory:?}");
        let began = clock.monotonic();
        let mut number = 1_u64;
        // Until the system's clock of 10 ms has surely moved on.
        while reader.read(clock.monotonic()).processor < first.processor + Duration::from_millis(20) {
            assert!(clock.monotonic() - began < Duration::from_secs(60), "the own use is not seen");
            number = (0..100_000).fold(number, |sum, next| std::hint::black_box(sum.wrapping_mul(31) ^ next));
        }
    }
}
