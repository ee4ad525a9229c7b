//! `flm man`: man pages, made from the same definition as the help.

use std::path::Path;

use super::output::Output;
use crate::config::files::{self, FileError};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// The page of the program, or every page into a folder.
///
/// # Errors
/// `IO_ERROR` when the folder cannot be written.
pub(super) fn pages(command: clap::Command, folder: Option<&Path>) -> Outcome<Output> {
    if let Some(folder) = folder {
        files::make_dir(folder)?;
        clap_mangen::generate_to(command, folder)
            .map_err(|error| FileError::new("write man pages into", folder, error))?;
        let text = format!("man pages are in {}", folder.display());
        return Ok(Output::new(&serde_json::json!({ "folder": folder }), text));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the man page cannot be made: {error}")))?;
    Ok(Output::document(String::from_utf8_lossy(&page).into_owned()))
}
