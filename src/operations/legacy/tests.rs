//! The sample of tests/fixtures/legacy moved into homes of all kinds, and killed at every step on the way.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::config::paths::{HomePaths, PathOverrides};
use crate::operations::context::ContextOptions;
use crate::operations::{audit_log, keys};
use crate::types::calls::audit::VerifyAudit;
use crate::types::calls::keys::RevokeKey;
use crate::types::clock::Clock;
use crate::types::ids::KeyId;

/// In 2026: one key of the sample has ended by then.
const NOW: UnixMillis = UnixMillis(1_780_000_000_000);
const CLEAR: &str = "sk-old-4f9a1c7be0d24a6690e1b2c3d4e5f607";

const STEPS: [Step; 8] = [
    Step::Ready,
    Step::Begun,
    Step::Copied,
    Step::CopiesNoted,
    Step::ConfigStored,
    Step::KeysStored,
    Step::Published,
    Step::Finished,
];

fn sample() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/legacy").to_str().expect("text").to_owned()
}

fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("flm-").tempdir_in("/tmp").expect("folder")
}

async fn open(folder: &Path) -> Arc<Context> {
    let overrides = PathOverrides { home: Some(folder.to_owned()), ..PathOverrides::default() };
    let paths = HomePaths::resolve(&overrides).expect("resolves");
    let options = ContextOptions {
        flags: std::collections::BTreeMap::new(),
        variables: Vec::new(),
        clock: Clock::stepped(NOW),
        passphrase: None,
    };
    Arc::new(Context::open(paths, options).await.expect("opens"))
}

async fn apply(context: &Arc<Context>, call: ApplyLegacy) -> Outcome<LegacyReport> {
    super::apply(context, call, Reporter::unheard()).await
}

fn unheard() -> Told {
    Arc::new(|_progress| {})
}

fn confirmed(source: &str) -> ApplyLegacy {
    ApplyLegacy { source: source.to_owned(), tmp: None, confirmation: Confirmation::Given }
}

/// Everything that a migration can change, as text.
async fn state(context: &Context) -> String {
    let (config, security) = (&context.stores.config, &context.stores.security);
    let hashless: Vec<_> = security.keys().await.expect("keys").into_iter().map(|key| key.view).collect();
    format!(
        "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{hashless:#?}",
        config.engines().await.expect("engines"),
        config.aliases().await.expect("aliases"),
        config.profiles().await.expect("profiles"),
        config.prompts().await.expect("prompts"),
        config.settings().await.expect("settings"),
    )
}

fn told(report: &LegacyReport) -> String {
    report.items.iter().map(|item| line(item) + "\n").collect()
}

