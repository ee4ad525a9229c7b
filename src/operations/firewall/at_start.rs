//! Confirmed rules that the machine starts with, for backends that keep none themselves: files that belong to root, and a unit of
//! systemd's that loads them before the network is up.
//!
//! What the unit runs are the firewall's own programs and nothing of FLM's, so that it does not depend on where FLM is or
//! whether it works. Called as root by the privileged step and its watchdog.

use std::path::Path;

use super::hands::Kept;
use super::system;
use crate::config::files::{self, Audience};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Name of the unit.
const UNIT: &str = "flm-firewall.service";

/// Where administrators' units are (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";

/// Where the rules are, in a folder of root's.
const FOLDER: &str = "/etc/flm-firewall";

/// There while the unit is active, which everybody may see: it is once its rules are loaded (systemd.exec(5),
/// `RuntimeDirectory=`).
pub(super) const MARK: &str = "/run/flm-firewall";

/// One file of rules.
pub(super) struct Part {
    /// Its name in the folder.
    pub(super) file: &'static str,
    /// What is in it.
    pub(super) rules: String,
    /// What the machine runs; `FILE` stands for the file.
    pub(super) commands: Vec<String>,
}

/// Has the machine start with these rules; with none it starts without any.
///
/// # Errors
/// Where systemd does not start this machine, or its files cannot be written.
pub(super) async fn settle(parts: Option<Vec<Part>>) -> Outcome<Kept> {
    if !system::rules_the_machine() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "systemd does not start this machine")
            .hint("put them in force again after a restart: flm firewall apply"));
    }
    match parts {
        Some(parts) => keep(&parts).await,
        None => forget().await,
    }
    .map(|()| Kept::ByUnit)
}

async fn keep(parts: &[Part]) -> Outcome<()> {
    files::private_dir(Path::new(FOLDER))?;
    for part in parts {
        files::replace(&Path::new(FOLDER).join(part.file), part.rules.as_bytes(), Audience::Owner)?;
    }
    files::replace(&unit_file(), unit(parts).as_bytes(), Audience::Everyone)?;
    // Starting it loads the rules that are there already, and has it follow what it is a part of from now on.
    system::run("systemctl", &["enable", "--quiet", UNIT], None).await?;
    system::run("systemctl", &["restart", UNIT], None).await.map(drop)
}

async fn forget() -> Outcome<()> {
    if !files::exists(&unit_file())? {
        return Ok(());
    }
    // Stopping it takes no rule away: that was done before.
    system::run("systemctl", &["disable", "--now", "--quiet", UNIT], None).await?;
    files::remove(&unit_file())?;
    files::remove_tree(Path::new(FOLDER))?;
    system::run("systemctl", &["daemon-reload"], None).await.map(drop)
}

fn unit_file() -> std::path::PathBuf {
    Path::new(UNITS).join(UNIT)
}

/// Ordered as the distributions' own units of firewalls are: after those that empty everything as they start, and before
/// the network is up. Where nftables.service is started again or reads its rules again, FLM's come after its own.
fn unit(parts: &[Part]) -> String {
    let commands: Vec<String> = parts
        .iter()
        .flat_map(|part| {
            let file = format!("{FOLDER}/{}", part.file);
            part.commands.iter().map(move |command| command.replace("FILE", &file))
        })
        .collect();
    let run = |word: &str| {
        let lines: Vec<_> = commands.iter().map(|command| format!("{word}={command}\n")).collect();
        lines.concat()
    };
    let first = parts.first().map_or("", |part| part.file);
    format!(
        "# Made by 'flm firewall apply', taken away by 'flm firewall rollback'.\n\
         [Unit]\n\
         Description=Firewall rules of FLM\n\
         Documentation=man:flm-firewall(1)\n\
         DefaultDependencies=no\n\
         Wants=network-pre.target\n\
         After=local-fs.target nftables.service netfilter-persistent.service iptables.service ip6tables.service\n\
         Before=network-pre.target shutdown.target flm.service\n\
         Conflicts=shutdown.target\n\
         PartOf=nftables.service\n\
         ReloadPropagatedFrom=nftables.service\n\
         ConditionPathExists={FOLDER}/{first}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         RuntimeDirectory=flm-firewall\n\
         {}{}\n\
         [Install]\n\
         WantedBy=sysinit.target\n",
        run("ExecStart"),
        run("ExecReload"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_loads_every_file_with_the_firewalls_own_programs() {
        let part = |file, command: &str| Part { file, rules: String::new(), commands: vec![command.to_owned()] };
        let text = unit(&[part("rules.v4", "/usr/sbin/iptables-restore FILE"), part("rules.v6", "/x FILE")]);
        for line in [
            "ExecStart=/usr/sbin/iptables-restore /etc/flm-firewall/rules.v4",
            "ExecStart=/x /etc/flm-firewall/rules.v6",
            "ExecReload=/x /etc/flm-firewall/rules.v6",
            "ConditionPathExists=/etc/flm-firewall/rules.v4",
            "RuntimeDirectory=flm-firewall",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(MARK, "/run/flm-firewall", "where RuntimeDirectory= makes it");
        assert!(!text.contains("FILE"));
    }
}
