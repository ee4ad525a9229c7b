//! All detectors together: each rule with what it must see, what it must not, and encoded forms; and the corpora.

use std::collections::{BTreeMap, BTreeSet};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::head::Head;
use super::*;
use crate::guard::suspects::{Reached, Suspects};
use crate::types::clock::UnixMillis;

const ATTACKS: &str = include_str!("../../../tests/fixtures/guard/attacks.jsonl");
const BENIGN: &str = include_str!("../../../tests/fixtures/guard/benign.jsonl");

/// A request of a corpus.
struct Sample {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Sample {
    fn get(target: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("curl/8.9.1"));
        Self { method: Method::GET, uri: target.parse().expect("a target"), headers }
    }

    fn with(target: &str, name: &str, value: &[u8]) -> Self {
        let mut sample = Self::get(target);
        let name: HeaderName = name.parse().expect("a name");
        sample.headers.insert(name, HeaderValue::from_bytes(value).expect("a value"));
        sample
    }

    fn of(row: &Value) -> Self {
        let mut headers = HeaderMap::new();
        for pair in row["headers"].as_array().expect("headers") {
            let text = |index: usize| pair[index].as_str().expect("a text");
            // The corpus writes bytes as the letters of Latin-1.
            let bytes: Vec<u8> = text(1).chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect();
            let name: HeaderName = text(0).parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(&bytes).expect("a value"));
        }
        let text = |name: &str| row[name].as_str().expect("a text");
        Self {
            method: text("method").parse().expect("a method"),
            uri: text("target").parse().expect("a target"),
            headers,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let head = Head { method: &self.method, uri: &self.uri, headers: &self.headers, body_limit: 32 << 20 };
        look(&SecurityPolicy::default(), &head)
    }

    fn rules(&self) -> Vec<RuleName> {
        self.findings().into_iter().map(|finding| finding.rule).collect()
    }
}

fn lines(corpus: &str) -> impl Iterator<Item = Value> {
    corpus.lines().map(|line| serde_json::from_str(line).expect("JSON"))
}

#[test]
fn every_rule_of_the_policy_has_one_detector() {
    let rules: Vec<_> = DETECTORS.iter().map(|detector| detector.rule).collect();
    assert_eq!(rules.len(), RuleName::ALL.len());
    assert_eq!(rules.into_iter().collect::<BTreeSet<_>>(), RuleName::ALL.into_iter().collect());
}

