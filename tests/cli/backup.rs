//! Backups, the key and `flm check` as commands: what they answer, refuse and leave behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portable_pty::CommandBuilder;

use crate::home::{Home, PATIENCE};
use crate::terminal::Terminal;
use crate::{run, text};

const PASSPHRASE: &str = "correct horse battery";

/// `flm` with these arguments on a terminal.
fn on_terminal(home: &Home, arguments: &[&str]) -> Terminal {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_flm"));
    command.args(arguments);
    Terminal::start(home.at_home(command), 110, 40)
}

fn labels(home: &Home) -> Vec<String> {
    let keys = home.answer(&["api-keys", "list"]);
    keys.as_array().expect("a list").iter().map(|key| key["label"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_backup_is_made_beside_the_proxy_and_restored_without_it() {
    let home = Home::new();
    home.create_key("one");
    home.start_proxy();
    let made = run(&home, &["security", "backup", "create", "--format", "text"]);
    assert_eq!(made.code, 0, "{}{}", made.out, made.err);
    assert!(made.out.contains("audit log") && made.err.contains("--with-key"), "{}{}", made.out, made.err);
    let listing = home.answer(&["security", "backup", "list"]);
    let backup = listing["backups"][0]["path"].as_str().expect("a path").to_owned();
    assert_eq!(
        (&listing["backups"][0]["opens"], &listing["backups"][0]["manifest"]["reason"]),
        (&true.into(), &"manual".into())
    );
    home.create_key("two");

    let refused = run(&home, &["security", "backup", "restore", "--file", &backup]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("PROXY_ALREADY_RUNNING")));
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("flm proxy stop --all"));
    assert_eq!(labels(&home).len(), 2);

    home.end_owner();
    // Named by a file in it; a shell completes to that.
    let manifest = format!("{backup}/manifest.json");
    let restored = text(&home, &["security", "backup", "restore", "--file", &manifest]);
    assert!(restored.contains("what it replaced is kept in"), "{restored}");
    assert_eq!(labels(&home), ["one"]);
    let verdict = home.answer(&["security", "audit-logs", "verify"]);
    assert!(verdict["broken_at"].is_null() && verdict["heads"].as_u64() >= Some(1), "{verdict}");
    let rows = home.answer(&["security", "audit-logs", "list", "--type", "restored"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
}

#[test]
fn what_is_no_backup_is_refused() {
    let home = Home::new();
    home.create_key("one");
    for (file, code) in [("/nowhere/at/all", "NOT_FOUND"), (home.path().to_str().expect("text"), "IO_ERROR")] {
        let refused = run(&home, &["security", "backup", "restore", "--file", file]);
        assert_eq!(refused.error()["code"], code, "{}", refused.out);
        assert!(refused.error()["hint"].is_string(), "{}", refused.out);
    }
    assert_eq!(labels(&home), ["one"]);
}

#[test]
fn a_key_is_sealed_only_by_somebody_at_a_terminal() {
    let home = Home::new();
    home.create_key("one");
    let folder = home.path().join("usb");
    let place = folder.to_str().expect("text");
    let mut terminal = on_terminal(&home, &["security", "backup", "create", "--with-key", "--output", place]);
    terminal.wait_for("Passphrase that seals the key:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}\r"));
    terminal.wait_for("The same again:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}\r"));
    assert!(terminal.wait_until_ended(PATIENCE).success(), "{}", terminal.screen().text());
    let shown = terminal.screen().text();
    assert!(shown.contains("sealed") && !shown.contains("horse"), "{shown}");
    let backup = std::fs::read_dir(&folder).expect("lists").next().expect("a backup").expect("entry").path();
    let manifest = std::fs::read_to_string(backup.join("manifest.json")).expect("reads");
    let key = std::fs::read_to_string(home.path().join("keys/security.key")).expect("reads");
    assert!(manifest.contains("flm-sealed-key-1:") && !manifest.contains(key.trim()), "{manifest}");

    // On another machine.
    let other = Home::new();
    let file = backup.to_str().expect("text");
    let mut terminal = on_terminal(&other, &["security", "backup", "restore", "--file", file]);
    terminal.wait_for("Passphrase of the backup:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}x\x7f\r"));
    assert!(terminal.wait_until_ended(PATIENCE).success(), "{}", terminal.screen().text());
    assert_eq!(labels(&other), ["one"]);
}

