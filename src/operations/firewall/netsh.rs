//! `netsh` of Windows: rules named `FLM …`. A preview, not tried on Windows.

use super::{Backend, ports};
use crate::types::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "netsh",
    system: "windows",
    program: "netsh.exe",
    apply,
    rollback,
    notes: &[
        "a preview: FLM does not apply it, and it was not tried on Windows; run it in a prompt of an administrator",
    ],
    hands: None,
};

fn apply(plan: &FirewallPlan) -> String {
    let mut text = String::new();
    for ssh in &plan.ssh {
        text.push_str(&rule("FLM ssh", &ssh.from.to_string(), &ssh.port.to_string()));
    }
    let networks: Vec<_> = plan.networks.iter().map(ToString::to_string).collect();
    let sources = if networks.is_empty() { "any".to_owned() } else { networks.join(",") };
    text.push_str(&rule("FLM", &sources, &ports(plan, ",")));
    text
}

fn rule(name: &str, sources: &str, ports: &str) -> String {
    format!(
        "netsh advfirewall firewall add rule name=\"{name}\" dir=in action=allow protocol=TCP \
         remoteip={sources} localport={ports}\r\n"
    )
}

fn rollback(plan: &FirewallPlan) -> String {
    // One command takes away every rule of that name.
    let ssh = plan.ssh.first().map(|_| "netsh advfirewall firewall delete rule name=\"FLM ssh\"\r\n");
    ["netsh advfirewall firewall delete rule name=\"FLM\"\r\n"].into_iter().chain(ssh).collect()
}
