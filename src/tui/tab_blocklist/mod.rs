//! The Blocklist tab: blocked addresses with their countdown, the allow list and the trusted list.

use ipnet::IpNet;

use crate::tui::action::{Command, Context};
use crate::tui::geometry::ListId;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::{Detail, State};
use crate::tui::tabs::Tab;
use crate::tui::widgets::cursor::Cursor;
use crate::types::address::{BlockEntry, ListedNetwork, short};
use crate::types::calls::addresses::{AddBlock, ClearBlocks, NetworkList, RemoveBlock, RemoveNetwork};

pub mod transfer;
pub mod view;

/// Which list the tab shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Blocked addresses.
    #[default]
    Blocked,
    /// One of the lists of networks.
    Networks(NetworkList),
}

impl View {
    /// All of them in their order.
    pub const ALL: [Self; 3] =
        [Self::Blocked, Self::Networks(NetworkList::Allow), Self::Networks(NetworkList::Trusted)];

    /// The key of its name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Blocked => "blocklist.blocked",
            Self::Networks(NetworkList::Allow) => "blocklist.allowed",
            Self::Networks(NetworkList::Trusted) => "blocklist.trusted",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).unwrap_or(0)
    }
}

/// What the tab remembers.
#[derive(Debug, Default)]
pub struct BlocklistTab {
    /// Which list is in front.
    pub view: View,
    blocks: Cursor<IpNet>,
    networks: Cursor<IpNet>,
    /// The list on its way into a file.
    exporting: Option<transfer::Export>,
    /// A file on its way into the list.
    importing: Option<transfer::Import>,
}

impl BlocklistTab {
    /// Whether a countdown is in view.
    #[must_use]
    pub fn counts_down(&self, state: &State) -> bool {
        if self.view != View::Blocked {
            return false;
        }
        let list = state.geometry.lists.get(&ListId::Blocks).copied().unwrap_or_default();
        block_rows(state).iter().skip(list.offset).take(list.page.max(1)).any(|entry| entry.expires.is_some())
    }
}

/// The contexts of the tab's keys.
#[must_use]
pub fn contexts(state: &State) -> Vec<Context> {
    match state.blocklist.view {
        View::Blocked => vec![Context::Blocks, Context::Lists],
        View::Networks(_) => vec![Context::Networks, Context::Lists],
    }
}

fn wanted(state: &State) -> String {
    state.filters[Tab::Blocklist as usize].input.text().trim().to_lowercase()
}

/// The blocks in force that the filter lets through; what has run out is gone at once, whatever the last reading
/// says.
#[must_use]
pub fn block_rows(state: &State) -> Vec<&BlockEntry> {
    let wanted = wanted(state);
    let fits = |entry: &&BlockEntry| {
        entry.expires.is_none_or(|expires| expires > state.now)
            && (wanted.is_empty()
                || entry.network.to_string().contains(&wanted)
                || entry.reason.to_lowercase().contains(&wanted))
    };
    state.world.blocks.value.iter().flatten().filter(fits).collect()
}

/// The networks of a list that the filter lets through.
#[must_use]
pub fn network_rows(state: &State, list: NetworkList) -> Vec<&ListedNetwork> {
    let wanted = wanted(state);
    let fits = |entry: &&ListedNetwork| {
        wanted.is_empty() || entry.network.to_string().contains(&wanted) || entry.note.to_lowercase().contains(&wanted)
    };
    state.world.networks(list).value.iter().flatten().filter(fits).collect()
}

fn block_key(entry: &BlockEntry) -> IpNet {
    entry.network
}

fn network_key(entry: &ListedNetwork) -> IpNet {
    entry.network
}

/// The selected block.
#[must_use]
pub fn selected_block(state: &State, rows: &[&BlockEntry]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.blocklist.blocks.place(rows, block_key))
}

/// The selected network.
#[must_use]
pub fn selected_network(state: &State, rows: &[&ListedNetwork]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.blocklist.networks.place(rows, network_key))
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    match state.blocklist.view {
        View::Blocked => {
            let mut cursor = state.blocklist.blocks.clone();
            cursor.select(row, &block_rows(state), block_key);
            state.blocklist.blocks = cursor;
        }
        View::Networks(list) => {
            let mut cursor = state.blocklist.networks.clone();
            cursor.select(row, &network_rows(state, list), network_key);
            state.blocklist.networks = cursor;
        }
    }
}