/// A rule with what it must see, what it must not, and what is hidden.
type Forms = (RuleName, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// Every rule that looks at a head: what it sees, what comes close and is none, and the same hidden.
#[test]
fn each_detector_sees_its_own_near_misses_not_and_encodings_all() {
    let in_query: &[Forms] = &[
        (
            RuleName::SqlInjection,
            &["'+or+'1'='1", "1+union+select+1,2,3", "1;drop+table+users", "1+and+sleep(5)", "admin'--"],
            &[
                "don't+stop+or+go",
                "select+a+model+from+the+list",
                "rock'n'roll",
                "drop+the+table",
                "5+or+6",
                "C%23+or+D",
            ],
            &[
                "%27%20or%20%271%27%3D%271",
                "1%252520union%252520select%2525201,2",
                "1/**/UnIoN/**/SeLeCt/**/1,2",
                "%EF%BC%87%20or%201=1--",
            ],
        ),
        (
            RuleName::PathTraversal,
            &["../../etc/passwd", "/etc/shadow", "C:\\windows\\win.ini", "php://filter/x", "file:///etc/hosts"],
            &["src/main.rs", "/home/u/project", "a/../b", "1..10", "notes/etc.txt", "https://example.org/a"],
            &[
                "..%2f..%2fetc%2fpasswd",
                "..%252f..%252fetc",
                "..%c0%af..%c0%afetc",
                "%u002e%u002e%u2215x",
                "....//....//x",
            ],
        ),
        (
            RuleName::CodeInjection,
            &[
                "%3Cscript%3Ealert(1)%3C/script%3E",
                "a|id",
                "%7B%7B7*7%7D%7D",
                "$%7Bjndi:ldap://x%7D",
                "%3C!DOCTYPE+x%3E",
                "rO0ABXNyABdqYXZh",
            ],
            &["a%3Cb", "cats+%26+dogs;+mice", "%7B%22a%22:1%7D", "a|b", "%3Cthink%3E", "f(x)", "head+of+state;+tail"],
            &[
                "%253Cscript%253Ealert(1)",
                "%26lt%3Bscript%26gt%3B",
                "$%7B$%7Blower:j%7Dndi:x%7D",
                "a;c'a't+/x/y",
                "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
            ],
        ),
    ];
    for (rule, hits, misses, hidden) in in_query {
        for value in hits.iter().chain(*hidden) {
            let value = value.replace('\\', "%5C");
            assert!(Sample::get(&format!("/v1/models?q={value}")).rules().contains(rule), "{rule}: {value}");
        }
        for value in *misses {
            assert_eq!(Sample::get(&format!("/v1/models?q={value}")).findings(), [], "{rule}: {value}");
        }
    }
    let agents: &[(&str, bool)] = &[
        ("sqlmap/1.8", true),
        ("Mozilla/5.0 (compatible; Nmap Scripting Engine)", true),
        ("NIKTO", true),
        ("curl/8.9.1", false),
        ("python-httpx/0.27.2", false),
        ("Go-http-client/2.0", false),
        ("Snmapper/1.0", false),
    ];
    for (agent, is_scanner) in agents {
        let rules = Sample::with("/v1/models", "user-agent", agent.as_bytes()).rules();
        assert_eq!(rules.contains(&RuleName::ScannerAgent), *is_scanner, "{agent}");
    }
    for (agent, missing) in [("", true), ("-", true), ("x", false)] {
        let rules = Sample::with("/v1/models", "user-agent", agent.as_bytes()).rules();
        assert_eq!(rules.contains(&RuleName::MissingAgent), missing, "{agent:?}");
    }
    for (method, unusual) in [("TRACE", true), ("PROPFIND", true), ("FOO", true), ("DELETE", false), ("OPTIONS", false)]
    {
        let sample = Sample { method: method.parse().expect("a method"), ..Sample::get("/v1/models") };
        assert_eq!(sample.rules() == [RuleName::UnusualMethod], unusual, "{method}");
    }
    for (length, oversized) in [("33554433", true), ("99999999999", true), ("33554432", false), ("x", false)] {
        let rules = Sample::with("/v1/models", "content-length", length.as_bytes()).rules();
        assert_eq!(rules.contains(&RuleName::OversizedBody), oversized, "{length}");
    }
    for (path, is_trap) in [
        ("/.env", true),
        ("/WP-Admin/x", true),
        ("/%2eenv", true),
        ("/api/v1/users/7", true),
        ("/index.php", true),
        ("/environment", false),
        ("/administer", false),
        ("/v1/models/x.php", false),
        ("/api/v1/usersx", false),
    ] {
        assert_eq!(Sample::get(path).rules().contains(&RuleName::Honeypot), is_trap, "{path}");
    }
}

#[test]
fn headers_and_cookies_are_looked_at_and_credentials_never() {
    for name in ["user-agent", "referer", "x-forwarded-for", "x-anything", "origin"] {
        let rules = Sample::with("/v1/models", name, b"${jndi:ldap://x/a}").rules();
        assert!(rules.contains(&RuleName::CodeInjection), "{name}");
    }
    let cookie = Sample::with("/", "cookie", b"a=1; b=%27%20or%201=1--").findings();
    assert_eq!(cookie[0].evidence, "cookie: condition", "a session is not quoted");
    for name in ["authorization", "x-api-key", "proxy-authorization"] {
        assert_eq!(Sample::with("/v1/models", name, b"Bearer ' or 1=1-- ${jndi:ldap://x}").findings(), [], "{name}");
    }
    let quoted = Sample::get("/v1/models?q=%27+or+1=1--+flm_Ab12Cd34_secretsecret").findings();
    assert!(!quoted[0].evidence.contains("secret"), "{quoted:?}");
    let hostile = Sample::get("/v1/models?q=%27+or+1=1--%1b[31m").findings();
    assert!(!hostile[0].evidence.contains('\u{1b}'), "{hostile:?}");
}

#[test]
fn what_every_crawler_asks_for_scores_nothing() {
    for (method, path) in [("HEAD", "/"), ("GET", "/robots.txt"), ("GET", "/favicon.ico")] {
        let mut sample = Sample::get(path);
        sample.method = method.parse().expect("a method");
        sample.headers.clear();
        assert_eq!(sample.findings(), [], "{method} {path}");
    }
    assert_eq!(Sample { headers: HeaderMap::new(), ..Sample::get("/") }.rules(), [RuleName::MissingAgent]);
}

/// Case 17.
#[test]
fn attacks_of_the_half_that_no_rule_was_written_from_are_seen() {
    let mut families: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut payloads = BTreeSet::new();
    for row in lines(ATTACKS) {
        payloads.insert(row["payload"].to_string());
        if row["half"] != "held" {
            continue;
        }
        let (seen, all) = families.entry(row["family"].as_str().expect("a family").to_owned()).or_default();
        *all += 1;
        *seen += u32::from(!Sample::of(&row).findings().is_empty());
    }
    assert!(payloads.len() >= 500, "only {} payloads", payloads.len());
    let (seen, all) = families.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(all >= 500, "only {all} held-out attacks");
    assert!(seen * 100 >= all * 95, "overall {seen}/{all}");
    for (family, (seen, all)) in families {
        assert!(seen * 100 >= all * 85, "{family}: {seen}/{all}");
    }
}

/// The rates above do not notice when one rule sees less and another one makes up for it. Here every change of what is said of an
/// attack shows, by its line in attacks.jsonl; what is written is what was found, not what ought to be.
#[test]
fn what_is_said_of_each_attack_is_what_was_said_before() {
    let mut verdicts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, row) in (1..).zip(lines(ATTACKS)) {
        let said = |finding: &Finding| {
            let shape = finding.evidence.split_once(" \"").map_or(&*finding.evidence, |(shape, _)| shape);
            format!("{} {}", finding.rule, shape.trim_end_matches(" in"))
        };
        let said: Vec<_> = Sample::of(&row).findings().iter().map(said).collect();
        let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
        verdicts.entry(said).or_default().push(number.to_string());
    }
    let told: Vec<_> = verdicts.iter().map(|(said, rows)| format!("{said}\n  {}\n", rows.join(" "))).collect();
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("verdicts", told.concat());
    });
}

