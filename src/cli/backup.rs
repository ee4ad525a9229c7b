//! `flm security backup`, `rekey` and `lock-status`: copies of the databases, and the key of the encrypted one.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::output::{Output, ProgressLine};
use super::prompt;
use super::session::{Session, unlocked};
use super::table::{Table, facts, or_dash, time};
use crate::control::Operator;
use crate::control::offline::{self, interruptible};
use crate::types::calls::Permission;
use crate::types::calls::backup::{
    BackupListing, BackupProgress, BackupView, CreateBackup, ListBackups, LockState, LockStatus, NewKey, Rekeyed,
    Restoration, RestoredBackup, ShowLock,
};
use crate::types::failure::Outcome;
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Copy both databases as they are now, while the proxy serves
    #[command(
        after_help = "Examples:\n  flm security backup create\n  flm security backup create --output /mnt/usb --with-key"
    )]
    Create {
        /// Folder that gets the backup [default: the home's own, which keeps the newest three]
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Put the key of security.db in, sealed under a passphrase that is asked for
        #[arg(long)]
        with_key: bool,
    },
    /// List the backups that the home keeps, newest first
    #[command(after_help = "Example:\n  flm security backup list")]
    List,
    /// Put a backup in the place of the databases; what it replaces is kept
    #[command(
        after_help = "Example:\n  flm proxy stop --all\n  flm security backup restore --file ~/.local/share/flm/backups/flm-20260131-031500Z-daily"
    )]
    Restore {
        /// The backup's folder
        #[arg(long, value_name = "F")]
        file: PathBuf,
        /// The key file that it was made under, when this home has another key
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

/// Where a new key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RekeyTo {
    /// A random key in a file of the home: the proxy starts by itself.
    KeyFile,
    /// A passphrase that is typed at every start.
    Passphrase,
}

impl BackupCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Create { output, with_key } => create(session, output, with_key).await,
            Self::List => {
                // Without an owner the databases stay shut: one that is damaged is what a backup is looked for.
                let paths = &session.home.paths;
                let listing = match Operator::attach(paths, Permission::ReadOnly).await? {
                    Some(operator) => operator.call(ListBackups {}).await?,
                    None => offline::backups(paths).await?,
                };
                Ok(Output::new(&listing, listed(&listing)))
            }
            Self::Restore { file, key_file } => restore(session, file, key_file).await,
        }
    }
}

async fn create(session: &Session, output: Option<PathBuf>, with_key: bool) -> Outcome<Output> {
    let folder = output.map(|path| std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned());
    let passphrase = with_key.then(|| prompt::new_passphrase("Passphrase that seals the key: ")).transpose()?;
    let mut line = ProgressLine::new(session.format);
    let made =
        session.follow(CreateBackup { folder, passphrase }, |progress| show(session, &mut line, &progress)).await;
    line.end();
    let view = made?;
    let key = &view.manifest.key;
    let output = Output::new(&view, described(&view));
    Ok(match (&key.sealed, &key.passphrase) {
        (Some(_), _) => output.note("the key is in it, sealed: keep the passphrase, nobody can open it without"),
        (None, Some(_)) => output.note("it opens with the passphrase of this home, also elsewhere"),
        (None, None) => output.note(
            "the key is not in it: without a copy of the key file it cannot be restored elsewhere (--with-key seals the key in)",
        ),
    })
}

async fn restore(session: &Session, file: PathBuf, key_file: Option<PathBuf>) -> Outcome<Output> {
    let home = &session.home;
    offline::refuse_owned(&home.paths).await?;
    let mut restoration =
        Restoration { backup: std::path::absolute(&file).unwrap_or(file), key_file, ..Restoration::default() };
    if offline::backup_passphrase_wanted(&home.paths, &restoration)? {
        restoration.backup_passphrase = Some(prompt::passphrase("Passphrase of the backup: ")?);
    }
    restoration.passphrase = unlocked(home).await?.passphrase;
    let mut line = ProgressLine::new(session.format);
    let restored =
        interruptible(|tell| offline::restore(home, restoration, tell), |progress| show(session, &mut line, &progress))
            .await;
    line.end();
    let restored = restored?;
    Ok(Output::new(&restored, replaced(&restored)).note("start the proxy again with: flm proxy start"))
}

/// Changes the key of `security.db`.
pub(super) async fn rekey(session: &Session, to: Option<RekeyTo>) -> Outcome<Output> {
    let home = &session.home;
    let uses_passphrase = offline::passphrase_wanted(&home.paths)?;
    let to = to.unwrap_or(if uses_passphrase { RekeyTo::Passphrase } else { RekeyTo::KeyFile });
    offline::may_rekey(&home.paths, to == RekeyTo::Passphrase).await?;
    let passphrase = unlocked(home).await?.passphrase;
    let new = match to {
        RekeyTo::KeyFile => NewKey::KeyFile,
        RekeyTo::Passphrase => NewKey::Passphrase(prompt::new_passphrase("New passphrase of this home: ")?),
    };
    let mut line = ProgressLine::new(session.format);
    let rekeyed = interruptible(
        |tell| offline::rekey(home, new, passphrase, tell),
        |progress| show(session, &mut line, &progress),
    )
    .await;
    line.end();
    let rekeyed = rekeyed?;
    Ok(Output::new(&rekeyed, changed(&rekeyed)).note("start the proxy again with: flm proxy start"))
}

