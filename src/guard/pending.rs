//! What the guard decided and somebody must store: never shed, the newest state of each network counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

use crate::types::address::BlockEntry;
use crate::types::clock::UnixMillis;

/// Networks whose failures may wait to be stored. Beyond it a failure counts in memory only; a block is never let go.
const WAITING_FAILURES: usize = 8_192;

/// What must be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingChanges {
    /// New blocks.
    pub blocks: Vec<BlockEntry>,
    /// Failures of networks, each with all that count.
    pub failures: Vec<(IpNet, Vec<UnixMillis>)>,
}

#[derive(Debug, Default)]
struct Maps {
    blocks: HashMap<IpNet, BlockEntry>,
    failures: HashMap<IpNet, Vec<UnixMillis>>,
}

/// The lane.
#[derive(Debug, Default)]
pub(super) struct Pending {
    maps: Mutex<Maps>,
    changed: Notify,
}

impl Pending {
    pub(super) fn block(&self, entry: BlockEntry) {
        self.maps().blocks.insert(entry.network, entry);
        self.changed.notify_one();
    }

    pub(super) fn failures(&self, network: IpNet, times: Vec<UnixMillis>) {
        let mut maps = self.maps();
        if maps.failures.len() < WAITING_FAILURES || maps.failures.contains_key(&network) {
            maps.failures.insert(network, times);
            drop(maps);
            self.changed.notify_one();
        }
    }

    /// The operator lifted it before it was stored.
    pub(super) fn forget_block(&self, network: IpNet) {
        self.maps().blocks.remove(&network);
    }

    pub(super) fn forget_blocks(&self) {
        self.maps().blocks.clear();
    }

    pub(super) fn take(&self) -> PendingChanges {
        let maps = std::mem::take(&mut *self.maps());
        PendingChanges { blocks: maps.blocks.into_values().collect(), failures: maps.failures.into_iter().collect() }
    }

    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Held for an insert or a swap, never across an await.
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_wait_are_bounded_and_the_newest_of_a_network_counts() {
        let pending = Pending::default();
        let network = |number: u32| IpNet::from(std::net::IpAddr::V4(number.into()));
        let most = u32::try_from(WAITING_FAILURES).expect("a number");
        for number in 0..most + 10 {
            pending.failures(network(number), vec![UnixMillis(1)]);
        }
        pending.failures(network(0), vec![UnixMillis(2)]);
        let taken = pending.take();
        assert_eq!(taken.failures.len(), WAITING_FAILURES);
        assert!(taken.failures.contains(&(network(0), vec![UnixMillis(2)])), "one that waits is replaced");
        assert_eq!(pending.take(), PendingChanges::default());
    }
}