/// Small texts on both sides of every condition: where it stands, what is seen in it, the text. A name after `=` is that of the
/// parameter. As above, what is written is what was found: a line that changes is a decision.
#[test]
fn shapes_and_their_near_misses_are_told_apart_as_before() {
    let mut changed = Vec::new();
    for line in include_str!("../../../tests/fixtures/guard/shapes.tsv").lines() {
        let [place, wanted, text] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
            panic!("three fields: {line}")
        };
        let (place, name) = match place {
            "path" => (head::Place::Path, ""),
            "whole" => (head::Place::Query, ""),
            "query" => (head::Place::Parameter, ""),
            "agent" => (head::Place::Header(&USER_AGENT), ""),
            "origin" => (head::Place::Header(&http::header::ORIGIN), ""),
            "referer" => (head::Place::Header(&http::header::REFERER), ""),
            "type" => (head::Place::Header(&http::header::CONTENT_TYPE), ""),
            "header" => (head::Place::Header(&http::header::FROM), ""),
            named => (head::Place::Parameter, named.strip_prefix('=').expect("a place")),
        };
        let views = decode::Views::of(text.as_bytes(), decode::Plus::Plus);
        let piece = Piece { place, views, name: name.to_owned() };
        let looks = [sql_injection::look, path_traversal::look, code_injection::look];
        let seen: Vec<_> = looks.iter().filter_map(|look| look(&piece)).collect();
        let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
        if seen != wanted {
            changed.push(format!("{seen} instead of {wanted}: {text}"));
        }
    }
    assert!(changed.is_empty(), "{changed:#?}");
}

