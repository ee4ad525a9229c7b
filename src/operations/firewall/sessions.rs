//! The SSH sessions of this machine, by the sockets that its SSH server holds.
//!
//! `SSH_CONNECTION` alone does not do: it is missing in a console that was started elsewhere, and stale in a terminal
//! multiplexer that outlived the session which started it. Looking into other processes takes root, so the privileged step
//! looks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::types::address::canonical;
use crate::types::firewall::SshSession;

/// Names of processes that hold SSH sessions: OpenSSH up to 9.7 and from 9.8 on, and Dropbear.
const SERVERS: [&str; 3] = ["sshd", "sshd-session", "dropbear"];

/// A connection that is up, in `/proc/net/tcp` (`net/tcp_states.h`).
const ESTABLISHED: &str = "01";

/// Sessions that rules are made for; more than anybody keeps open.
const MOST: usize = 64;

/// Port of SSH servers (RFC 4251 §9.1), for a process that may not look into them.
const PORT: u16 = 22;

/// Every SSH session of this network namespace, ascending.
pub(super) fn live() -> Vec<SshSession> {
    let sockets = sockets_of_servers(Path::new("/proc"));
    let found: BTreeSet<_> =
        tables().iter().flat_map(|table| sessions(table, |_, socket| sockets.contains(&socket))).collect();
    found.into_iter().take(MOST).collect()
}

/// Addresses that have a connection to this machine's SSH server, as far as any process sees: what the server's sockets tell
/// where this one may look at them, else connections to its port. `own` is the session in which this process was started.
pub(super) fn peers(own: Option<SshSession>) -> BTreeSet<IpAddr> {
    let sockets = sockets_of_servers(Path::new("/proc"));
    let is_ssh = |port, socket| port == PORT || own.is_some_and(|own| own.port == port) || sockets.contains(&socket);
    let found: BTreeSet<_> = tables().iter().flat_map(|table| sessions(table, is_ssh)).map(|seen| seen.from).collect();
    found.into_iter().chain(own.map(|own| canonical(own.from))).collect()
}

fn tables() -> [String; 2] {
    ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default())
}

fn sockets_of_servers(proc: &Path) -> BTreeSet<u64> {
    let Ok(processes) = std::fs::read_dir(proc) else { return BTreeSet::new() };
    let mut sockets = BTreeSet::new();
    for process in processes.flatten() {
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if !SERVERS.contains(&name.trim_end()) {
            continue;
        }
        // A process may end while it is looked at.
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        sockets.extend(
            links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()),
        );
    }
    sockets
}

/// The sessions in a table of the kernel (proc(5)): local address, remote address, state, … and the socket's number. Local port
/// and socket tell whether it is one.
fn sessions(table: &str, is_ssh: impl Fn(u16, u64) -> bool) -> Vec<SshSession> {
    let session = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, remote, state, socket) = (words.get(1)?, words.get(2)?, words.get(3)?, words.get(9)?);
        let port = end(local)?.1;
        if *state != ESTABLISHED || !is_ssh(port, socket.parse().ok()?) {
            return None;
        }
        Some(SshSession { from: end(remote)?.0, port })
    };
    table.lines().skip(1).filter_map(session).collect()
}

/// `0100007F:1F90` or its long kind: groups of four bytes, each in the machine's byte order.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for group in address.as_bytes().chunks(8) {
        let group = std::str::from_utf8(group).ok()?;
        bytes.extend(u32::from_str_radix(group, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some((canonical(address), port))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    // Recorded on Linux 6.1: a listening socket, two SSH sessions (one of IPv4 over an IPv6 socket), one of a web server.
    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0\n\
        1: 0100000A:0016 077100CB:C382 01 00000000:00000000 02:000A7A2B 00000000     0        0 101 4 0 20 4 31 10 -1\n\
        2: 0100000A:2124 087100CB:C383 01 00000000:00000000 02:000A7A2B 00000000     0        0 102 4 0 20 4 31 10 -1\n";
    const TABLE6: &str = "  sl  local_address                         remote_address                        st tx_queue\n\
        0: 0000000000000000FFFF00000100000A:0016 0000000000000000FFFF0000097100CB:C382 01 0:0 02:0 0 0 0 103 4\n\
        1: B80D0120000000000000000001000000:08AE B80D0120000000000000000009000000:C382 01 0:0 02:0 0 0 0 104 4\n";

    #[test]
    fn sessions_are_those_of_the_servers_sockets_in_both_families() {
        let sockets = BTreeSet::from([100, 101, 103, 104]);
        let of_server = |_: u16, socket: u64| sockets.contains(&socket);
        let told = |table| -> Vec<String> { sessions(table, of_server).iter().map(ToString::to_string).collect() };
        assert_eq!(told(TABLE), ["203.0.113.7 to port 22"]);
        assert_eq!(told(TABLE6), ["203.0.113.9 to port 22", "2001:db8::9 to port 2222"]);
        assert!(sessions("", of_server).is_empty() && sessions("sl\nnonsense : 1", of_server).is_empty());
        // Without a look at the server's sockets, its port tells; one that listens is nobody's.
        let by_port = sessions(TABLE, |port, _| port == PORT);
        assert_eq!(by_port, [SshSession { from: "203.0.113.7".parse().expect("an address"), port: 22 }]);
    }
}
