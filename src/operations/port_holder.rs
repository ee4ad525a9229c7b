//! Which program listens on a port: for the message about a taken one (SPEC §4.8).
//!
//! Linux tells it in `/proc` (proc(5)): `net/tcp` gives the inode of the listening socket, and the links in a
//! process's `fd` folder name inodes. Other users' processes stay unknown.

use std::fs;

/// A program that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Process id.
    pub pid: u32,
    /// Its name as the kernel knows it; outside text.
    pub program: String,
}

/// Finds who listens on a TCP port; `None` when it cannot be told. Reads many small files: call it off the runtime.
#[must_use]
pub fn holder_of_port(port: u16) -> Option<PortHolder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        });
        if !holds {
            return None;
        }
        let program = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(PortHolder { pid, program: program.trim_end().to_owned() })
    })
}

/// Inodes of the sockets of a `/proc/net/tcp` table that listen on a port.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    // State 0A is TCP_LISTEN (include/net/tcp_states.h); columns as in proc_pid_net(5).
    const LISTENING: &str = "0A";
    let wanted = format!(":{port:04X}");
    let inode = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1)?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        (local.ends_with(&wanted) && state == LISTENING).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2124 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0\n   \
             1: 0100007F:2124 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4343 1 0 20 4\n   \
             2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4444 1 0 100 0\n";
        assert_eq!(listening_inodes(table, 8484), [4242]);
        assert_eq!(listening_inodes(table, 9999), Vec::<u64>::new());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_held_by_this_test_is_told_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("address").port();
        let holder = holder_of_port(port).expect("found");
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.program.is_empty());
    }
}
