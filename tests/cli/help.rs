//! Help: every command explains itself and shows an example.

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
