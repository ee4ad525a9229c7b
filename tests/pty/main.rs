//! The real console on a real terminal: that it opens, leaves the terminal as it was, and that nothing that happens to
//! a terminal touches a stream (SPEC §1.2).
#![expect(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test ends by panicking")]

#[path = "../support/driven_engine.rs"]
mod engine;
mod forms;
#[path = "../support/home.rs"]
mod home;
#[path = "../support/legacy.rs"]
mod legacy;
#[path = "../support/stream.rs"]
mod stream;
#[path = "../support/terminal.rs"]
mod terminal;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use engine::{Engine, MODEL};
use flm::types::language::LANGUAGES;
use home::{Home, PATIENCE, is_running, wait_until};
use portable_pty::CommandBuilder;
use rustix::process::{Pid, Signal, kill_process};
use stream::ChatStream;
use terminal::Terminal;

const TABS: [&str; 6] = ["Engines", "Models", "Proxy", "Security", "Blocklist", "Prompts"];

/// A console that is attached and has drawn all tabs' names.
#[track_caller]
fn open_console(home: &Home, columns: u16, rows: u16) -> Terminal {
    let console = home.console(&[], columns, rows);
    console.wait_until("all tabs are named", PATIENCE, |screen| {
        let text = screen.text();
        TABS.iter().all(|tab| text.contains(tab))
    });
    console
}

/// A home in use, and a console that shows its listener.
#[track_caller]
fn running_console(columns: u16, rows: u16) -> (Home, Terminal) {
    let home = Home::in_use();
    let console = open_console(&home, columns, rows);
    console.wait_for("Running http://", PATIENCE);
    (home, console)
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not 0");
    kill_process(pid, signal).expect("signals");
}

/// A stream through a daemon that the console started, in the middle of its answer.
struct Streaming {
    console: Terminal,
    engine: Engine,
    stream: ChatStream,
    // Last, so that the daemon outlives what uses it.
    home: Home,
}

impl Streaming {
    fn begin(console: impl FnOnce(&Home) -> Terminal) -> Self {
        let engine = Engine::start();
        let home = Home::in_use();
        let console = console(&home);
        wait_until("the daemon's listener runs", PATIENCE, || home.owner().is_some() && home.proxy_port().is_some());
        let url = format!("http://127.0.0.1:{}", home.proxy_port().expect("a listener"));
        home.add_engine("openai", "driven", engine.port);
        let key = home.create_key("streams");
        wait_until("the model is known", PATIENCE, || home.answer(&["models", "list"]).to_string().contains(MODEL));
        engine.speak();
        let mut stream = ChatStream::open(&url, &key, MODEL, 1000);
        assert!(stream.next_event().expect("a chunk").contains("word1"));
        Self { console, engine, stream, home }
    }

    /// Shows that the stream goes on and ends as it should.
    #[track_caller]
    fn end(mut self) {
        for _ in 0..3 {
            self.engine.speak();
            assert!(self.stream.next_event().expect("a chunk").contains("word"));
        }
        self.engine.finish();
        let rest: Vec<_> = std::iter::from_fn(|| self.stream.next_event()).collect();
        assert_eq!(rest.last().map(String::as_str), Some("[DONE]"), "{rest:?}");
        assert!(!rest.iter().any(|event| event.contains("error")), "{rest:?}");
    }
}

#[test]
fn a_first_start_without_engines_shows_a_key_once_and_tells_how_to_add_an_engine() {
    let home = Home::on_a_free_port();
    let mut console = open_console(&home, 100, 30);
    console.wait_for("flm_", PATIENCE);
    console.wait_for("shown only now", PATIENCE);
    console.send("q");
    console.wait_until("the key is gone for good", PATIENCE, |screen| !screen.text().contains("shown only now"));
    console.wait_for("No engine is registered yet.", PATIENCE);
    console.wait_for("press a to add an", PATIENCE);
    let empty = ["No engine lists a model.", "Requests", "Security", "No address is blocked.", "No prompt is set."];
    for (number, text) in empty.iter().enumerate() {
        console.send(&(number + 2).to_string());
        console.wait_for(text, PATIENCE);
    }
    console.wait_for("Running http://", PATIENCE);
    console.send("q");
    console.wait_for("Leave it running", PATIENCE);
    console.send("s");
    let status = console.wait_until_ended(PATIENCE);
    assert_eq!(status.exit_code(), 0);
    let screen = console.screen();
    assert!(!screen.is_full_screen(), "the terminal's own screen is back");
    assert!(screen.has_cursor(), "the cursor is back");
    drop(screen);
    assert_eq!(home.owner(), None, "the proxy was stopped with the console");
}