#[tokio::test]
async fn a_plan_tells_what_becomes_of_everything_and_changes_nothing() {
    let folder = home();
    let context = open(folder.path()).await;
    let before = state(&context).await;
    let report = plan(&context, PlanLegacy { source: sample() }).await.expect("plans");
    assert_eq!(state(&context).await, before);
    assert!(!folder.path().join("legacy").exists());
    assert_eq!(files::names(Path::new(&sample())).expect("lists").len(), 2, "nothing appears beside the old database");
    insta::assert_snapshot!("legacy_plan", told(&report));
    let text = serde_json::to_string(&report).expect("writes");
    for secret in [CLEAR, "must-never-be-shown", "must_never_be_shown", "SealedSealed", "5e884898"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    context.close().await;
}

#[tokio::test]
async fn an_application_copies_first_moves_everything_and_is_done_once() {
    let folder = home();
    let context = open(folder.path()).await;
    let missing = apply(&context, ApplyLegacy { confirmation: Confirmation::Missing, ..confirmed(&sample()) }).await;
    assert!(missing.expect_err("not confirmed").message.contains("nothing was changed"));
    assert!(!folder.path().join("legacy").exists());

    let report = apply(&context, confirmed(&sample())).await.expect("applies");
    assert!(report.items.iter().all(|item| item.fate != LegacyFate::Moves), "{}", told(&report));
    insta::assert_snapshot!("legacy_state", state(&context).await);
    let backup = PathBuf::from(report.backup.expect("a backup"));
    let manifest = crate::operations::manifest::read(&backup).expect("can be restored by command").manifest;
    assert_eq!(manifest.reason, crate::types::calls::backup::BackupReason::BeforeLegacy);
    let before = crate::storage::ConfigStore::open(&backup.join("config.db")).expect("the copy opens");
    assert_eq!(before.engines().await.expect("reads"), []);
    let key = context.paths.key_file.clone();
    let before = crate::storage::SecurityStore::open(&backup.join("security.db"), &key).expect("the copy opens");
    assert_eq!(before.keys().await.expect("reads"), []);
    for file in [PathBuf::from(report.log.expect("a log")), folder.path().join("legacy/journal.json")] {
        assert_eq!(
            std::fs::metadata(&file).expect("is there").permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
        let text = files::read_to_string(&file).expect("reads");
        assert!(text.contains("laptop") && !text.contains(CLEAR) && !text.contains("$argon2"), "{text}");
    }
    let stored = context.stores.security.keys().await.expect("reads");
    let laptop = stored.iter().find(|key| key.view.label == "laptop").expect("moved");
    assert_eq!(key_hash::verify(CLEAR, &laptop.hash), Ok(crate::guard::HashOutcome::Matches));

    let after = state(&context).await;
    let again = apply(&context, confirmed(&sample())).await.expect("applies");
    assert_eq!((state(&context).await, &again.backup, again.resumed), (after, &None, false));
    assert!(again.items.iter().all(|item| item.fate != LegacyFate::Moved), "{}", told(&again));
    let verdict = audit_log::verify(&context, VerifyAudit {}).await.expect("verifies");
    assert_eq!(verdict.broken_at, None);
    context.close().await;
}

#[tokio::test]
async fn what_the_home_has_stays_and_a_revoked_key_stays_revoked() {
    let folder = home();
    let context = open(folder.path()).await;
    let config = &context.stores.config;
    config.set_setting("console.theme".into(), Some("dark".into())).await.expect("stores");
    let here = crate::types::engine::EngineRecord {
        id: crate::types::ids::EngineId::parse("mine").expect("id"),
        kind: crate::types::engine::EngineKind::named("ollama"),
        url: "http://localhost:11434".into(),
        api_key_env: None,
        direct: false,
        slots: None,
        origin: crate::types::engine::EngineOrigin::Detected,
        created: UnixMillis(1),
    };
    config.put_engine(here.clone()).await.expect("stores");
    let report = apply(&context, confirmed(&sample())).await.expect("applies");
    let engines = config.engines().await.expect("reads");
    assert!(engines.contains(&here) && engines.iter().all(|engine| engine.id.as_str() != "ollama"), "{engines:?}");
    let aliases = config.aliases().await.expect("reads");
    let coder = aliases.iter().find(|alias| &*alias.name == "coder").expect("moved");
    assert_eq!(&*coder.targets[0], "flm://mine/qwen2.5-coder:7b", "the home's own name for the engine");
    let settings = config.settings().await.expect("reads");
    assert!(settings.contains(&("console.theme".into(), "dark".into())), "{settings:?}");

    let id = context.stores.security.keys().await.expect("reads")[0].view.id;
    keys::revoke(&context, RevokeKey { id }).await.expect("revokes");
    let again = apply(&context, confirmed(&sample())).await.expect("applies");
    assert!(again.items.iter().any(|item| item.detail.contains("and revoked")), "{}", told(&again));
    let kept = context.stores.security.keys().await.expect("reads");
    assert!(kept.iter().any(|key| key.view.id == id && key.view.revoked.is_some()));
    assert!(report.items.iter().any(|item| item.fate == LegacyFate::Exists), "{}", told(&report));
    context.close().await;
}

#[tokio::test]
async fn a_conversion_is_private_holds_no_key_and_is_applied_only_with_its_own_source() {
    let (folder, tmp) = (home(), home());
    let context = open(folder.path()).await;
    let call = ConvertLegacy { source: sample(), tmp: tmp.path().join("out").to_str().expect("text").to_owned() };
    let before = state(&context).await;
    let report = convert(&context, call.clone()).await.expect("converts");
    assert_eq!(state(&context).await, before);
    let file = PathBuf::from(report.conversion.expect("a file"));
    let text = files::read_to_string(&file).expect("reads");
    assert!(!text.contains(CLEAR) && text.contains("$argon2id$"), "{text}");
    assert_eq!(std::fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
    files::replace(&file, text.replace(&report.fingerprint, "other").as_bytes(), files::Audience::Owner)
        .expect("edits");
    let with_tmp = || ApplyLegacy { tmp: Some(call.tmp.clone()), ..confirmed(&sample()) };
    let refused = apply(&context, with_tmp()).await.expect_err("made of other data");
    assert!(refused.hint.expect("a hint").contains("convert again"));
    files::replace(&file, text.as_bytes(), files::Audience::Owner).expect("restores");
    apply(&context, with_tmp()).await.expect("applies");
    let hashes: BTreeSet<_> =
        context.stores.security.keys().await.expect("reads").into_iter().map(|key| key.hash).collect();
    assert!(hashes.iter().all(|hash| text.contains(hash)), "the hashes of the conversion were used");
    context.close().await;
}

#[tokio::test]
async fn a_folder_without_anything_and_a_broken_file_are_told() {
    let (folder, empty) = (home(), home());
    let context = open(folder.path()).await;
    let source = empty.path().to_str().expect("text").to_owned();
    let nothing = plan(&context, PlanLegacy { source: source.clone() }).await.expect_err("nothing there");
    assert_eq!(nothing.code, ErrorCode::NotFound);
    files::replace(&empty.path().join("config.json"), b"{ not json", files::Audience::Owner).expect("writes");
    let broken = plan(&context, PlanLegacy { source: source.clone() }).await.expect_err("broken");
    assert!(broken.message.contains("config.json"), "{}", broken.message);
    files::replace(&empty.path().join("config.json"), b"{\"theme\": \"light\"}", files::Audience::Owner)
        .expect("writes");
    let report = plan(&context, PlanLegacy { source }).await.expect("a file of settings alone will do");
    assert_eq!((report.items.len(), report.database), (1, None));
    context.close().await;
}

/// The variables that make [`child_that_is_killed`] do something.
const CHILD: [&str; 2] = ["FLM_TEST_LEGACY_HOME", "FLM_TEST_LEGACY_STEP"];

/// No test by itself: what the next one kills, in a process of its own.
#[tokio::test]
async fn child_that_is_killed() {
    let [Ok(home), Ok(step)] = CHILD.map(std::env::var) else { return };
    let context = open(Path::new(&home)).await;
    let kill_there = move |reached: Step| {
        if format!("{reached:?}") == step {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("kills itself");
        }
    };
    let left = CancellationToken::new();
    apply_in_steps(context, confirmed(&sample()), unheard(), left, kill_there).await.expect("applies");
}

#[tokio::test]
async fn a_migration_that_is_killed_at_any_step_is_finished_by_the_next_run() {
    let whole = home();
    let context = open(whole.path()).await;
    let report = apply(&context, confirmed(&sample())).await.expect("applies");
    let (wanted, wanted_told) = (state(&context).await, told(&report));
    context.close().await;
    for step in STEPS {
        let folder = home();
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program)
            .args(["--exact", "operations::legacy::tests::child_that_is_killed", "--nocapture"])
            .env(CHILD[0], folder.path())
            .env(CHILD[1], format!("{step:?}"))
            .status()
            .expect("runs");
        assert_eq!(status.signal(), Some(9), "{step:?}: it was killed there");

        let context = open(folder.path()).await;
        let keys_there = !context.stores.security.keys().await.expect("reads").is_empty();
        let after_keys = matches!(step, Step::KeysStored | Step::Published | Step::Finished);
        assert_eq!(keys_there, after_keys, "{step:?}: keys come last and all at once");
        let report = apply(&context, confirmed(&sample())).await.expect("goes on");
        assert_eq!(state(&context).await, wanted, "{step:?}");
        let interrupted = !matches!(step, Step::Ready | Step::Finished);
        assert_eq!(report.resumed, interrupted, "{step:?}");
        if interrupted {
            assert_eq!(told(&report), wanted_told, "{step:?}: told as if nothing had been");
            let backup = PathBuf::from(report.backup.expect("a backup"));
            let before = crate::storage::ConfigStore::open(&backup.join("config.db")).expect("the copy opens");
            assert_eq!(before.engines().await.expect("reads"), [], "{step:?}: of before the first run");
        }
        let ids: Vec<KeyId> = context.stores.security.keys().await.expect("reads").iter().map(|k| k.view.id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        let again = apply(&context, confirmed(&sample())).await.expect("nothing is left to do");
        assert!(again.items.iter().all(|item| item.fate != LegacyFate::Moved), "{step:?}: {}", told(&again));
        assert_eq!(audit_log::verify(&context, VerifyAudit {}).await.expect("verifies").broken_at, None, "{step:?}");
        context.close().await;
    }
}

/// Whoever leaves does so at this step; answers what the migration says, which nobody hears then.
async fn left_at(context: &Arc<Context>, step: Step) -> Outcome<LegacyReport> {
    let left = CancellationToken::new();
    let leaving = left.clone();
    let leave_there = move |reached: Step| {
        if reached == step {
            leaving.cancel();
        }
    };
    apply_in_steps(context.clone(), confirmed(&sample()), unheard(), left, leave_there).await
}

#[tokio::test]
async fn a_migration_that_is_left_before_anything_is_stored_never_was() {
    for step in [Step::Ready, Step::Begun] {
        let folder = home();
        let context = open(folder.path()).await;
        let before = state(&context).await;
        let failure = left_at(&context, step).await.expect_err("it was left");
        assert_eq!(failure.code, ErrorCode::Cancelled, "{step:?}");
        assert_eq!(state(&context).await, before, "{step:?}");
        assert!(!folder.path().join("legacy/journal.json").exists(), "{step:?}: another folder may be moved now");
        let report = apply(&context, confirmed(&sample())).await.expect("applies");
        assert!(!report.resumed && report.backup.is_some(), "{step:?}: {report:?}");
        context.close().await;
    }
}

#[tokio::test]
async fn a_migration_that_is_left_once_it_stores_is_stored_whole() {
    let whole = home();
    let context = open(whole.path()).await;
    apply(&context, confirmed(&sample())).await.expect("applies");
    let wanted = state(&context).await;
    context.close().await;
    for step in [Step::Copied, Step::ConfigStored] {
        let folder = home();
        let context = open(folder.path()).await;
        left_at(&context, step).await.expect("it ends by itself");
        assert_eq!(state(&context).await, wanted, "{step:?}");
        context.close().await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_it_and_progress_is_told_until_then() {
    let folder = home();
    let context = open(folder.path()).await;
    let before = state(&context).await;
    let arguments = serde_json::to_vec(&confirmed(&sample())).expect("writes").into();
    let all = crate::types::calls::Permission::Full;
    let begun = crate::operations::dispatch::dispatch_long(&context, "legacy/apply", &arguments, all).expect("begins");
    let mut ongoing = begun.expect("it takes long");
    let crate::operations::progress::Line::Progress(first) = ongoing.next().await else { panic!("it tells first") };
    let progress: LegacyProgress = serde_json::from_slice(&first).expect("reads");
    assert_eq!(progress.stage, LegacyWork::Reading);
    drop(ongoing);
    // The right to change is free again when what was begun is taken back.
    drop(context.begin_change().await.expect("free again"));
    assert_eq!(state(&context).await, before);
    assert!(!folder.path().join("legacy/journal.json").exists());
    context.close().await;
}