#[test]
fn what_is_quoted_is_cut_and_ends_where_a_key_begins() {
    let text = "é".repeat(QUOTED);
    assert_eq!(quoted(&text), text);
    assert_eq!(quoted(&format!("{text}x")), format!("{text}…"));
    assert_eq!(quoted("a flm_Ab12Cd34_secret b"), "a flm_…");
    assert_eq!(quoted("a\u{1b}b"), "a\\x1bb");
}

/// What an ordinary client never has is what makes a part of a head worth a look.
#[test]
fn only_parts_with_something_in_them_are_looked_at() {
    let places = |sample: &Sample| {
        let head = Head { method: &sample.method, uri: &sample.uri, headers: &sample.headers, body_limit: 1 };
        head::pieces(&head).iter().map(|piece| format!("{} {}", piece.place.title(), piece.name)).collect::<Vec<_>>()
    };
    let targets: &[(&str, &[&str])] = &[
        ("/v1/models", &[]),
        ("/a;b", &["path "]),
        ("/a..b", &["path "]),
        ("/a.b-c", &[]),
        ("/a--b", &["path "]),
        ("/a/*", &["path "]),
        ("/a*", &["path "]),
        ("/f(x)", &["path "]),
        ("/etc/x", &["path "]),
        ("/x?a=b&c=d", &[]),
        ("/x?a", &[]),
        ("/x?a'", &["query ", "query "]),
        ("/x?a&b", &["query "]),
        ("/x?a=b&&c=d", &["query "]),
        ("/x?a=b&lt=d", &["query "]),
        ("/x?A=b'", &["query a"]),
        ("/x?a'=b", &["query a'"]),
        ("/x?a=b+c", &["query a"]),
        ("/x?cmd=b", &["query cmd"]),
        ("/x?Command=b", &["query command"]),
        ("/x?a=0123456789abcde", &[]),
        ("/x?a=0123456789abcdef", &["query a"]),
        ("/x?a=0123456789abcde=", &["query a"]),
        ("/x?a=0123456789abcd_f", &[]),
    ];
    for (target, wanted) in targets {
        assert_eq!(places(&Sample::get(target)), *wanted, "{target}");
    }
    let long = |length: usize| places(&Sample::get(&format!("/x?a={}", "Q".repeat(length)))).len();
    assert_eq!((long(511), long(512)), (1, 0), "too long for base64");
    let headers: &[(&str, &str, &[&str])] = &[
        ("x-a", "plain words", &[]),
        ("x-a", "a;b", &["header x-a "]),
        ("x-a", "a\"b", &["header x-a "]),
        ("x-a", "a--b", &["header x-a "]),
        ("accept", "text/*;q=0.5, */*", &[]),
        ("accept", "a--b", &[]),
        ("accept", "a'b", &["header accept "]),
        ("sec-ch-ua", "\"x\";v=\"1\"", &[]),
        ("user-agent", "x/1 (a; b)", &[]),
        ("user-agent", "x/1 (a (b; c); d)", &[]),
        ("user-agent", "x/1 (a); b", &["header user-agent "]),
        ("user-agent", "x/1 ); (a; b)", &["header user-agent "]),
        ("user-agent", "x/1 a[b]", &["header user-agent "]),
        ("cookie", "a=1; b=[x]&(y)", &[]),
        ("cookie", "a=1; B='x'; c=2", &["cookie b"]),
        ("cookie", "'x'", &["cookie "]),
        ("api-key", "'x'", &[]),
    ];
    for (name, value, wanted) in headers {
        assert_eq!(places(&Sample::with("/", name, value.as_bytes())), *wanted, "{name}: {value}");
    }
}

