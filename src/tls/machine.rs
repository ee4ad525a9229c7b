//! [`Machine`]: the names and addresses under which this machine is reached, as a certificate lists them (SPEC §6).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Names and addresses of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Host names, in lower case.
    pub names: BTreeSet<String>,
    /// Addresses, with the networks that they are in.
    pub networks: BTreeSet<IpNet>,
}

impl Machine {
    /// Looks at the system. Asks the kernel for its interfaces; nothing is sent.
    #[must_use]
    pub fn now() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let mut machine = Self::loopback_only();
        if is_host_name(&host) {
            if !host.contains('.') {
                machine.names.insert(format!("{host}.local"));
            }
            machine.names.insert(host);
        }
        match sysinfo::Networks::new_with_refreshed_list() {
            Ok(networks) => {
                let found = networks.values().flat_map(|network| network.ip_networks().to_vec());
                let kept = found.filter(|network| is_reachable(network.addr));
                machine.networks.extend(kept.filter_map(|network| IpNet::new(network.addr, network.prefix).ok()));
            }
            Err(error) => tracing::warn!(%error, "the machine's addresses cannot be listed"),
        }
        machine
    }

    /// `localhost` and the loopback addresses.
    #[must_use]
    pub fn loopback_only() -> Self {
        Self {
            names: BTreeSet::from(["localhost".to_owned()]),
            networks: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(IpNet::from).into(),
        }
    }

    /// The same with further host names; those with a wildcard or that are none are left out.
    #[must_use]
    pub fn with_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        for name in names {
            let bare = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
            match bare.parse::<IpAddr>() {
                Ok(address) => {
                    self.networks.insert(IpNet::from(address));
                }
                Err(_) if is_host_name(&bare) => {
                    self.names.insert(bare);
                }
                Err(_) => {}
            }
        }
        self
    }

    /// The addresses alone.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.networks.iter().map(IpNet::addr).collect()
    }

    /// Names and addresses as a certificate lists them.
    #[must_use]
    pub fn subjects(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses().iter().map(IpAddr::to_string)).collect()
    }
}

/// Letters, digits, hyphens and dots (RFC 1123 §2.1): what may stand in a certificate as DNS name.
fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Not loopback (listed anyway) and not link-local, which needs a zone that no certificate can name.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_localhost_and_loopback_and_nothing_that_needs_a_zone() {
        let machine = Machine::now();
        let subjects = machine.subjects();
        for expected in ["localhost", "127.0.0.1", "::1"] {
            assert!(subjects.iter().any(|name| name == expected), "{subjects:?}");
        }
        assert!(machine.addresses().iter().all(|address| !address.to_string().starts_with("fe80")));
    }

    #[test]
    fn further_names_are_taken_when_a_certificate_can_hold_them() {
        let machine = Machine::default().with_names(
            ["Box.Example", "[2001:db8::1]", "192.0.2.9", "my_box", "*.example", "-a", ""].map(str::to_owned),
        );
        assert_eq!(machine.subjects(), ["box.example", "192.0.2.9", "2001:db8::1"]);
    }
}
