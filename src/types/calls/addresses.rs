//! Operations on the block list, the allow list and the trusted list (SPEC §2 `flm security ip-…`, §5.2).

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::call;
use crate::types::address::{BlockEntry, ListedNetwork};

/// Lists blocks, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListBlocks {
    /// How many to skip.
    pub offset: u32,
    /// How many to answer, at most 1000.
    pub limit: u32,
}
call!(ListBlocks, "blocklist/list", Reads, BlockPage);

/// A page of the block list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BlockPage {
    /// Entries in force.
    pub total: u64,
    /// This page.
    pub entries: Vec<BlockEntry>,
}

/// Blocks an address or a CIDR block; replaces an entry for the same network. Refuses one that would block
/// loopback.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddBlock {
    /// What to block.
    pub network: IpNet,
    /// How long; `None` is until lifted by hand.
    pub duration: Option<Duration>,
    /// Why, for people; may be empty.
    pub reason: String,
}
call!(AddBlock, "blocklist/add", Changes, BlockEntry);

/// Blocks many networks at once, as those of a published list; in force when this returns. Answers how many; a network that
/// is blocked already stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportBlocks {
    /// What to block, with a reason for people, which may be empty; at most [`ImportBlocks::MOST`].
    pub networks: Vec<(IpNet, String)>,
    /// How long; `None` is until lifted by hand.
    pub duration: Option<Duration>,
}
call!(ImportBlocks, "blocklist/import", Changes, u64);

impl ImportBlocks {
    /// Most networks of one import.
    pub const MOST: usize = 100_000;
}

/// Lifts one block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveBlock {
    /// Exactly the network of the entry.
    pub network: IpNet,
}
call!(RemoveBlock, "blocklist/remove", Changes, BlockEntry);

/// Lifts all blocks and answers how many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClearBlocks {}
call!(ClearBlocks, "blocklist/clear", Destroys, u64);

/// Which list of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkList {
    /// Who may connect at all; empty means everyone.
    Allow,
    /// Who is never blocked automatically.
    Trusted,
}

/// Lists the allow list or the trusted list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListNetworks {
    /// Which.
    pub list: NetworkList,
}
call!(ListNetworks, "networks/list", Reads, Vec<ListedNetwork>);

/// Adds to the allow list or the trusted list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddNetwork {
    /// Which.
    pub list: NetworkList,
    /// What to add.
    pub network: IpNet,
    /// A note; may be empty.
    pub note: String,
}
call!(AddNetwork, "networks/add", Changes, ListedNetwork);

/// Removes from the allow list or the trusted list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveNetwork {
    /// Which.
    pub list: NetworkList,
    /// What to remove.
    pub network: IpNet,
}
call!(RemoveNetwork, "networks/remove", Destroys, ());
