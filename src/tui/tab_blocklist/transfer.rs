//! The block list as a file: one network a line, a reason behind `#`. What was exported can be imported, and so can the lists
//! that others publish.

use std::time::Duration;

use ipnet::IpNet;

use crate::tui::effect::{Effect, Ticket};
use crate::tui::overlays::Overlay;
use crate::tui::state::State;
use crate::types::address::{BlockEntry, parse_network};
use crate::types::calls::addresses::{BlockPage, ImportBlocks, ListBlocks};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

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
        state.write(&export.path, written(&export.read));
    } else {
        let offset = u32::try_from(have).unwrap_or(u32::MAX);
        export.ticket = state.call(ListBlocks { offset, limit: PAGE });
        state.blocklist.exporting = Some(export);
    }
    None
}

fn written(entries: &[BlockEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&entry.network.to_string());
        if !entry.reason.is_empty() {
            text.push_str("  # ");
            text.push_str(&escape(&entry.reason));
        }
        text.push('\n');
    }
    text
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
    let parsed = outcome.and_then(|text| networks(&text));
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

/// The networks of a text, each with its reason.
fn networks(text: &str) -> Outcome<Vec<(IpNet, String)>> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (network, reason) = line.split_once('#').unwrap_or((line, ""));
        let network = network.trim();
        if network.is_empty() {
            continue;
        }
        let network = parse_network(network).map_err(|error| {
            Failure::new(ErrorCode::InvalidArgument, format!("line {number}: {error}"))
                .hint("write one address or CIDR block in a line, and what is no network behind #")
        })?;
        found.push((network, reason.trim().to_owned()));
    }
    if found.is_empty() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "there is no network in the file"));
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::BlockSource;
    use crate::types::clock::UnixMillis;

    #[test]
    fn what_was_exported_is_imported_again_and_a_wrong_line_is_named() {
        let entry = |network: &str, reason: &str| BlockEntry {
            network: parse_network(network).expect("parses"),
            reason: reason.to_owned(),
            source: BlockSource::Manual,
            failures: 0,
            created: UnixMillis(0),
            expires: None,
        };
        let entries =
            [entry("203.0.113.7", "5 wrong keys"), entry("2001:db8::/32", ""), entry("198.51.100.0/24", "a\nb")];
        let text = written(&entries);
        let back = networks(&text).expect("reads");
        let wanted: Vec<_> = entries.iter().map(|entry| (entry.network, escape(&entry.reason).into_owned())).collect();
        assert_eq!(back, wanted);
        assert_eq!(networks("# a list\n\n10.0.0.1 # x # y\n").expect("reads").len(), 1);
        let failure = networks("10.0.0.1\nnowhere\n").expect_err("a wrong line");
        assert!(failure.message.starts_with("line 2: "), "{}", failure.message);
        assert!(networks("# nothing\n").is_err());
    }
}