/// Tells where the key comes from and whether the database is open.
pub(super) async fn lock_status(session: &Session) -> Outcome<Output> {
    let status = match Operator::attach(&session.home.paths, Permission::ReadOnly).await? {
        Some(operator) => operator.call(ShowLock {}).await?,
        None => offline::lock_status(&session.home.paths).await?,
    };
    Ok(Output::new(&status, locked(&status)))
}

fn show(session: &Session, line: &mut ProgressLine, progress: &BackupProgress) {
    if !session.tells_progress() {
        return;
    }
    let stage = progress.stage.to_string();
    let percent = (progress.done * 100).checked_div(progress.total).unwrap_or(0);
    line.show(progress, &stage, &format!("{stage} {percent} %"));
}

fn described(view: &BackupView) -> String {
    let manifest = &view.manifest;
    facts([
        ("backup", view.path.clone()),
        ("made", time(manifest.made)),
        ("config.db", database(manifest.config.schema, manifest.config.bytes)),
        ("security.db", database(manifest.security.schema, manifest.security.bytes)),
        ("audit log", format!("{} rows", manifest.audit_rows)),
        ("key", manifest.key.fingerprint.clone()),
    ])
}

fn database(schema: u32, bytes: u64) -> String {
    format!("schema version {schema}, {}", kilobytes(bytes))
}

fn kilobytes(bytes: u64) -> String {
    format!("{} KB", bytes.div_ceil(1024))
}

fn listed(listing: &BackupListing) -> String {
    let mut table = Table::new(&["MADE", "WHY", "FLM", "SIZE", "KEY", "FOLDER"]);
    for BackupView { path, manifest, opens } in &listing.backups {
        let key = match (opens, &manifest.key.sealed, &manifest.key.passphrase) {
            (true, ..) => "this home's",
            (false, Some(_), _) => "sealed in it",
            (false, None, Some(_)) => "a passphrase",
            (false, None, None) => "another",
        };
        table.row([
            time(manifest.made),
            manifest.reason.to_string(),
            manifest.flm.clone(),
            kilobytes(manifest.config.bytes + manifest.security.bytes),
            key.to_owned(),
            path.clone(),
        ]);
    }
    let mut text = table.or("no backups: make one with 'flm security backup create'");
    for (path, why) in &listing.unreadable {
        text.push_str(&format!("\n{} cannot be read: {}", escape(path), escape(why)));
    }
    text
}

fn replaced(restored: &RestoredBackup) -> String {
    let mut lines = vec![format!("restored {} of {}", escape(&restored.path), time(restored.manifest.made))];
    if let Some(kept) = &restored.kept {
        lines.push(format!("what it replaced is kept in {}", escape(kept)));
    }
    if restored.rekeyed {
        lines.push("security.db is under the key of this home now".to_owned());
    }
    if restored.revoked > 0 {
        lines.push(format!("{} keys that were revoked since stay revoked", restored.revoked));
    }
    if !restored.replaced_readable {
        lines.push(
            "the replaced security.db could not be read: keys that were revoked since the backup work again; see flm api-keys list"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn changed(rekeyed: &Rekeyed) -> String {
    let mut lines = vec![
        format!("security.db is under a new key ({}), from: {}", rekeyed.fingerprint, rekeyed.source),
        match &rekeyed.backup {
            Some(backup) => format!("backup under it: {}", escape(backup)),
            None => "no backup could be made under it: free some space, then flm security backup create".to_owned(),
        },
    ];
    if !rekeyed.old_backups.is_empty() {
        lines.push("these backups open with the old key only:".to_owned());
        lines.extend(rekeyed.old_backups.iter().map(|path| format!("  {}", escape(path))));
    }
    if let Some(old) = &rekeyed.old_key {
        lines.push(format!("the old key is kept in {}: remove it together with those backups", escape(old)));
    }
    lines.join("\n")
}

fn locked(status: &LockStatus) -> String {
    let state = match &status.state {
        LockState::Open { pid } => format!("open, by process {pid}"),
        LockState::Ready => "closed; its key opens it".to_owned(),
        LockState::Locked => "locked; its passphrase is asked for at start".to_owned(),
        LockState::Absent => "not made yet".to_owned(),
        LockState::Failing { reason } => format!("cannot be opened: {reason}"),
    };
    let mut text = facts([
        ("database", status.database.clone()),
        ("state", state),
        ("key", status.source.to_string()),
        ("key file", status.key_file.clone()),
        ("fingerprint", or_dash(status.fingerprint.clone())),
        ("changes", status.read_only.clone().map_or_else(|| "allowed".to_owned(), |why| format!("refused: {why}"))),
    ]);
    if status.change_pending {
        text.push_str("\na change of the key was broken off; the next start brings it to an end");
    }
    let mut table = Table::new(&["MODE", "FILE", ""]);
    for file in &status.files {
        table.row([file.mode.clone(), file.path.clone(), file.fault.clone().unwrap_or_default()]);
    }
    text.push_str("\n\n");
    text.push_str(&table.or("no files yet"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::calls::backup::KeySource;

    #[test]
    fn a_database_that_cannot_be_opened_says_why() {
        let status = LockStatus {
            database: "/home/u/security.db".into(),
            source: KeySource::KeyFile,
            key_file: "/home/u/keys/security.key".into(),
            fingerprint: None,
            state: LockState::Failing { reason: "its key file does not exist".into() },
            read_only: None,
            change_pending: true,
            files: Vec::new(),
        };
        let text = locked(&status);
        assert!(text.contains("cannot be opened: its key file does not exist"), "{text}");
        assert!(text.contains("the next start brings it to an end"), "{text}");
    }
}
