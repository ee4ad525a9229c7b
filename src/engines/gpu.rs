//! Graphics processors of this machine: use, memory and temperature (SPEC §3.10).
//!
//! AMD's driver tells in sysfs (kernel documentation, "GPU sysfs interfaces" of amdgpu); NVIDIA's through its own program
//! `nvidia-smi`. Called by `daemon` at the pace of health checks. A machine without either costs one look at a folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::config::files;
use crate::types::gpu::GpuView;

/// Where the kernel lists graphics devices.
const DRM: &str = "/sys/class/drm";

/// AMD's PCI vendor id.
const AMD: &str = "0x1002";

/// Time for `nvidia-smi`: without persistence mode it wakes the card first, which takes a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of `nvidia-smi`, in this order (`nvidia-smi --help-query-gpu`).
const QUESTION: &str = "--query-gpu=name,utilization.gpu,memory.used,memory.total,temperature.gpu";

/// A mebibyte, in which `nvidia-smi` counts memory.
const MIB: u64 = 1 << 20;

/// Reads what the drivers tell.
#[derive(Debug, Clone)]
pub struct GpuReader {
    drm: PathBuf,
    nvidia_smi: Option<PathBuf>,
}

impl GpuReader {
    /// This machine's. Looks along `PATH`: call it off the runtime.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let nvidia_smi = std::env::split_paths(&path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("nvidia-smi"))
            .find(|file| files::exists(file).unwrap_or(false));
        Self { drm: DRM.into(), nvidia_smi }
    }

    /// Every graphics processor whose driver tells something, in the drivers' order. Cancel-safe.
    pub async fn read(&self) -> Vec<GpuView> {
        let mut found = self.nvidia().await.unwrap_or_else(|reason| {
            tracing::debug!(%reason, "nvidia-smi tells nothing");
            Vec::new()
        });
        let drm = self.drm.clone();
        found.extend(tokio::task::spawn_blocking(move || amd(&drm)).await.unwrap_or_default());
        found
    }

    async fn nvidia(&self) -> Result<Vec<GpuView>, String> {
        let Some(program) = &self.nvidia_smi else { return Ok(Vec::new()) };
        let run = tokio::process::Command::new(program)
            .args([QUESTION, "--format=csv,noheader,nounits"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, run)
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("it ended with {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(nvidia_line).collect())
    }
}

/// One line of `nvidia-smi`: name, percent, MiB, MiB, degrees. What a card does not tell reads `[N/A]` or the like.
fn nvidia_line(line: &str) -> Option<GpuView> {
    // A name may hold commas; figures never do.
    let mut fields = line.rsplitn(5, ',').map(str::trim);
    let celsius = fields.next()?.parse().ok();
    let memory_total = fields.next()?.parse().ok().and_then(|mib: u64| mib.checked_mul(MIB));
    let memory_used = fields.next()?.parse().ok().and_then(|mib: u64| mib.checked_mul(MIB));
    let busy = fields.next()?.parse().ok();
    let name = fields.next()?.to_owned();
    Some(GpuView { name, busy, memory_used, memory_total, celsius })
}

/// Every AMD card below the folder. Blocks for the time of some small reads.
fn amd(drm: &Path) -> Vec<GpuView> {
    let Ok(mut names) = files::names(drm) else { return Vec::new() };
    // `card0`; `card0-DP-1` is one of its connectors.
    names.retain(|name| name.strip_prefix("card").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())));
    names.sort();
    names.iter().map(|name| drm.join(name).join("device")).filter_map(|device| amd_card(&device)).collect()
}