#[test]
fn leaving_the_proxy_running_leaves_it_running() {
    // Until the console knows that something serves, there is nothing to ask about.
    let (home, mut console) = running_console(100, 30);
    console.send("q");
    console.wait_for("Leave it running", PATIENCE);
    console.send("l");
    assert_eq!(console.wait_until_ended(PATIENCE).exit_code(), 0);
    assert!(home.owner().is_some());
}

/// SPEC §1.1: real requests through the whole pipeline, in a home of its own.
#[test]
fn the_demo_serves_clients_good_and_hostile_and_leaves_nothing_behind() {
    let home = Home::new();
    let temporary = tempfile::tempdir().expect("a folder");
    let count = |folder: &std::path::Path| std::fs::read_dir(folder).expect("lists").count();
    let mut command = home.console_command(&["--demo", "--demo-seed", "7"]);
    command.env("TMPDIR", temporary.path());
    let mut console = Terminal::start(command, 100, 30);
    console.wait_for("DEMO", PATIENCE);
    console.send("3");
    console.wait_until("what is served and what is refused", PATIENCE * 2, |screen| {
        let text = screen.text();
        text.contains("chat.completions") && text.contains(" 200 ") && text.contains(" 404 ")
    });
    assert_eq!(count(temporary.path()), 1, "its home");
    console.send("q");
    console.wait_for("Stop and quit", PATIENCE);
    console.send("s");
    assert_eq!(console.wait_until_ended(PATIENCE).exit_code(), 0);
    assert_eq!((count(temporary.path()), count(home.path())), (0, 0), "its own home and the person's");
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_recovers() {
    let home = Home::in_use();
    let console = open_console(&home, 80, 24);
    console.resize(40, 10);
    console.wait_for("The terminal is too small.", PATIENCE);
    console.resize(80, 24);
    console.wait_until("all tabs are back", PATIENCE, |screen| TABS.iter().all(|tab| screen.text().contains(tab)));
}

#[test]
fn output_that_is_no_terminal_is_refused_with_a_hint() {
    let home = Home::new();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_flm-tui"))
        .env_clear()
        .env("FLM_HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("terminal") && text.contains("hint:"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_second_console_attaches_to_the_same_daemon() {
    let home = Home::in_use();
    let _first = open_console(&home, 100, 30);
    wait_until("a daemon owns the home", PATIENCE, || home.owner().is_some());
    let owner = home.owner();
    let second = open_console(&home, 100, 30);
    assert_eq!(home.owner(), owner);
    drop(second);
    assert_eq!(home.owner(), owner, "a console that is killed leaves the daemon alone");
}

#[test]
fn killing_the_console_leaves_a_stream_untouched() {
    let streaming = Streaming::begin(|home| open_console(home, 100, 30));
    signal(streaming.console.pid(), Signal::KILL);
    streaming.end();
}

#[test]
fn a_terminal_that_goes_away_ends_the_console_and_leaves_a_stream_untouched() {
    let mut streaming = Streaming::begin(|home| open_console(home, 100, 30));
    signal(streaming.console.pid(), Signal::HUP);
    streaming.console.wait_until_ended(PATIENCE);
    assert!(streaming.home.owner().is_some());
    streaming.end();
}

#[test]
fn a_terminal_that_goes_away_takes_the_proxy_along_where_that_is_set() {
    let home = Home::in_use();
    home.answer(&["config", "set", "console.on_hangup", "stop"]);
    let mut console = open_console(&home, 100, 30);
    console.wait_for("Running http://", PATIENCE);
    signal(console.pid(), Signal::HUP);
    console.wait_until_ended(PATIENCE);
    wait_until("the proxy has ended", PATIENCE, || home.owner().is_none());
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_leaves_a_stream_untouched() {
    let mut streaming = Streaming::begin(|home| {
        // A shell with job control, as people have it; it says when it has the terminal again.
        let mut shell = CommandBuilder::new("bash");
        let script = format!("{}; echo the shell has it; read -r; fg >/dev/null", env!("CARGO_BIN_EXE_flm-tui"));
        shell.args(["--norc", "--noprofile", "-m", "-c", &script]);
        let console = Terminal::start(home.at_home(shell), 100, 30);
        console.wait_for("Blocklist", PATIENCE);
        console
    });
    streaming.console.send("\x1a");
    streaming.console.wait_until("the shell has the terminal", PATIENCE, |screen| {
        screen.text().contains("the shell has it") && !screen.is_full_screen() && screen.has_cursor()
    });
    streaming.engine.speak();
    assert!(streaming.stream.next_event().expect("a chunk").contains("word2"));
    streaming.console.send("\r");
    streaming.console.wait_until("the console is back", PATIENCE, |screen| {
        screen.is_full_screen() && TABS.iter().all(|tab| screen.text().contains(tab))
    });
    streaming.end();
}

/// While a program asks for the mouse, GNU screen (4.9) keeps Esc back until the next key and hands both on as one; and it has
/// no second screen unless told.
#[test]
fn in_gnu_screen_esc_works_since_the_mouse_is_not_asked_for_and_the_shell_goes_on_below_the_last_frame() {
    const MOUSE: &[u8] = b"\x1b[?1000h";
    let home = Home::in_use();
    let console = |variable: Option<&str>| {
        let mut command = home.console_command(&[]);
        if let Some(session) = variable {
            command.env("STY", session);
            command.env("TERM", "screen");
        }
        let console = Terminal::start(command, 80, 24);
        console.wait_for("Running http://", PATIENCE);
        console
    };
    let asks = |console: &Terminal| memchr::memmem::find(&console.screen().received, MOUSE).is_some();
    assert!(asks(&console(None)), "elsewhere it is");
    let mut in_screen = console(Some("4711.pts-0.host"));
    assert!(!asks(&in_screen));
    in_screen.send("q");
    in_screen.wait_for("Leave it running", PATIENCE);
    in_screen.send("l");
    in_screen.wait_until_ended(PATIENCE);
    let screen = in_screen.screen();
    assert!(memchr::memmem::find(&screen.received, b"\x1b[999;1H\x1b[K\x1b[?1049l").is_some());
    drop(screen);
    home.answer(&["config", "set", "console.mouse", "true"]);
    assert!(asks(&console(Some("4711.pts-0.host"))), "whoever wants it has it");
}

#[test]
fn an_esc_and_the_key_behind_it_that_come_in_one_piece_are_both() {
    let (_home, console) = running_console(80, 24);
    console.send("\x1bOQ");
    console.wait_for("Language", PATIENCE);
    console.send("\x1b3");
    console.wait_until("the box is closed and the third tab is in front", PATIENCE, |screen| {
        screen.text().contains("Owner") && !screen.text().contains("Language")
    });
}

#[test]
fn a_daemon_that_was_killed_leaves_nothing_that_stops_the_next_one() {
    let home = Home::new();
    home.start_proxy();
    let first = home.owner().expect("a daemon");
    signal(first, Signal::KILL);
    wait_until("it is gone", PATIENCE, || !is_running(first));
    home.start_proxy();
    let second = home.owner().expect("a daemon");
    assert_ne!(first, second);
}

#[test]
fn a_chat_streams_and_is_left_and_two_models_are_compared_saved_and_exported() {
    const F3: &str = "\x1bOR";
    const F7: &str = "\x1b[18~";
    const F9: &str = "\x1b[20~";
    let engine = Engine::start();
    let home = Home::in_use();
    let console = open_console(&home, 120, 40);
    wait_until("the daemon's listener runs", PATIENCE, || home.owner().is_some() && home.proxy_port().is_some());
    home.add_engine("openai", "one", engine.port);
    home.add_engine("openai", "two", engine.port);
    console.send("2");
    console.wait_for("one/driven-model", PATIENCE);
    console.wait_for("two/driven-model", PATIENCE);

    console.send("c");
    console.wait_for("Your question", PATIENCE);
    console.send("Who are you?\r");
    engine.speak();
    console.wait_for("word1", PATIENCE);
    console.wait_for("200", PATIENCE);
    engine.speak();
    console.wait_for("word2", PATIENCE);
    console.send("\x1b");
    console.wait_for("stopped", PATIENCE);
    wait_until("the engine's work ended with it", PATIENCE, || {
        home.answer(&["logs", "requests", "--since", "1h"]).to_string().contains("client_left")
    });

    let in_both = |screen: &terminal::Screen, word: &str| screen.text().matches(word).count() >= 2;
    console.send(F7);
    console.wait_for("no models chosen", PATIENCE);
    console.send(F3);
    console.wait_for("Space marks", PATIENCE);
    console.send(" \x1b[B \r");
    console.wait_for("one/driven-model, two/driven-model", PATIENCE);
    console.send("Which is better?\r");
    console.wait_until("both speak", PATIENCE, |screen| in_both(screen, "word2"));
    engine.speak();
    console.wait_until("both go on at once", PATIENCE, |screen| in_both(screen, "word3"));
    engine.finish();
    console.wait_until("both are whole", PATIENCE, |screen| in_both(screen, "one run"));
    console.send("\x13");
    console.wait_for("Saved as comparison 1", PATIENCE);
    console.send(F9);
    console.wait_for("Export the comparison", PATIENCE);
    console.send("\r");
    console.wait_for("Written to", PATIENCE);
    let files = std::fs::read_dir(home.path()).expect("lists").filter_map(Result::ok);
    let written: Vec<_> = files.filter(|file| file.file_name().to_string_lossy().ends_with(".md")).collect();
    let [file] = written.as_slice() else { panic!("{written:?}") };
    let text = std::fs::read_to_string(file.path()).expect("reads");
    assert!(text.contains("Which is better?") && text.contains("word1 word2 word3"), "{text}");
}

#[test]
fn the_wizard_opens_a_second_listener_with_tls_and_leaves_the_first_alone() {
    let (home, console) = running_console(100, 30);
    let before = home.proxy_port().expect("a listener");
    // Held until just before they are needed.
    let ports = [0; 2].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds"));
    let [plain, https] = ports.each_ref().map(|held| held.local_addr().expect("an address").port());
    console.send("3w");
    console.wait_for("Now only this machine", PATIENCE);
    console.send("\r");
    console.wait_for("packaged-ca brings", PATIENCE);
    console.send(&format!("\t\x15127.0.0.1\t\x15{plain}\t\x15{https}\r"));
    console.wait_for("held by", PATIENCE);
    drop(ports);
    console.send("\r");
    console.wait_for("Every rule acts", PATIENCE);
    console.send("\r");
    console.wait_for(&format!("127.0.0.1:{plain}, mode packaged-ca, TLS on port {https}"), PATIENCE);
    console.send("\r");
    console.wait_for("Clients connect to:", PATIENCE);
    console.wait_for(&format!("https://127.0.0.1:{https}"), PATIENCE);
    let status = home.answer(&["proxy", "status"]);
    let mut running: Vec<_> =
        status["listeners"].as_array().expect("listeners").iter().map(|one| one["config"]["port"].as_u64()).collect();
    running.sort_unstable();
    let mut wanted = vec![Some(u64::from(before)), Some(u64::from(plain))];
    wanted.sort_unstable();
    assert_eq!(running, wanted, "{status}");
}

#[test]
fn a_key_is_made_a_prompt_is_written_and_language_and_theme_change() {
    const F2: &str = "\x1bOQ";
    const RIGHT: &str = "\x1b[C";
    let (home, console) = running_console(100, 30);
    console.send("3va");
    console.wait_for("Create an API key", PATIENCE);
    console.send("laptop\r");
    console.wait_for("New API key: laptop", PATIENCE);
    console.send("q6a");
    console.wait_for("New prompt", PATIENCE);
    console.send("\r");
    console.wait_for("are filled in", PATIENCE);
    // Pasted text runs no commands.
    console.send("\x1b[200~Be brief.\nq\x1b[201~\x13");
    console.wait_for("saved as version 1", PATIENCE);
    let prompts = home.answer(&["api", "prompts", "list"]).to_string();
    assert!(prompts.contains("Be brief."), "{prompts}");
    console.send("\x1b");
    console.wait_for("New prompt", PATIENCE);
    console.send(F2);
    console.wait_for("Settings", PATIENCE);
    let position = |code| LANGUAGES.iter().position(|&language| language == code).expect("a language");
    console.send(&RIGHT.repeat(position("ja") - position("en")));
    console.wait_for("設定", PATIENCE);
    let before = console.screen().received.len();
    console.send(&format!("\x1b[B{RIGHT}"));
    console.wait_until("other colours are sent", PATIENCE, |screen| screen.received.len() > before + 1000);
    wait_until("both are stored", PATIENCE, || {
        let stored = |key| home.answer(&["config", "get", key])["value"].clone();
        stored("preferred_language") == "ja" && stored("console.theme") != "dark"
    });
}

/// SPEC §9.9.
#[test]
fn a_first_start_speaks_the_language_of_the_terminal_and_english_where_there_is_none() {
    for (locale, shown) in [("ja_JP.UTF-8", "エンジン"), ("tlh_KL.UTF-8", "Engines")] {
        let home = Home::in_use();
        let mut command = home.console_command(&[]);
        command.env("LANG", locale);
        let console = Terminal::start(command, 80, 24);
        console.wait_for(shown, PATIENCE);
    }
}

/// An owner that ends has no socket any more and holds its lock until its last stream is over.
#[test]
fn a_console_that_is_opened_while_the_former_owner_ends_speaks_the_stored_language() {
    let home = Home::in_use();
    home.answer(&["config", "set", "preferred_language", "ja"]);
    home.end_owner();
    let lock = std::fs::File::options().write(true).open(home.path().join("run/owner.lock")).expect("opens");
    lock.try_lock().expect("nobody owns the home");
    let console = home.console(&[], 80, 24);
    console.wait_for("エンジン", PATIENCE);
    console.wait_for("接続", PATIENCE);
    drop(lock);
    console.wait_for("稼働中 http://", PATIENCE);
}

#[test]
fn a_block_is_watched_as_it_happens_and_the_console_is_left_and_attached_again() {
    let (home, mut console) = running_console(120, 40);
    console.send("5");
    console.wait_for("No address is blocked.", PATIENCE);
    // Somebody else blocks an address; no key is pressed here.
    home.answer(&["security", "ip-blocklist", "add", "203.0.113.9", "--for", "10m", "--reason", "watched"]);
    console.wait_for("203.0.113.9", PATIENCE);
    console.wait_for("watched", PATIENCE);
    let left =
        |screen: &terminal::Screen| screen.text().lines().find(|line| line.contains("203.0.113.9")).map(str::to_owned);
    let before = left(&console.screen());
    console.wait_until("its time runs down by itself", PATIENCE, |screen| {
        let now = left(screen);
        now.is_some() && now != before
    });
    console.send("4");
    console.wait_for("203.0.113.9", PATIENCE);
    console.send("q");
    console.wait_for("Leave it running", PATIENCE);
    console.send("l");
    assert_eq!(console.wait_until_ended(PATIENCE).exit_code(), 0);
    let owner = home.owner();
    assert!(owner.is_some());
    let again = open_console(&home, 80, 24);
    again.send("5");
    again.wait_for("203.0.113.9", PATIENCE);
    assert_eq!(home.owner(), owner, "the same owner");
    again.send("x\x1b[C\r");
    again.wait_for("unblocked", PATIENCE);
    again.wait_for("No address is blocked.", PATIENCE);
}

#[test]
fn requests_of_an_earlier_owner_are_listed_searched_and_sorted_from_the_log() {
    let home = Home::in_use();
    let url = home.start_proxy();
    let address = url.trim_start_matches("http://").to_owned();
    for path in ["/v1/models", "/first/of/all", "/.env"] {
        let mut stream = std::net::TcpStream::connect(&address).expect("connects");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("asks");
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).expect("is answered");
    }
    wait_until("all are known", PATIENCE, || {
        home.answer(&["logs", "requests"]).as_array().is_some_and(|rows| rows.len() == 3)
    });
    // Its memory ends with it.
    home.end_owner();
    let console = open_console(&home, 120, 40);
    console.wait_for("Running http://", PATIENCE);
    console.send("3");
    console.wait_for("GET /first", PATIENCE);
    console.wait_for("Requests 3", PATIENCE);
    console.send("/env\r");
    console.wait_until("only what was searched is left", PATIENCE, |screen| {
        screen.text().contains("GET /.env") && !screen.text().contains("GET /first")
    });
    console.send("\x1b");
    console.wait_for("GET /first", PATIENCE);
    console.send("o");
    console.wait_for("Status↓", PATIENCE);
    console.wait_for("GET /first", PATIENCE);
}

#[test]
fn a_daemon_that_was_killed_is_missed_and_reached_again() {
    let (home, console) = running_console(100, 30);
    let first = home.owner().expect("a daemon");
    signal(first, Signal::KILL);
    console.wait_for("Reconnecting", PATIENCE);
    wait_until("another daemon owns the home", PATIENCE, || home.owner().is_some_and(|owner| owner != first));
    console.wait_until("it is reached again", PATIENCE, |screen| !screen.text().contains("Reconnecting"));
}

#[test]
fn a_read_only_console_shows_everything_and_changes_nothing() {
    let home = Home::in_use();
    home.start_proxy();
    let console = home.console(&["--read-only"], 100, 30);
    console.wait_for("READ-ONLY", PATIENCE);
    console.wait_for("Running http://", PATIENCE);
    for (keys, shown) in [("2", "Models"), ("3", "Owner"), ("4", "Last 24 hours"), ("5", "Blocked"), ("6", "Prompts")] {
        console.send(keys);
        console.wait_for(shown, PATIENCE);
    }
    console.send("3S");
    console.wait_for("This console is read-only.", PATIENCE);
    assert!(home.proxy_port().is_some(), "the listener still runs");
}

/// SPEC §9.5: watching a block happen needs no key press, nor does watching it end.
#[test]
fn a_block_appears_counts_down_and_lifts_on_screen_without_a_key_press() {
    let home = Home::in_use();
    let console = open_console(&home, 110, 30);
    wait_until("the daemon's listener runs", PATIENCE, || home.owner().is_some() && home.proxy_port().is_some());
    home.answer(&["config", "set", "guard.exposure", "public"]);
    console.send("5");
    console.wait_for("No address is blocked.", PATIENCE);
    // From here on nothing is typed. Somebody tries keys.
    let port = home.proxy_port().expect("a listener");
    for number in 0..5 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 77), 0)).into()).expect("a loopback address");
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("connects");
        let mut stream = TcpStream::from(socket);
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8\r\nconnection: close\r\n\
             authorization: Bearer wrong-{number}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sends");
        stream.read_to_end(&mut Vec::new()).expect("an answer");
    }
    console.wait_for("127.0.0.77", PATIENCE);
    console.wait_for("29m", PATIENCE);
    // One that lasts a few seconds counts down, second by second, and is gone.
    home.answer(&["security", "ip-blocklist", "add", "203.0.113.9", "--for", "6s"]);
    let line =
        |screen: &terminal::Screen| screen.text().lines().find(|line| line.contains("203.0.113.9")).map(str::to_owned);
    let mut seen = std::collections::BTreeSet::new();
    console.wait_until("it is there", PATIENCE, |screen| line(screen).is_some());
    let left = |text: &str| (1..=6).find(|seconds| text.contains(&format!(" {seconds}s")));
    let began = std::time::Instant::now();
    while let Some(now) = line(&console.screen()) {
        seen.extend(left(&now));
        assert!(began.elapsed() < PATIENCE, "it did not go: {now}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen.len() >= 3, "it counted down: {seen:?}");
    assert!(console.screen().text().contains("127.0.0.77"), "the other one goes on");
}

/// What [`a_panic_gives_the_terminal_back_and_leaves_a_report`] runs on a terminal of its own.
#[test]
#[ignore = "needs a terminal: run by a_panic_gives_the_terminal_back_and_leaves_a_report"]
fn panics_while_the_console_has_the_terminal() {
    let report = std::env::var_os("FLM_PANIC_REPORT").expect("names the report");
    flm::tui::terminal::install_panic_hook(Some(report.into()));
    let (mouse, keyboard) = (flm::tui::effect::MouseUse::Console, flm::tui::terminal::Keyboard::Kitty);
    flm::tui::terminal::enter(std::io::stdout(), mouse, keyboard).expect("a terminal");
    panic!("a widget is at fault");
}

#[test]
fn a_panic_gives_the_terminal_back_and_leaves_a_report() {
    let home = Home::new();
    let report = home.path().join("logs/panic.txt");
    let mut program = CommandBuilder::new(std::env::current_exe().expect("this program"));
    program.args(["--exact", "panics_while_the_console_has_the_terminal", "--ignored", "--nocapture"]);
    let mut program = home.at_home(program);
    program.env("FLM_PANIC_REPORT", &report);
    let mut console = Terminal::start(program, 100, 30);
    assert_ne!(console.wait_until_ended(PATIENCE).exit_code(), 0);
    let screen = console.screen();
    let entered = memchr::memmem::find(&screen.received, b"\x1b[?1049h").is_some();
    assert!(entered && !screen.is_full_screen() && screen.has_cursor(), "the terminal is as it was");
    assert!(screen.text().contains("a widget is at fault"), "the message can be read: {}", screen.text());
    assert!(screen.text().contains("The report of this fault is in"), "{}", screen.text());
    let pushed = memchr::memmem::find(&screen.received, b"\x1b[>1u");
    let popped = memchr::memmem::find(&screen.received, b"\x1b[<1u");
    assert!(pushed.is_some() && popped > pushed, "the keyboard is given back too");
    drop(screen);
    let text = std::fs::read_to_string(&report).expect("a report");
    assert!(text.contains("panicked") && text.contains("a widget is at fault"), "{text}");
    let mode = std::fs::metadata(&report).expect("a report").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_idle_console_writes_nothing() {
    let home = Home::in_use();
    let console = open_console(&home, 100, 30);
    wait_until("a daemon owns the home", PATIENCE, || home.owner().is_some());
    // Longer than a note stays.
    console.wait_until_quiet(Duration::from_secs(5), PATIENCE);
    let before = console.screen().received.len();
    // The span is what is measured.
    std::thread::sleep(Duration::from_secs(3));
    let screen = console.screen();
    let written = String::from_utf8_lossy(&screen.received[before..]).into_owned();
    assert_eq!(written, "", "the screen shows:\n{}", screen.text());
}

#[test]
fn a_port_in_use_is_named_with_its_holder_and_a_free_port_is_offered() {
    let home = Home::new();
    home.start_proxy();
    home.create_key("earlier");
    let port = home.proxy_port().expect("a listener");
    home.end_owner();
    let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free again");
    let console = open_console(&home, 100, 30);
    console.wait_for(&format!("port {port} on 127.0.0.1 is held by"), PATIENCE);
    console.wait_for("is free", PATIENCE);
    console.send("\r");
    wait_until("it listens elsewhere", PATIENCE, || home.proxy_port().is_some_and(|taken| taken != port));
}

#[test]
fn a_home_that_may_not_be_written_is_told_with_what_to_do() {
    let home = Home::new();
    let permissions = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(home.path(), permissions).expect("changes the mode");
    // The superuser is stopped by no mode, unless it gives that power away.
    let mut console = CommandBuilder::new("setpriv");
    console.args(["--bounding-set=-dac_override", "--inh-caps=-dac_override", env!("CARGO_BIN_EXE_flm-tui")]);
    let console = if rustix::process::geteuid().is_root() { home.at_home(console) } else { home.console_command(&[]) };
    let mut console = Terminal::start(console, 100, 30);
    console.wait_for("may not", PATIENCE);
    console.wait_for("check its owner and mode", PATIENCE);
    console.send("q");
    console.wait_until_ended(PATIENCE);
    assert!(!console.screen().is_full_screen(), "the terminal's own screen is back");
    assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 0);
}

#[test]
fn settings_that_are_damaged_are_told_and_kept() {
    let home = Home::new();
    let file = home.path().join("config.db");
    let damaged = b"this was a database once ".repeat(1000);
    std::fs::write(&file, &damaged).expect("writes");
    let mut console = home.console(&[], 100, 30);
    console.wait_for("config.db", PATIENCE);
    console.wait_for("damaged", PATIENCE);
    console.send("q");
    console.wait_until_ended(PATIENCE);
    assert!(!console.screen().is_full_screen(), "the terminal's own screen is back");
    assert!(std::fs::read(&file).expect("reads") == damaged, "what may be mended was touched");
}
