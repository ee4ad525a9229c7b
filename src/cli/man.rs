//! `flm man`: man pages, made from the same definition as the help.

use std::path::Path;

use clap_mangen::Man;

use super::output::Output;
use crate::config::files::{self, Audience};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// The page of the program, or every page into a folder.
///
/// # Errors
/// `IO_ERROR` when the folder cannot be written.
pub(super) fn pages(command: clap::Command, folder: Option<&Path>) -> Outcome<Output> {
    let Some(folder) = folder else { return Ok(Output::document(page(&Man::new(command))?)) };
    files::make_dir(folder)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write(command, folder)?;
    let text = format!("man pages are in {}", folder.display());
    Ok(Output::new(&serde_json::json!({ "folder": folder }), text))
}

/// Writes the pages of a command and of all below it.
fn write(command: clap::Command, folder: &Path) -> Outcome<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below.clone().disable_help_subcommand(true), folder)?;
    }
    let man = Man::new(command);
    Ok(files::replace(&folder.join(man.get_filename()), page(&man)?.as_bytes(), Audience::Everyone)?)
}

fn page(man: &Man) -> Outcome<String> {
    let mut page = Vec::new();
    man.render(&mut page)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the man page cannot be made: {error}")))?;
    let page = String::from_utf8_lossy(&page);
    // What follows the options are the examples: to be copied, so neither filled nor hyphenated.
    let Some((before, after)) = page.split_once(".SH EXTRA\n") else { return Ok(page.into_owned()) };
    let (examples, rest) = after.split_once(".SH ").map_or((after, String::new()), |(e, r)| (e, format!(".SH {r}")));
    Ok(format!("{before}.SH EXAMPLES\n.nf\n{}\n.fi\n{rest}", examples.trim_end()))
}
