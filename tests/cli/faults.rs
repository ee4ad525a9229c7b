//! What goes wrong on a machine: each a clear message, the right exit code, and nothing lost.

use crate::home::Home;
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
