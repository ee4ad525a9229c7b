//! Watches `flm.toml` and has it read again when it changed (SPEC §1.4, §4.9).
//!
//! It asks for the file's stamp once a second instead of listening for events of the file system: an editor that
//! replaces the file, a link that is turned to another file (as container platforms do with mounted settings) and a
//! network file system are all seen the same way, and one question a second costs nothing that could be measured
//! ([ADR 7](../../docs/adr/0007-settings-file-is-asked-for.md)). A file that is still being written is left alone until
//! two looks in a row find the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::files::{self, Stamp};
use crate::operations::context::Context;
use crate::operations::reload::reload_file;
use crate::types::failure::ErrorCode;

/// How often the stamp is asked for: a saved file is in force within two of these.
const PERIOD: Duration = Duration::from_secs(1);

/// What a look found: a stamp, nothing, or that it cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    There(Stamp),
    Absent,
    Barred(String),
}

/// Watches until the owner ends.
pub(super) async fn watch(context: Arc<Context>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    // What was read last; nothing yet, so that a change during the start is not missed.
    let mut read = None;
    loop {
        ticks.tick().await;
        let path = context.paths.config_file();
        // Off the runtime: a network file system may keep it waiting.
        let Ok(looked) = tokio::task::spawn_blocking(move || look(&path)).await else { continue };
        let settled = last.as_ref() == Some(&looked);
        if settled && read.as_ref() != Some(&looked) {
            read = Some(looked.clone());
            // A refused file is told where that is decided, and not read again before it changes.
            if let Err(failure) = reload_file(&context).await
                && failure.code == ErrorCode::ReadOnly
            {
                tracing::warn!(%failure, "flm.toml changed and cannot be read again");
            }
        }
        last = Some(looked);
    }
}

fn look(path: &std::path::Path) -> Look {
    match files::stamp(path) {
        Ok(Some(stamp)) => Look::There(stamp),
        Ok(None) => Look::Absent,
        Err(error) => Look::Barred(error.to_string()),
    }
}
