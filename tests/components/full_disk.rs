//! A disk that is full, for real: a small tmpfs in a mount namespace of its own. What was answered stays, what could not be
//! written says so with the next step, and with space again everything goes on.

use std::process::{Command, Stdio};

use crate::home::Home;

/// Runs a shell script with the home on a tmpfs of 4 MB; the mount is gone with it.
fn on_a_small_disk(home: &Home, script: &str) -> String {
    let flm = env!("CARGO_BIN_EXE_flm");
    let place = home.path().display();
    let script = format!(
        "set -u; mount -t tmpfs -o size=4m,mode=700 tmpfs '{place}' || exit 99; flm() {{ '{flm}' \"$@\" --format json 2>&1; echo \"status $?\"; }}\n{script}"
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("FLM_ENGINE_DETECT_AT_START", "false")])
        .env("HOME", home.path())
        .env("FLM_HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .expect("runs unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
#[ignore = "needs root and util-linux (mounts a small disk): run scripts/install-test-components.sh"]
fn a_full_disk_is_told_loses_nothing_and_ends_with_space() {
    let home = Home::new();
    let told = on_a_small_disk(
        &home,
        r#"
        flm api-keys create --label before
        dd if=/dev/zero of="$FLM_HOME/filler" bs=4k 2>/dev/null
        echo "== full"
        flm api-keys create --label during
        flm security backup create
        echo "== check"
        flm check
        rm "$FLM_HOME/filler"
        echo "== free"
        flm api-keys create --label after
        flm api-keys list
        flm security audit-logs verify
        "#,
    );
    let part = |name: &str| {
        let rest = told.split(&format!("== {name}\n")).nth(1).unwrap_or_else(|| panic!("no {name} in {told}"));
        rest.split("== ").next().unwrap_or_default().to_owned()
    };
    let full = part("full");
    assert_eq!(full.matches("status 2").count(), 2, "database and disk faults end with 2: {full}");
    assert!(full.contains("space") && full.contains("\"hint\""), "{full}");
    assert!(!full.contains("\"data\""), "{full}");
    let check = part("check");
    assert!(check.contains("status 2") && check.contains("disk space"), "{check}");
    let free = part("free");
    assert_eq!(free.matches("status 0").count(), 3, "{free}");
    assert!(free.contains("\"before\"") && free.contains("\"after\"") && !free.contains("\"during\""), "{free}");
    assert!(free.contains("\"broken_at\":null"), "{free}");
}
