//! The real `flm` on homes of its own: every command as JSON and text, exit codes, hints, and who owns a home.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends by panicking, and waits by the real clock"
)]

#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/driven_engine.rs"]
mod engine;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/engine_scripts.rs"]
mod engine_scripts;
#[path = "../support/fake_acme.rs"]
mod fake_acme;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/fake_engine.rs"]
mod fake_engine;
#[path = "../support/home.rs"]
#[expect(dead_code, reason = "shared with tests that use more of it")]
mod home;
#[path = "../support/legacy.rs"]
mod legacy;
#[path = "../support/stream.rs"]
mod stream;
#[path = "../support/terminal.rs"]
#[expect(dead_code, reason = "shared with tests that use more of it")]
mod terminal;

mod acme;
mod alerts;
mod aliases;
mod answers;
mod audit;
mod authority;
mod backup;
mod captures;
mod chat;
mod colour;
mod docs;
mod doctor;
mod egress;
mod expose;
mod faults;
mod firewall;
mod floods;
mod guard;
mod help;
mod hostile;
mod keys;
mod lists;
mod logs;
mod migrate;
mod models;
mod owners;
mod profiles;
mod settings;
mod streams;
mod tls;
mod traces;
mod usage;

use serde_json::Value;

use crate::home::Home;

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// The `error` of a failed command's JSON.
    #[track_caller]
    fn error(&self) -> Value {
        let answer: Value = serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {:?}", self.out));
        assert!(answer.get("data").is_none(), "{answer}");
        answer["error"].clone()
    }
}

impl Ended {
    /// The `error` of a command that told its progress before it failed.
    #[track_caller]
    fn error_of_the_end(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str::<Value>(last).unwrap_or_else(|error| panic!("{error} in {last:?}"))["error"].clone()
    }
}

/// Runs `flm` and answers how it ended.
fn run(home: &Home, arguments: &[&str]) -> Ended {
    let output = home.flm(arguments).output().expect("runs flm");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code().expect("ends by itself"), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs `flm` for people; it must succeed.
#[track_caller]
fn text(home: &Home, arguments: &[&str]) -> String {
    let ended = run(home, &[arguments, &["--format", "text"]].concat());
    assert_eq!(ended.code, 0, "flm {arguments:?}: {}{}", ended.out, ended.err);
    ended.out
}

/// Puts words in place of what differs from run to run: the home, keys, times and ids.
fn redacted(home: &Home, text: &str) -> String {
    let text = text.replace(&home.path().display().to_string(), "[home]");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let is_time = |s: &str| {
            s.len() >= 19
                && s.is_char_boundary(19)
                && s[..19]
                    .chars()
                    .zip("dddd-dd-dd dd:dd:dd".chars())
                    .all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
        };
        if is_time(rest) {
            out.push_str("[time]");
            rest = &rest[19..];
            continue;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}