/// Shows a list by its place.
pub fn show_view(state: &mut State, view: usize) {
    state.blocklist.view = View::ALL[view % View::ALL.len()];
    state.blocklist.networks.top();
    state.detail = Detail::Closed;
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::NextList | Command::Right => show_view(state, state.blocklist.view.place() + 1),
        Command::PreviousList | Command::Left => show_view(state, state.blocklist.view.place() + View::ALL.len() - 1),
        Command::AddBlock => overlays::open(state, Overlay::Form(forms::block(None, ""))),
        Command::AddNetwork => {
            if let View::Networks(list) = state.blocklist.view {
                overlays::open(state, Overlay::Form(forms::network(list)));
            }
        }
        Command::Unblock => {
            if let Some(network) = selected_network_of_block(state) {
                overlays::open(state, Overlay::Confirm(unblock(state, network)));
            }
        }
        Command::ImportBlocks => overlays::open(state, Overlay::Form(forms::import_blocks())),
        Command::ExportBlocks if state.world.blocks_total == 0 => {
            state.toast(Level::Info, state.words.say("blocklist.nothing").into_owned());
        }
        Command::ExportBlocks => {
            let form = forms::export_blocks(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::MakePermanent => {
            let rows = block_rows(state);
            let entry = selected_block(state, &rows).map(|at| rows[at]).filter(|entry| entry.expires.is_some());
            if let Some((network, reason)) = entry.map(|entry| (entry.network, entry.reason.clone())) {
                state.call(AddBlock { network, duration: None, reason });
            }
        }
        Command::ClearBlocks => {
            if state.world.blocks_total > 0 {
                let count = state.world.blocks_total.to_string();
                let body = state.words.fill("blocklist.clear_body", &[("count", &count)]);
                let then = Then::call(ClearBlocks {});
                let confirm = Confirm::new("blocklist.clear_title", body, "button.clear", then).typed("clear");
                overlays::open(state, Overlay::Confirm(confirm));
            } else {
                state.toast(Level::Info, state.words.say("blocklist.nothing").into_owned());
            }
        }
        Command::RemoveNetwork => ask_to_remove(state),
        Command::Copy => copy(state),
        Command::Open => {}
        _ => step(state, command),
    }
}

/// Asks whether a block is to be lifted.
#[must_use]
pub fn unblock(state: &State, network: IpNet) -> Confirm {
    let body = state.words.fill("blocklist.unblock_body", &[("network", &short(network))]);
    Confirm::new("blocklist.unblock_title", body, "button.unblock", Then::call(RemoveBlock { network }))
}

fn selected_network_of_block(state: &State) -> Option<IpNet> {
    let rows = block_rows(state);
    selected_block(state, &rows).map(|at| rows[at].network)
}

fn ask_to_remove(state: &mut State) {
    let View::Networks(list) = state.blocklist.view else { return };
    let rows = network_rows(state, list);
    let Some(network) = selected_network(state, &rows).map(|at| rows[at].network) else { return };
    let last_allowed =
        list == NetworkList::Allow && state.world.allowed.value.as_ref().is_some_and(|all| all.len() == 1);
    let body = if last_allowed { "blocklist.remove_last_body" } else { "blocklist.remove_body" };
    let body = state.words.fill(body, &[("network", &short(network))]);
    let then = Then::call(RemoveNetwork { list, network });
    overlays::open(state, Overlay::Confirm(Confirm::new("blocklist.remove_title", body, "button.remove", then)));
}

fn copy(state: &mut State) {
    let network = match state.blocklist.view {
        View::Blocked => selected_network_of_block(state),
        View::Networks(list) => {
            let rows = network_rows(state, list);
            selected_network(state, &rows).map(|at| rows[at].network)
        }
    };
    if let Some(network) = network {
        state.copy(short(network), &short(network));
    }
}

fn step(state: &mut State, command: Command) {
    match state.blocklist.view {
        View::Blocked => {
            let page = state.geometry.page(ListId::Blocks);
            let mut cursor = state.blocklist.blocks.clone();
            cursor.step(command, page, &block_rows(state), block_key);
            state.blocklist.blocks = cursor;
        }
        View::Networks(list) => {
            let page = state.geometry.page(ListId::Networks);
            let mut cursor = state.blocklist.networks.clone();
            cursor.step(command, page, &network_rows(state, list), network_key);
            state.blocklist.networks = cursor;
        }
    }
}
