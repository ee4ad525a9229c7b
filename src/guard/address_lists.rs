//! Block list, allow list and trusted list: longest-prefix tries, swapped whole, so that reading never locks.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::AddressVerdict;
use crate::types::address::{BlockEntry, ListedNetwork, canonical};
use crate::types::calls::addresses::{BlockPage, NetworkList};
use crate::types::clock::UnixMillis;

/// Networks of both families with a value each.
#[derive(Debug, Clone)]
struct NetworkMap<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for NetworkMap<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> NetworkMap<T> {
    fn insert(&mut self, network: IpNet, value: T) -> Option<T> {
        match network {
            IpNet::V4(net) => self.v4.insert(net, value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    fn remove(&mut self, network: IpNet) -> Option<T> {
        match network {
            IpNet::V4(net) => self.v4.remove(&net),
            IpNet::V6(net) => self.v6.remove(&net),
        }
    }

    /// The most specific network around `address` whose value fits. A specific one that does not fit, such as a
    /// block that has run out, must not hide a wider one that does.
    fn find(&self, address: IpAddr, fits: impl Fn(&T) -> bool) -> Option<&T> {
        match canonical(address) {
            IpAddr::V4(v4) => self.v4.cover_values(&Ipv4Net::from(v4)).filter(|value| fits(value)).last(),
            IpAddr::V6(v6) => self.v6.cover_values(&Ipv6Net::from(v6)).filter(|value| fits(value)).last(),
        }
    }

    /// Whether any network holds the address: one walk down the trie, without the list that [`Self::find`] makes.
    fn holds(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(v4) => self.v4.get_lpm(&Ipv4Net::from(v4)).is_some(),
            IpAddr::V6(v6) => self.v6.get_lpm(&Ipv6Net::from(v6)).is_some(),
        }
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.v4.values().chain(self.v6.values())
    }

    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

type Blocks = NetworkMap<Arc<BlockEntry>>;

/// The three lists of SPEC §5.2 and §5.3.
#[derive(Debug, Default)]
pub struct AddressLists {
    blocks: ArcSwap<Blocks>,
    allow: ArcSwap<NetworkMap<()>>,
    trusted: ArcSwap<NetworkMap<()>>,
    /// Held by writers only, so that two changes never lose one another.
    writing: Mutex<()>,
}

impl AddressLists {
    /// Decides on an address.
    pub fn decide(&self, address: IpAddr, now: UnixMillis) -> AddressVerdict {
        let allow = self.allow.load();
        if !allow.is_empty() && !allow.holds(address) {
            return AddressVerdict::NotAllowed;
        }
        let blocks = self.blocks.load();
        if blocks.is_empty() {
            return AddressVerdict::Allowed;
        }
        match blocks.find(address, |entry| in_force(entry, now)) {
            Some(entry) => AddressVerdict::Blocked(entry.clone()),
            None => AddressVerdict::Allowed,
        }
    }

    /// Whether the address is trusted.
    pub fn trusted(&self, address: IpAddr) -> bool {
        self.trusted.load().holds(address)
    }

    /// Replaces all blocks.
    pub fn load_blocks(&self, entries: Vec<BlockEntry>) {
        let mut blocks = Blocks::default();
        for entry in entries {
            blocks.insert(entry.network, Arc::new(entry));
        }
        let _writing = self.write_lock();
        self.blocks.store(Arc::new(blocks));
    }

    /// Adds or replaces one block.
    pub fn put_block(&self, entry: BlockEntry) {
        let entry = Arc::new(entry);
        self.change_blocks(|blocks| blocks.insert(entry.network, entry));
    }

    /// Lifts one block.
    pub fn remove_block(&self, network: IpNet) -> Option<Arc<BlockEntry>> {
        self.change_blocks(|blocks| blocks.remove(network))
    }

    /// Lifts all blocks.
    pub fn clear_blocks(&self) -> Vec<Arc<BlockEntry>> {
        self.change_blocks(std::mem::take).values().cloned().collect()
    }

    /// A page, newest first.
    pub fn page(&self, offset: u32, limit: u32, now: UnixMillis) -> BlockPage {
        let blocks = self.blocks.load();
        let mut entries: Vec<_> = blocks.values().filter(|entry| in_force(entry, now)).collect();
        entries.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.network.cmp(&b.network)));
        BlockPage {
            total: entries.len() as u64,
            entries: entries
                .into_iter()
                .skip(offset as usize)
                .take(limit as usize)
                .map(|entry| BlockEntry::clone(entry))
                .collect(),
        }
    }

    /// Replaces the allow list or the trusted list.
    pub fn load_networks(&self, list: NetworkList, networks: &[ListedNetwork]) {
        let mut map = NetworkMap::default();
        for entry in networks {
            map.insert(entry.network, ());
        }
        match list {
            NetworkList::Allow => self.allow.store(Arc::new(map)),
            NetworkList::Trusted => self.trusted.store(Arc::new(map)),
        }
    }

    /// Drops blocks that have run out.
    pub fn expire(&self, now: UnixMillis) -> (Vec<Arc<BlockEntry>>, Option<UnixMillis>) {
        let over: Vec<_> =
            self.blocks.load().values().filter(|entry| !in_force(entry, now)).map(|entry| entry.network).collect();
        let mut lifted = Vec::with_capacity(over.len());
        if !over.is_empty() {
            self.change_blocks(|blocks| {
                lifted.clear();
                for network in &over {
                    // Between look and change it may have been renewed.
                    let still_over = match network {
                        IpNet::V4(net) => blocks.v4.get(net),
                        IpNet::V6(net) => blocks.v6.get(net),
                    }
                    .is_some_and(|entry| !in_force(entry, now));
                    if still_over {
                        lifted.extend(blocks.remove(*network));
                    }
                }
            });
        }
        let next = self.blocks.load().values().filter_map(|entry| entry.expires).min();
        (lifted, next)
    }

    fn change_blocks<R>(&self, change: impl FnOnce(&mut Blocks) -> R) -> R {
        let _writing = self.write_lock();
        let mut blocks = Blocks::clone(&self.blocks.load());
        let result = change(&mut blocks);
        self.blocks.store(Arc::new(blocks));
        result
    }

    fn write_lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_force(entry: &BlockEntry, now: UnixMillis) -> bool {
    entry.expires.is_none_or(|expires| expires > now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::BlockSource;

    fn block(network: &str, expires: Option<i64>) -> BlockEntry {
        BlockEntry {
            network: network.parse().expect("network"),
            reason: "test".into(),
            source: BlockSource::Manual,
            failures: 0,
            created: UnixMillis(0),
            expires: expires.map(UnixMillis),
        }
    }

    fn listed(network: &str) -> ListedNetwork {
        ListedNetwork { network: network.parse().expect("network"), note: String::new(), created: UnixMillis(0) }
    }

    fn blocked(lists: &AddressLists, address: &str, now: i64) -> bool {
        matches!(lists.decide(address.parse().expect("address"), UnixMillis(now)), AddressVerdict::Blocked(_))
    }

    #[test]
    fn a_block_holds_until_its_time_and_not_longer() {
        let lists = AddressLists::default();
        lists.put_block(block("192.0.2.7/32", Some(1000)));
        assert!(blocked(&lists, "192.0.2.7", 999));
        assert!(blocked(&lists, "::ffff:192.0.2.7", 999), "mapped addresses are the same client");
        assert!(!blocked(&lists, "192.0.2.7", 1000));
        assert!(!blocked(&lists, "192.0.2.8", 0));
    }

    #[test]
    fn a_block_that_has_run_out_does_not_hide_a_wider_one() {
        let lists = AddressLists::default();
        lists.put_block(block("10.0.0.0/8", None));
        lists.put_block(block("10.1.0.0/16", Some(10)));
        assert!(blocked(&lists, "10.1.2.3", 20));
        let (lifted, next) = lists.expire(UnixMillis(20));
        assert_eq!(lifted.len(), 1);
        assert_eq!(next, None);
        assert_eq!(lists.page(0, 10, UnixMillis(20)).total, 1);
    }

    #[test]
    fn an_allow_list_keeps_everyone_else_out_and_an_empty_one_nobody() {
        let lists = AddressLists::default();
        let at = |lists: &AddressLists, text: &str| lists.decide(text.parse().expect("address"), UnixMillis(0));
        assert_eq!(at(&lists, "203.0.113.9"), AddressVerdict::Allowed);
        lists.load_networks(NetworkList::Allow, &[listed("192.168.0.0/16"), listed("::1/128")]);
        assert_eq!(at(&lists, "203.0.113.9"), AddressVerdict::NotAllowed);
        assert_eq!(at(&lists, "192.168.4.5"), AddressVerdict::Allowed);
        assert_eq!(at(&lists, "::1"), AddressVerdict::Allowed);
    }

    #[test]
    fn trust_is_by_network() {
        let lists = AddressLists::default();
        lists.load_networks(NetworkList::Trusted, &[listed("127.0.0.1/32")]);
        assert!(lists.trusted("127.0.0.1".parse().expect("address")));
        assert!(!lists.trusted("127.0.0.2".parse().expect("address")));
    }

    #[test]
    fn clearing_answers_what_was_lifted() {
        let lists = AddressLists::default();
        lists.load_blocks(vec![block("192.0.2.1/32", None), block("2001:db8::/32", None)]);
        assert_eq!(lists.clear_blocks().len(), 2);
        assert_eq!(lists.page(0, 10, UnixMillis(0)).total, 0);
    }
}
