//! How many connections there may be, in all and per address (SPEC §5.8). Asked once per connection, by the
//! listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::limits::ProxyLimits;
use crate::types::address::counting_prefix;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::clock::UnixMillis;

/// Open connections of all listeners.
#[derive(Debug, Default)]
pub struct ConnectionLimits {
    open: Mutex<Open>,
    /// The same as the total below, for whoever only looks.
    total: AtomicU32,
    /// When a refusal was last told of, milliseconds since the epoch: of one address, and in all.
    told: [AtomicI64; 2],
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    by_prefix: HashMap<IpAddr, u32>,
}

/// Counts one connection until dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<ConnectionLimits>,
    prefix: IpAddr,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMany {
    /// From this address.
    OfAddress,
    /// In all.
    InAll,
}

impl ConnectionLimits {
    /// Counts a connection, or says why not. `per_address` is `None` for trusted addresses.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        in_all: u32,
        per_address: Option<u32>,
    ) -> Result<Permit, TooMany> {
        let prefix = counting_prefix(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= in_all {
            return Err(TooMany::InAll);
        }
        let of_address = open.by_prefix.get(&prefix).copied().unwrap_or(0);
        if per_address.is_some_and(|limit| of_address >= limit) {
            return Err(TooMany::OfAddress);
        }
        open.total += 1;
        self.total.store(open.total, Ordering::Relaxed);
        open.by_prefix.insert(prefix, of_address + 1);
        Ok(Permit { limits: self.clone(), prefix })
    }
}

/// Least time between two rows about refused connections: a flood of them is one matter.
const TELL_AGAIN: Duration = Duration::from_mins(1);

impl TooMany {
    /// What the operator is told: a refusal of one address, or of everybody.
    pub(super) fn event(self, limits: &ProxyLimits, address: IpAddr, now: UnixMillis) -> AuditEvent {
        let (severity, details) = match self {
            Self::OfAddress => {
                let most = limits.connections_per_address;
                (
                    Severity::Medium,
                    format!("connections are refused: {address} may hold {most} (limits.connections_per_address)"),
                )
            }
            Self::InAll => {
                let most = limits.connections;
                (Severity::High, format!("connections are refused: there may be {most} in all (limits.connections)"))
            }
        };
        AuditEvent { address: Some(address), ..AuditEvent::new(now, AuditKind::ResourceAlert, severity, details) }
    }
}

impl ConnectionLimits {
    /// Whether the operator is told of this refusal now: once a minute for each limit.
    pub(super) fn tells(&self, refusal: TooMany, now: UnixMillis) -> bool {
        let told = &self.told[usize::from(refusal == TooMany::InAll)];
        let last = told.load(Ordering::Relaxed);
        now.since(UnixMillis(last)) >= TELL_AGAIN
            && told.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether places are running short: then strangers that rest give theirs back (see `connection`).
    pub(super) fn are_short(&self, in_all: u32) -> bool {
        self.total.load(Ordering::Relaxed) > in_all / 2
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        self.limits.total.store(open.total, Ordering::Relaxed);
        if let Some(count) = open.by_prefix.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                open.by_prefix.remove(&self.prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_all_together_are_limited_and_places_come_back() {
        let limits = Arc::new(ConnectionLimits::default());
        let one: IpAddr = "192.0.2.1".parse().expect("address");
        let other: IpAddr = "192.0.2.2".parse().expect("address");
        let first = limits.admit(one, 3, Some(1)).expect("admitted");
        assert_eq!(limits.admit(one, 3, Some(1)).err(), Some(TooMany::OfAddress));
        let trusted = limits.admit(one, 3, None).expect("trusted addresses have no limit of their own");
        let second = limits.admit(other, 3, Some(1)).expect("admitted");
        assert_eq!(limits.admit(other, 3, None).err(), Some(TooMany::InAll));
        assert!(limits.are_short(5) && !limits.are_short(6));
        drop((first, trusted, second));
        assert!(!limits.are_short(0));
        let at = |seconds: i64| UnixMillis(1_800_000_000_000 + seconds * 1000);
        assert!(limits.tells(TooMany::InAll, at(0)) && limits.tells(TooMany::OfAddress, at(0)));
        assert!(!limits.tells(TooMany::InAll, at(59)) && limits.tells(TooMany::InAll, at(60)));
        assert!(limits.admit(one, 3, Some(1)).is_ok());
        assert!(limits.open.lock().expect("lock").by_prefix.is_empty(), "nothing is remembered of the past");
    }
}