#[test]
fn a_passphrase_is_asked_for_by_whoever_opens_the_home_and_by_nobody_else() {
    let home = Home::on_a_free_port();
    home.create_key("one");
    let mut terminal = on_terminal(&home, &["security", "rekey", "--to", "passphrase"]);
    terminal.wait_for("New passphrase of this home:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}\r"));
    terminal.wait_for("The same again:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}\r"));
    assert!(terminal.wait_until_ended(PATIENCE).success(), "{}", terminal.screen().text());
    let status = home.answer(&["security", "lock-status"]);
    assert_eq!((&status["source"], &status["state"]["state"]), (&"passphrase".into(), &"locked".into()));

    // Nobody to type it.
    let refused = run(&home, &["api-keys", "list"]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("flm-db-passphrase"), "{}", refused.out);

    // A wrong one, and Ctrl-C.
    let mut terminal = on_terminal(&home, &["api-keys", "list"]);
    terminal.wait_for("Passphrase of this home:", PATIENCE);
    terminal.send("something else\r");
    assert_eq!(terminal.wait_until_ended(PATIENCE).exit_code(), 1);
    assert!(terminal.screen().text().contains("does not open"), "{}", terminal.screen().text());
    let mut terminal = on_terminal(&home, &["api-keys", "list"]);
    terminal.wait_for("Passphrase of this home:", PATIENCE);
    terminal.send("\x03");
    assert_eq!(terminal.wait_until_ended(PATIENCE).exit_code(), 1);

    // The background proxy gets it from the command that starts it; then nobody is asked any more.
    let mut terminal = on_terminal(&home, &["proxy", "start"]);
    terminal.wait_for("Passphrase of this home:", PATIENCE);
    terminal.send(&format!("{PASSPHRASE}\r"));
    assert!(terminal.wait_until_ended(PATIENCE).success(), "{}", terminal.screen().text());
    assert_eq!(labels(&home), ["one"]);
    assert_eq!(home.answer(&["security", "lock-status"])["state"]["state"], "open");
    let pid = home.owner().expect("it runs");
    for file in ["cmdline", "environ"] {
        let told = std::fs::read(format!("/proc/{pid}/{file}")).expect("reads");
        assert!(!String::from_utf8_lossy(&told).contains("horse"), "{file}");
    }
}

#[test]
fn a_new_key_needs_a_home_without_an_owner() {
    let home = Home::new();
    home.create_key("one");
    home.start_proxy();
    let refused = run(&home, &["security", "rekey"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (1, Some("PROXY_ALREADY_RUNNING")));
    home.end_owner();
    let before = home.answer(&["security", "lock-status"])["fingerprint"].clone();
    let changed = text(&home, &["security", "rekey"]);
    assert!(changed.contains("the old key is kept in"), "{changed}");
    let status = home.answer(&["security", "lock-status"]);
    assert_eq!(status["state"]["state"], "ready");
    assert_ne!(status["fingerprint"], before);
    assert_eq!(labels(&home), ["one"]);
    assert!(home.answer(&["security", "audit-logs", "verify"])["broken_at"].is_null());
    let told = text(&home, &["security", "lock-status"]);
    assert!(told.contains("key file of the home") && told.contains("0600"), "{told}");
}

#[test]
fn check_says_what_is_fine_and_fails_with_what_is_not() {
    let home = Home::new();
    home.create_key("one");
    let fine = run(&home, &["check", "--format", "text"]);
    assert_eq!(fine.code, 0, "{}", fine.out);
    for name in ["file modes", "key", "config.db", "security.db", "audit chain", "disk space", "backups"] {
        assert!(fine.out.lines().any(|line| line.contains(name)), "{name}: {}", fine.out);
    }
    let listing = home.answer(&["check"]);
    assert!(listing["checks"].as_array().is_some_and(|checks| checks.len() >= 10), "{listing}");

    // While the proxy runs, modes that were widened behind its back are told; the next start repairs them.
    home.start_proxy();
    let database = home.path().join("security.db");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).expect("widens");
    let wide = run(&home, &["check", "--format", "text"]);
    assert_eq!(wide.code, 1, "{}", wide.out);
    assert!(wide.out.contains("FAIL  file modes") && wide.out.contains("mode 0644"), "{}", wide.out);
    home.end_owner();
    assert_eq!(run(&home, &["check"]).code, 0);
    let rows = home.answer(&["security", "audit-logs", "list", "--type", "maintenance"]);
    assert!(rows.to_string().contains("had mode 0644"), "the repair is in the audit log: {rows}");

    // Databases that cannot be opened are a finding, and the rest is still looked at.
    std::fs::write(&database, vec![0x5a; 8192]).expect("ruins");
    let broken = run(&home, &["check", "--format", "text"]);
    assert_eq!(broken.code, 2, "{}", broken.out);
    assert!(broken.out.contains("FAIL  databases") && broken.out.contains("disk space"), "{}", broken.out);
    assert!(broken.out.contains("hint:"), "{}", broken.out);
    assert!(home.answer(&["security", "backup", "list"])["backups"].is_array(), "what is looked for then");
    assert!(Path::new(&database).exists());
}