fn amd_card(device: &Path) -> Option<GpuView> {
    if text(&device.join("vendor"))? != AMD {
        return None;
    }
    let busy = number(&device.join("gpu_busy_percent"));
    let memory_total = number(&device.join("mem_info_vram_total"));
    // A card whose driver tells neither is one that another driver holds.
    if busy.is_none() && memory_total.is_none() {
        return None;
    }
    let sensors = device.join("hwmon");
    let celsius = files::names(&sensors)
        .unwrap_or_default()
        .iter()
        .find_map(|sensor| number::<i32>(&sensors.join(sensor).join("temp1_input")))
        .and_then(|thousandths| i16::try_from(thousandths / 1_000).ok());
    Some(GpuView {
        // Only some cards have a product name (amdgpu, "product_name").
        name: text(&device.join("product_name"))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "AMD GPU".to_owned()),
        busy,
        memory_used: number(&device.join("mem_info_vram_used")),
        memory_total,
        celsius,
    })
}

fn text(path: &Path) -> Option<String> {
    files::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::Audience;

    fn write(path: &Path, content: &str) {
        files::make_dir(path.parent().expect("a folder")).expect("folder");
        files::replace(path, content.as_bytes(), Audience::Owner).expect("written");
    }

    #[test]
    fn a_line_of_nvidia_smi_is_read_with_what_it_does_not_tell() {
        let line = "NVIDIA GeForce RTX 4090, 37, 10240, 24564, 61";
        let expected = GpuView {
            name: "NVIDIA GeForce RTX 4090".to_owned(),
            busy: Some(37),
            memory_used: Some(10 << 30),
            memory_total: Some(24_564 << 20),
            celsius: Some(61),
        };
        assert_eq!(nvidia_line(line), Some(expected));
        let shy = nvidia_line("NVIDIA GB10, Rev A, 4, [N/A], [N/A], 44").expect("a card");
        assert_eq!(
            (shy.name.as_str(), shy.busy, shy.memory_total, shy.celsius),
            ("NVIDIA GB10, Rev A", Some(4), None, Some(44))
        );
        assert_eq!(nvidia_line("No devices were found"), None);
        let absurd = nvidia_line("x, 1, 2, 99999999999999999999, 3").expect("a card");
        assert_eq!(absurd.memory_total, None);
    }

    #[test]
    fn cards_of_amd_are_read_from_sysfs_and_others_are_not() {
        let folder = tempfile::tempdir().expect("folder");
        let card = |name: &str, vendor: &str| {
            let device = folder.path().join(name).join("device");
            write(&device.join("vendor"), vendor);
            device
        };
        let device = card("card1", "0x1002\n");
        write(&device.join("gpu_busy_percent"), "83\n");
        write(&device.join("mem_info_vram_used"), "8589934592\n");
        write(&device.join("mem_info_vram_total"), "17163091968\n");
        write(&device.join("hwmon/hwmon4/temp1_input"), "67000\n");
        card("card0", "0x8086\n");
        card("card2", "0x1002\n");
        card("card1-DP-1", "0x1002\n");
        let expected = GpuView {
            name: "AMD GPU".to_owned(),
            busy: Some(83),
            memory_used: Some(8 << 30),
            memory_total: Some(17_163_091_968),
            celsius: Some(67),
        };
        assert_eq!(amd(folder.path()), [expected]);
        assert!(amd(&folder.path().join("nowhere")).is_empty());
    }

    #[tokio::test]
    async fn a_driver_program_that_fails_or_is_missing_tells_of_no_card() {
        let folder = tempfile::tempdir().expect("folder");
        for program in [None, Some("/bin/false".into()), Some(folder.path().join("missing"))] {
            let reader = GpuReader { drm: folder.path().join("none"), nvidia_smi: program };
            assert!(reader.read().await.is_empty());
        }
    }

    #[tokio::test]
    async fn what_the_driver_program_prints_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("nvidia-smi");
        let script = "#!/bin/sh\n[ \"$2\" = --format=csv,noheader,nounits ] && echo 'Tesla T4, 0, 3, 15360, 38'\n";
        write(&program, script);
        std::process::Command::new("chmod").arg("755").arg(&program).status().expect("chmod");
        let reader = GpuReader { drm: folder.path().join("none"), nvidia_smi: Some(program) };
        let cards = reader.read().await;
        assert_eq!(cards.len(), 1);
        assert_eq!((cards[0].name.as_str(), cards[0].celsius), ("Tesla T4", Some(38)));
    }
}
