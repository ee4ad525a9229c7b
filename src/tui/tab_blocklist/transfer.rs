//! The block list as a file, from the console: read whole page by page and written, or read and blocked.

use std::time::Duration;

use crate::tui::effect::{Effect, Ticket};
use crate::tui::overlays::Overlay;
use crate::tui::state::State;
use crate::types::address::{BlockEntry, parse_blocks, write_blocks};
use crate::types::calls::addresses::{BlockPage, ImportBlocks, ListBlocks};
use crate::types::failure::Outcome;

/// Blocks of a page while the list is read for a file (SPEC §2 caps a page at 1000).
const PAGE: u32 = 1000;

/// The list on its way into a file.
#[derive(Debug)]
pub struct Export {
    path: String,
    ticket: Ticket,
    read: Vec<BlockEntry>,
}

/// A file on its way into the list.
#[derive(Debug)]
pub struct Import {
    ticket: Ticket,
    duration: Option<Duration>,
}

/// Begins to read the whole list for a file.
pub fn export(state: &mut State, path: String) {
    let ticket = state.call(ListBlocks { offset: 0, limit: PAGE });
    state.blocklist.exporting = Some(Export { path, ticket, read: Vec::new() });
}

/// Takes a page of an export; answers it back when it is for somebody else.
pub fn take_page(state: &mut State, ticket: Ticket, outcome: Outcome<BlockPage>) -> Option<Outcome<BlockPage>> {
    let Some(mut export) = state.blocklist.exporting.take_if(|export| export.ticket == ticket) else {
        return Some(outcome);
    };
    let page = match outcome {
        Ok(page) => page,
        Err(failure) => {
            state.complain(&failure);
            return None;
        }
    };
    let ended = page.entries.is_empty();
    export.read.extend(page.entries);
    let have = u64::try_from(export.read.len()).unwrap_or(u64::MAX);
    if ended || have >= page.total {
        state.write(&export.path, write_blocks(&export.read));
    } else {
        let offset = u32::try_from(have).unwrap_or(u32::MAX);
        export.ticket = state.call(ListBlocks { offset, limit: PAGE });
        state.blocklist.exporting = Some(export);
    }
    None
}

/// Begins to read a file whose networks are to be blocked; answers the call that the form waits for.
pub fn import(state: &mut State, path: &str, duration: Option<Duration>) -> Ticket {
    let ticket = state.read_file(path);
    state.blocklist.importing = Some(Import { ticket, duration });
    ticket
}

/// Takes the file: its networks are blocked, or the form says in which line it is wrong.
pub fn take_file(state: &mut State, ticket: Ticket, outcome: Outcome<String>) {
    state.pending.remove(&ticket);
    let Some(import) = state.blocklist.importing.take_if(|import| import.ticket == ticket) else { return };
    let parsed = outcome.and_then(|text| parse_blocks(&text));
    let next = match parsed {
        Ok(networks) => Ok(state.call(ImportBlocks { networks, duration: import.duration })),
        Err(failure) => Err(failure),
    };
    let form = state.overlays.iter_mut().find_map(|overlay| match overlay {
        Overlay::Form(form) if form.waiting == Some(ticket) => Some(form),
        _ => None,
    });
    match (form, next) {
        (Some(form), Ok(next)) => form.waiting = Some(next),
        (Some(form), Err(failure)) => {
            form.waiting = None;
            form.failure = Some(failure);
        }
        (None, Err(failure)) => state.complain(&failure),
        // The form was closed; the networks are blocked all the same, since the file was asked for.
        (None, Ok(_)) => {}
    }
}

impl State {
    /// Reads a text file, with a spinner; the answer goes to [`take_file`].
    fn read_file(&mut self, path: &str) -> Ticket {
        let ticket = self.begin_file();
        let path = self.export_folder.join(path);
        self.ask(Effect::Read { ticket, path });
        ticket
    }
}