#[test]
fn a_rule_that_is_off_sees_nothing_and_sets_no_trap() {
    let policy = |text: &str| SecurityPolicy::parse(text).expect("a policy");
    let sample = Sample::get("/.env?q='+or+1=1--");
    let rules = |policy: &SecurityPolicy| {
        let head = Head { method: &sample.method, uri: &sample.uri, headers: &sample.headers, body_limit: 1 };
        look(policy, &head).into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules(&SecurityPolicy::default()), [RuleName::SqlInjection, RuleName::Honeypot]);
    let off = policy(r#"{"rules":{"sql_injection":{"mode":"off"}}}"#);
    assert_eq!(rules(&off), [RuleName::Honeypot], "a trap scores as a trap, once");
    let off = policy(r#"{"rules":{"honeypot":{"mode":"off"}}}"#);
    assert!(trap(&off, "/.env").is_none());
    assert_eq!(rules(&off), [RuleName::SqlInjection, RuleName::PathTraversal]);
}

#[test]
fn a_trap_of_the_operator_answers_what_its_ending_promises() {
    let policy = SecurityPolicy::parse(r#"{"honeypot_paths":["/api/keys","/Backup/","/x.json","/x.env","/x.xml"]}"#);
    let policy = policy.expect("a policy");
    let told = |path: &str| match trap(&policy, path) {
        Some(Trap::Page(page)) => Some((page.status, page.content_type)),
        Some(Trap::Probe) => Some((404, "")),
        None => None,
    };
    for (path, wanted) in [
        ("/api/keys", Some((200, "application/json"))),
        ("/api/keys/7", Some((200, "application/json"))),
        ("/api/keysx", None),
        ("/BACKUP/a", Some((200, "text/html; charset=UTF-8"))),
        ("/backup/a.txt", Some((200, "text/plain; charset=utf-8"))),
        ("/x.json", Some((200, "application/json"))),
        ("/x.env", Some((200, "text/plain; charset=utf-8"))),
        ("/x.xml", Some((200, "application/xml"))),
        ("/wp-admin", Some((302, "text/html; charset=UTF-8"))),
        ("/wp-content", Some((404, ""))),
        ("/a.php", Some((404, ""))),
        ("/.well-known/a.php", None),
        ("/v1/a.php", None),
        ("/engine/a.php", None),
        ("/", None),
    ] {
        assert_eq!(told(path), wanted, "{path}");
    }
}

/// Case 19.
#[test]
fn benign_traffic_is_not_scored_and_never_blocked() {
    let (suspects, policy) = (Suspects::default(), SecurityPolicy::default());
    let address = "203.0.113.5".parse().expect("address");
    let (mut scored, mut all) = (Vec::new(), 0);
    for row in lines(BENIGN) {
        all += 1;
        let findings = Sample::of(&row).findings();
        if findings.is_empty() {
            continue;
        }
        scored.push(format!("{} {findings:?}", row["target"]));
        // All of them from one address, and within one moment: the hardest case.
        let outcome = suspects.add(&policy, address, findings, UnixMillis(0));
        assert!(outcome.would_reach < Reached::Blocked(std::time::Duration::ZERO), "{scored:?}");
    }
    assert!(all >= 2000, "only {all} requests");
    assert!(scored.len() * 1000 <= all, "{} of {all}: {scored:#?}", scored.len());
}

#[test]
fn an_ordinary_request_has_no_piece_that_is_looked_at_closely() {
    let row = lines(BENIGN).find(|row| {
        row["method"] == "POST"
            && row["headers"].to_string().contains("x-stainless-lang")
            && !row["headers"].to_string().contains("cookie")
            && !row["headers"].to_string().contains("x-note")
            && !row["headers"].to_string().contains("x-user")
            && !row["headers"].to_string().contains("x-title")
    });
    let sample = Sample::of(&row.expect("a request of OpenAI's library"));
    let head = Head { method: &sample.method, uri: &sample.uri, headers: &sample.headers, body_limit: 1 };
    assert!(head::pieces(&head).iter().all(|piece| piece.place != head::Place::Path), "{:?}", head::pieces(&head));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_head_makes_a_detector_panic(query in "[!-~&&[^#]]{0,80}", value in proptest::collection::vec(0x20_u8..=0xff, 0..120)) {
            if let Ok(uri) = format!("/v1/models?{query}").parse::<Uri>()
                && let Ok(value) = HeaderValue::from_bytes(&value)
            {
                let mut sample = Sample::get("/");
                sample.uri = uri;
                sample.headers.insert("x-a", value.clone());
                sample.headers.insert("cookie", value.clone());
                sample.headers.insert(USER_AGENT, value);
                let _findings = sample.findings();
            }
        }
    }
}
