//! Watches the folder of the person's own themes: a saved theme is in force a moment later (SPEC §9.10).
//!
//! Started by `tui::run`. Asks for the files' stamps once a second, as the owner does with `flm.toml`
//! ([ADR 7](../../docs/adr/0007-settings-file-is-asked-for.md)); a file that is still being written is left alone until two
//! looks in a row find the same. Must never touch the state: what it reads arrives as an action.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::files::{self, Stamp};
use crate::tui::action::Action;

/// How often the stamps are asked for.
const PERIOD: Duration = Duration::from_secs(1);
/// Largest theme that is read: a theme has a few hundred bytes.
const LARGEST: u64 = 256 * 1024;

/// The person's own themes by name. A file that cannot be read is no theme: asking for it says that there is none.
pub(super) fn read(folder: &Path) -> BTreeMap<String, String> {
    let text = |path: PathBuf| String::from_utf8(files::read_limited(&path, LARGEST).ok()?).ok();
    look(folder)
        .into_keys()
        .filter_map(|name| Some((name.clone(), text(folder.join(format!("{name}.toml")))?)))
        .collect()
}

fn look(folder: &Path) -> BTreeMap<String, Stamp> {
    // A folder that is not there or may not be read holds no themes.
    let names = files::names(folder).unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| {
            let stamp = files::stamp(&folder.join(&name)).ok()??;
            Some((name.strip_suffix(".toml")?.to_owned(), stamp))
        })
        .collect()
}

/// Watches until the console ends.
pub(super) async fn watch(folder: PathBuf, actions: mpsc::Sender<Action>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut known) = (None, None);
    loop {
        ticks.tick().await;
        let place = folder.clone();
        // The disk may be slow, and the loop waits for nothing but its terminal.
        let Ok(looked) = tokio::task::spawn_blocking(move || look(&place)).await else { continue };
        let settled = last.as_ref() == Some(&looked);
        let before = known.get_or_insert_with(|| looked.clone());
        if settled && *before != looked {
            *before = looked.clone();
            let place = folder.clone();
            let Ok(themes) = tokio::task::spawn_blocking(move || read(&place)).await else { continue };
            if actions.send(Action::Themes(themes)).await.is_err() {
                return;
            }
        }
        last = Some(looked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::{Audience, replace};

    #[test]
    fn only_files_that_end_in_toml_are_themes() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("mine.toml", "[roles]\n"), ("notes.txt", "x")] {
            replace(&folder.path().join(name), text.as_bytes(), Audience::Owner).expect("writes");
        }
        assert_eq!(read(folder.path()), BTreeMap::from([("mine".to_owned(), "[roles]\n".to_owned())]));
        assert!(read(&folder.path().join("nowhere")).is_empty());
    }

    #[tokio::test]
    async fn a_saved_theme_arrives_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mine.toml");
        replace(&file, b"[roles]\n", Audience::Owner).expect("writes");
        let (sender, mut actions) = mpsc::channel(1);
        let watching = watch(folder.path().to_owned(), sender);
        let saving = async {
            // Not before it has looked: what was there at the start is known already.
            tokio::time::sleep(PERIOD + PERIOD / 2).await;
            replace(&file, b"title = \"Mine\"\n[roles]\n", Audience::Owner).expect("writes");
            actions.recv().await
        };
        let arrived = tokio::select! {
            () = watching => None,
            arrived = tokio::time::timeout(Duration::from_secs(30), saving) => arrived.expect("in time"),
        };
        let Some(Action::Themes(themes)) = arrived else { panic!("{arrived:?}") };
        assert!(themes["mine"].starts_with("title"));
    }
}
