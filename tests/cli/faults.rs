//! What goes wrong on a machine: each a clear message, the right exit code, and nothing lost.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::home::{Home, PATIENCE, wait_until};
use crate::run;

#[test]
fn a_taken_port_names_its_holder_and_a_free_port_and_leaves_no_daemon() {
    let home = Home::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = holder.local_addr().expect("address").port().to_string();
    let ended = run(&home, &["proxy", "start", "--port", &port]);
    assert_eq!(ended.code, 1);
    let error = ended.error();
    assert_eq!(error["code"], "PROXY_PORT_IN_USE");
    let (message, hint) = (error["message"].as_str().expect("text"), error["hint"].as_str().expect("a hint"));
    assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
    assert!(hint.contains("flm proxy start --port "), "{hint}");
    assert_eq!(run(&home, &["proxy", "status"]).error()["code"], "NOT_FOUND");
}

#[test]
fn plain_http_beyond_loopback_needs_the_flag_and_other_modes_do_not_exist() {
    let home = Home::new();
    let open = run(&home, &["proxy", "start", "--port", "0", "--bind", "0.0.0.0"]);
    assert_eq!((open.code, open.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert!(open.error()["hint"].as_str().expect("a hint").contains("--insecure-plain-http"), "{}", open.out);
    let mode = run(&home, &["proxy", "start", "--port", "0", "--mode", "https-quic"]);
    assert_eq!((mode.code, mode.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert!(mode.error()["hint"].as_str().expect("a hint").contains("local-http"), "{}", mode.out);
}

#[test]
fn a_home_below_a_file_cannot_be_made_and_says_so() {
    let home = Home::new();
    let file = home.path().join("file");
    std::fs::write(&file, "in the way").expect("writes");
    let below = file.join("home");
    let place = below.to_str().expect("text");
    for arguments in [&["config", "list"][..], &["proxy", "start"], &["proxy", "start", "--no-daemon"]] {
        let ended = run(&home, &[arguments, &["--home", place]].concat());
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.out);
        let error = ended.error();
        assert_eq!(error["code"], "IO_ERROR", "{arguments:?}");
        assert!(error["message"].as_str().expect("text").contains(place), "{error}");
        assert!(error["hint"].as_str().expect("a hint").contains("--home"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "in the way");
}

#[test]
fn a_corrupt_database_is_told_and_left_as_it_is() {
    let home = Home::new();
    home.answer(&["config", "set", "log.level", "debug"]);
    let database = home.path().join("config.db");
    let damage = vec![0x5a; 8192];
    std::fs::write(&database, &damage).expect("writes");
    for arguments in [&["config", "list"][..], &["proxy", "start", "--port", "0"]] {
        let ended = run(&home, arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.out);
        let error = ended.error();
        assert_eq!(error["code"], "DB_ERROR", "{error}");
        assert!(error["message"].as_str().expect("text").contains("config.db"), "{error}");
        assert!(error["hint"].as_str().expect("a hint").contains("mv "), "{error}");
    }
    assert_eq!(std::fs::read(&database).expect("still there"), damage);
}

#[test]
fn a_wrong_flm_toml_names_line_and_column() {
    let home = Home::new();
    std::fs::write(home.path().join("flm.toml"), "[log]\nlevel = \"loud\"\n").expect("writes");
    let ended = run(&home, &["config", "list"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert!(ended.out.contains("flm.toml, line 2"), "{}", ended.out);
}

#[test]
fn the_console_without_a_terminal_points_to_the_commands() {
    let home = Home::new();
    let ended = run(&home, &["tui"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.out.contains("needs a terminal") && ended.out.contains("flm proxy start"),
        "{}{}",
        ended.out,
        ended.err
    );
}

#[test]
fn errors_for_people_go_to_stderr_with_a_hint() {
    let home = Home::new();
    let ended = run(&home, &["proxy", "status", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(ended.err, "error: no proxy runs for this home\n\nhint: start it with: flm proxy start\n");
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let home = Home::new();
    for (arguments, code) in [
        (&["config", "list"][..], 2),
        (&["config", "list", "--format", "text"], 2),
        (&["version"], 2),
        (&["completions", "bash"], 2),
        (&["man"], 2),
        (&["--help"], 2),
        (&["engines", "remove", "nobody"], 1),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the full device");
        let output = home.flm(arguments).stdout(full).output().expect("runs flm");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains("could not be written to standard output"), "{arguments:?}: {told}");
    }
}

#[test]
fn what_follows_ends_quietly_when_its_reader_leaves() {
    let home = Home::new();
    home.start_proxy();
    home.create_key("first");
    for arguments in [
        &["security", "events", "--follow"][..],
        &["security", "audit-logs", "list", "--follow"],
        &["logs", "--follow"],
    ] {
        let mut child = home.flm(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("reads");
        assert!(first.starts_with('{'), "{arguments:?}: {first:?}");
        wait_until("it ends although it has nothing to tell", PATIENCE, || child.try_wait().expect("asks").is_some());
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_file_without_an_end_is_refused_before_memory_is_full() {
    let home = Home::new();
    for arguments in [
        &["security", "policy", "validate", "--json", "/dev/zero"][..],
        &["api", "prompts", "set", "--api-id", "chat.completions", "--file", "/dev/zero"],
    ] {
        let ended = run(&home, arguments);
        assert_eq!((ended.code, ended.error()["code"].as_str()), (2, Some("IO_ERROR")), "{arguments:?}: {}", ended.out);
        assert!(ended.out.contains("more than 64 MiB"), "{}", ended.out);
    }
}

#[test]
fn a_wrong_argument_cannot_steer_the_terminal_that_is_told_of_it() {
    let home = Home::new();
    let hostile = "\u{202e}\x1b[31m\rx";
    for arguments in [&["engines", hostile][..], &["config", "get", "a", hostile], &["api-keys", "show", hostile]] {
        for format in ["json", "text"] {
            let ended = run(&home, &[arguments, &["--format", format]].concat());
            let told = ended.out + &ended.err;
            assert_eq!(ended.code, 1, "{told:?}");
            assert!(!told.contains(['\u{202e}', '\x1b', '\r']) && told.contains("u{202e}"), "{told:?}");
        }
    }
}
