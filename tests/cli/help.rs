//! Help: every command explains itself and shows an example.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::home::Home;
use crate::run;

/// Walks the command tree through its own help.
fn walk(home: &Home, path: &[String], found: &mut Vec<(String, String)>) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let ended = run(home, &arguments);
    assert_eq!(ended.code, 0, "{path:?}: {}", ended.err);
    let commands = ended.out.split("Commands:\n").nth(1).unwrap_or_default().lines();
    let names: Vec<String> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect();
    found.push((path.join(" "), ended.out));
    for name in names {
        walk(home, &[path, &[name]].concat(), found);
    }
}

#[test]
fn every_command_has_help_with_an_example_that_names_it() {
    let home = Home::new();
    let mut found = Vec::new();
    walk(&home, &[], &mut found);
    assert!(found.len() > 45, "the walk found only {}", found.len());
    for (path, help) in &found {
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("flm {path} shows no example:\n{help}"));
        assert!(example.contains(&format!("flm {path}")), "the example of flm {path} is another's:\n{help}");
    }
    let published: Value = serde_json::from_str(include_str!("../../docs/schemas/commands.json")).expect("JSON");
    let published = published["commands"].as_object().expect("what each command answers");
    let all: BTreeSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let gone: Vec<_> = published.keys().filter(|command| !all.contains(command.as_str())).collect();
    assert!(gone.is_empty(), "no such commands: {gone:?}");
    let leaves = found.iter().filter(|(_, help)| !help.contains("\nCommands:\n")).map(|(path, _)| path);
    let missing: Vec<_> = leaves.filter(|path| !published.contains_key(path.as_str())).collect();
    assert!(missing.is_empty(), "their answers are not published: {missing:?}");
    let whole: Vec<String> = found.iter().map(|(path, help)| format!("$ flm {path} --help\n{help}")).collect();
    insta::assert_snapshot!("help", whole.join("\n"));
}

#[test]
fn wrong_usage_ends_with_1_and_says_what_would_be_right() {
    let home = Home::new();
    let ended = run(&home, &["engines", "lst", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("unrecognized subcommand 'lst'") && ended.err.contains("'list'"), "{}", ended.err);

    let ended = run(&home, &["api-keys", "create", "--label", "x", "--expires", "90", "--format=json"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, ""));
    let error = ended.error();
    assert_eq!(error["code"], "INVALID_ARGUMENT");
    assert!(error["message"].as_str().expect("text").contains("a number with a unit"), "{error}");
}

#[test]
fn completions_and_version_need_no_home() {
    let home = Home::new();
    assert!(run(&home, &["completions", "bash"]).out.contains("_flm()"));
    assert_eq!(run(&home, &["--version"]).out, concat!("flm ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 0, "nothing was made");
}

/// Whether a program is there whose word on our output is wanted; a machine without it can still test FLM.
fn is_here(program: &str) -> bool {
    Path::new("/usr/bin").join(program).exists()
}

#[test]
fn completions_are_scripts_that_their_shells_take_and_bash_completes_by_them() {
    let home = Home::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = home.path().join(shell);
        let text = run(&home, &["completions", shell]).out;
        assert!(text.contains("ip-blocklist") && text.contains("egress-mode"), "{shell}");
        std::fs::write(&script, text).expect("writes");
        if is_here(shell) {
            let output = Command::new(shell).arg(check).arg(&script).output().expect("runs");
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
        }
    }
    if is_here("bash") {
        let ask = ". ./bash; COMP_WORDS=(flm security ip-blocklist ''); COMP_CWORD=3; _flm flm '' ip-blocklist; echo \"${COMPREPLY[*]}\"";
        let output = Command::new("bash").args(["-c", ask]).current_dir(home.path()).output().expect("runs");
        let offered = String::from_utf8_lossy(&output.stdout);
        assert!(offered.contains(" unblock ") && offered.contains(" import "), "{output:?}");
    }
}

#[test]
fn man_pages_are_right_for_the_formatter_and_their_examples_can_be_copied() {
    let home = Home::new();
    let folder = home.path().join("man");
    home.answer(&["man", "--output", folder.to_str().expect("UTF-8")]);
    let pages: Vec<_> = std::fs::read_dir(&folder).expect("lists").map(|page| page.expect("a page").path()).collect();
    assert!(pages.len() > 110 && !folder.join("flm-__firewall-step.1").exists(), "{pages:?}");
    assert!(run(&home, &["man"]).out.contains(".TH flm 1"));
    let page = std::fs::read_to_string(folder.join("flm-firewall-apply.1")).expect("a page of each command");
    assert!(page.contains("taken back after 60 seconds"), "{page}");
    if !is_here("groff") {
        return;
    }
    let format = |options: &[&str], pages: &[PathBuf]| {
        Command::new("groff").args(["-man", "-Kutf8", "-Tutf8", "-P-cbou"]).args(options).args(pages).output()
    };
    let checked = format(&["-ww", "-z"], &pages).expect("runs");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    let shown = format(&[], &[folder.join("flm-security-ip-blocklist-import.1")]).expect("runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("drop.txt | flm security ip-blocklist import -\n"), "{shown}");
}
