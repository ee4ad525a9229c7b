//! The guard as the operator sees it: replaying a request log, counts, and FLM beside an engine that holds every core.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::run;

/// The status of a request for the list of models.
pub(crate) fn models(url: &str, key: &str) -> u16 {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn a_recorded_log_tells_what_would_have_been_blocked_and_changes_nothing() {
    let home = Home::new();
    let file = home.path().join("requests.jsonl");
    let lines: Vec<_> = (0..6)
        .map(|at| {
            format!(
                r#"{{"at":{at},"client":"203.0.113.5","method":"GET","path":"/v1/models","query":"f=../../etc/passwd","user_agent":"curl/8"}}"#
            )
        })
        .collect();
    std::fs::write(&file, lines.join("\n")).expect("writes");
    let report = home.answer(&["security", "replay", file.to_str().expect("UTF-8")]);
    assert_eq!((report["requests"].as_u64(), report["refused"].as_u64()), (Some(6), Some(1)), "{report}");
    assert_eq!(report["blocks"][0]["network"], "203.0.113.5/32");
    assert_eq!(report["rules"]["path_traversal"], 5);
    assert_eq!(home.answer(&["security", "ip-blocklist", "list"]).as_array().map(Vec::len), Some(0));
    let nothing = run(&home, &["security", "replay", "/nowhere/requests.jsonl"]);
    assert_eq!(nothing.code, 2, "a file that is not there");
    // A pipe would be waited for, and a device read without an end, by the daemon.
    let endless = run(&home, &["security", "replay", "/dev/zero"]);
    assert!(endless.error()["message"].to_string().contains("not a regular file"), "{}", endless.out);
    std::fs::write(&file, "nonsense\n").expect("writes");
    let wrong = run(&home, &["security", "replay", file.to_str().expect("UTF-8")]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    let counts = home.answer(&["security", "stats", "--since", "24h"]);
    let by_hour =
        counts["hours"].as_array().expect("a list").iter().map(|hour| hour["events"].as_u64()).sum::<Option<u64>>();
    assert!(by_hour.is_some() && counts["events"].as_u64() == by_hour, "{counts}");
}

#[test]
fn an_engine_that_holds_every_core_does_not_count_as_flms_own_use() {
    let home = Home::new();
    let url = home.start_proxy();
    let created = home.answer(&["api-keys", "create", "--label", "busy", "--rpm", "0"]);
    let key = created["key"].as_str().expect("the key").to_owned();
    let policy = home.path().join("policy.json");
    std::fs::write(&policy, r#"{"resources":{"cpu_seconds":1,"memory_megabytes":16,"memory_percent":0}}"#)
        .expect("writes");
    home.answer(&["security", "policy", "set", "--json", policy.to_str().expect("UTF-8")]);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        // The engine: as many threads as there are cores, none of which is FLM's.
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let began = Instant::now();
        // Longer than three looks of the watch.
        while began.elapsed() < Duration::from_secs(4) {
            let status = models(&url, &key);
            if status != 200 {
                over.store(true, Ordering::Relaxed);
            }
            assert_eq!(status, 200);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(home.answer(&["proxy", "status"])["overload"].is_null());
}
