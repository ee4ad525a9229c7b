//! CPU time and memory of processes, read from `/proc`: these can be trusted on a shared machine, rates cannot.

use std::path::Path;

/// Why something in `/proc` could not be read.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// CPU time of all live threads of a process and of its child processes, in seconds.
pub(crate) fn cpu_of_tree(root: u32) -> Result<f64, Fault> {
    family(root)?.into_iter().map(cpu_seconds).sum()
}

/// CPU time of all live threads of one process, in seconds (nanoseconds on the processor are the first number of
/// `/proc/PID/task/TID/schedstat`; a thread that ended is not counted, and none of the measured programs ends one
/// within a measurement).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, Fault> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().ok_or("an empty schedstat")?;
        nanoseconds += first.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// CPU time of this process per step of some work, in microseconds: the median of `rounds` rounds of `steps` steps each.
pub(crate) fn microseconds_each(
    rounds: usize,
    steps: u32,
    mut round: impl FnMut() -> Result<(), Fault>,
) -> Result<f64, Fault> {
    let mut figures = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let before = cpu_seconds(std::process::id())?;
        round()?;
        figures.push((cpu_seconds(std::process::id())? - before) * 1e6 / f64::from(steps));
    }
    if figures.is_empty() { Err("no round was measured".into()) } else { Ok(median(&figures)) }
}

/// The median; of an even number of figures the mean of the two in the middle, and of none nothing.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => f64::midpoint(sorted[middle - 1], *upper),
    }
}

/// The least.
pub(crate) fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Median, least and most, as tables tell them.
pub(crate) fn spread(figures: &[f64]) -> String {
    let (median, most) = (median(figures), figures.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let digits = usize::from(median < 1000.0);
    format!("{median:.digits$} ({:.digits$}–{most:.digits$})", least(figures))
}

/// Resident memory of a process and its children, in KiB.
pub(crate) fn resident_of_tree(root: u32) -> Result<f64, Fault> {
    let mut kibibytes = 0.0;
    for pid in family(root)? {
        kibibytes += memory_of(pid, "VmRSS:")?;
    }
    Ok(kibibytes)
}

/// A field of `/proc/PID/status` that tells memory, in KiB.
pub(crate) fn memory_of(pid: u32, field: &str) -> Result<f64, Fault> {
    kibibytes(&format!("/proc/{pid}/status"), field)
}

/// A field of `/proc/PID/smaps_rollup`, in KiB: counted page by page, where `status` may be behind by some for each thread.
pub(crate) fn mapped(pid: u32, field: &str) -> Result<f64, Fault> {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), field)
}

fn kibibytes(file: &str, field: &str) -> Result<f64, Fault> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).ok_or_else(|| format!("no {field} in {file}"))?;
    Ok(line.split_whitespace().next().ok_or_else(|| format!("an empty {field}"))?.parse()?)
}

/// A process and its direct children.
fn family(root: u32) -> Result<Vec<u32>, Fault> {
    let mut members = vec![root];
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if parent_of(&entry.path()) == Some(root) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// Field 4 of `/proc/PID/stat`; the name before it may hold anything and ends with the last `)` (proc(5)). A process
/// that ended in the meantime has no parent.
fn parent_of(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (_name, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Seconds that all processors together were busy since boot, from `/proc/stat` (`USER_HZ` is 100 on Linux).
pub(crate) fn machine_busy_seconds() -> Result<f64, Fault> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().ok_or("an empty /proc/stat")?;
    let fields: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest times are within user.
    let busy: f64 =
        fields.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(busy / 100.0)
}
