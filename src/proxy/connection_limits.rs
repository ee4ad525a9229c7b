//! How many connections there may be, in all and per address (SPEC §5.8). Asked once per connection, by the
//! listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::address::counting_prefix;

/// Open connections of all listeners.
#[derive(Debug, Default)]
pub struct ConnectionLimits {
    open: Mutex<Open>,
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
        open.by_prefix.insert(prefix, of_address + 1);
        Ok(Permit { limits: self.clone(), prefix })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
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
        drop((first, trusted, second));
        assert!(limits.admit(one, 3, Some(1)).is_ok());
        assert!(limits.open.lock().expect("lock").by_prefix.is_empty(), "nothing is remembered of the past");
    }
}
