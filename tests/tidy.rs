//! Keeps the house tidy: who may import whom, which outside crate may be named where, and the small laws of style.
//!
//! Reads the sources as text: comments and strings are blanked, the rest is cut into tokens, and `use` trees and inline
//! paths are spread out into whole paths. [`ROOMS`] is the table of docs/architecture.md, which the last test compares.
//! Every rule has bad samples below that prove it can fail. A finding names file, line and what to do.
#![expect(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms and what they may import, from the bottom up. A new edge is the rare, reviewed kind of change: an ADR.
const ROOMS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("wire", &["types"]),
    ("config", &["types"]),
    ("telemetry", &["types"]),
    ("guard", &["types", "config"]),
    ("net", &["types", "config", "telemetry"]),
    ("storage", &["types", "config", "telemetry"]),
    ("engines", &["types", "config", "telemetry", "wire", "net"]),
    ("tls", &["types", "config", "telemetry", "net", "storage"]),
    ("audit", &["types", "config", "telemetry", "net", "storage"]),
    ("proxy", &["types", "config", "telemetry", "wire", "net", "guard", "engines", "tls", "audit"]),
    (
        "operations",
        &["types", "config", "telemetry", "wire", "net", "guard", "storage", "engines", "tls", "audit", "proxy"],
    ),
    ("control", &["types", "config", "telemetry", "net", "operations"]),
    (
        "daemon",
        &[
            "types",
            "config",
            "telemetry",
            "wire",
            "net",
            "guard",
            "storage",
            "engines",
            "tls",
            "audit",
            "proxy",
            "operations",
            "control",
        ],
    ),
    ("cli", &["types", "config", "telemetry", "control"]),
    ("tui", &["types", "config", "telemetry", "control"]),
    ("bin", &["cli", "tui", "daemon", "telemetry"]),
];

/// An outside path that may be named in some places only.
struct Fence {
    /// Paths, given by how they begin; `t!` and `println!` are macros.
    paths: &'static [&'static str],
    /// Files or folders below `src/` that may name them.
    places: &'static [&'static str],
    /// Why, and what to use elsewhere.
    reason: &'static str,
}

const FENCES: &[Fence] = &[
    Fence { paths: &["rusqlite"], places: &["storage/"], reason: "the only SQL is in storage" },
    Fence {
        paths: &["ratatui", "ratatui_textarea", "crossterm", "t!", "rust_i18n::t"],
        places: &["tui/"],
        reason: "what a terminal shows is the console's business",
    },
    Fence {
        paths: &["clap", "clap_complete", "clap_mangen"],
        places: &["cli/"],
        reason: "arguments are parsed in cli",
    },
    Fence {
        paths: &["hyper::server", "hyper_util::server"],
        places: &["proxy/", "daemon/"],
        reason: "only the proxy and the control server answer HTTP",
    },
    Fence {
        paths: &["hyper::client", "hyper_util::client"],
        places: &["net/", "control/"],
        reason: "everything that dials out goes through net (SPEC §7); control speaks over its own socket",
    },
    Fence {
        paths: &[
            "TcpStream::connect",
            "TcpStream::connect_timeout",
            "tokio::net::TcpStream::connect",
            "std::net::TcpStream::connect",
            "tokio::net::lookup_host",
            "lookup_host",
            "std::net::ToSocketAddrs",
            "ToSocketAddrs",
            "reqwest",
            "ureq",
            "hickory_resolver",
        ],
        places: &["net/"],
        reason: "everything that leaves the machine takes the way of net::egress (SPEC §7): use its Pool or Egress::open",
    },
    Fence {
        paths: &["tokio::net::TcpSocket", "TcpSocket"],
        // The listener; the demo's clients, which dial the demo on loopback.
        places: &["net/", "proxy/service.rs", "daemon/demo.rs"],
        reason: "everything that leaves the machine takes the way of net::egress (SPEC §7): use its Pool or Egress::open",
    },
    Fence {
        paths: &["UdpSocket", "std::net::UdpSocket", "tokio::net::UdpSocket"],
        // Both bind one and send nothing: which addresses are this machine's.
        places: &["net/", "engines/process_controller.rs", "proxy/service.rs"],
        reason: "a datagram goes past the egress proxy (SPEC §7)",
    },
    Fence {
        paths: &["rustls", "tokio_rustls", "rustls_native_certs", "rcgen", "instant_acme", "x509_parser"],
        places: &["tls/", "net/"],
        reason: "TLS is set up in tls and net",
    },
    Fence { paths: &["color_eyre"], places: &["bin/"], reason: "rooms have typed errors" },
    Fence { paths: &["tikv_jemallocator"], places: &["bin/"], reason: "the programs choose their allocator (ADR 23)" },
    Fence {
        paths: &["argon2"],
        places: &["guard/", "telemetry/hashing.rs"],
        reason: "hashing is decided in guard and done on the hashing threads",
    },
    Fence {
        paths: &["println!", "print!", "eprintln!", "eprint!"],
        places: &["cli/output.rs"],
        reason: "one place prints; elsewhere return a value or use tracing",
    },
    Fence {
        paths: &["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local"],
        places: &["telemetry/tasks.rs"],
        reason: "tasks are owned and named: use telemetry::tasks::Tasks",
    },
    Fence {
        paths: &["std::process::Command", "std::process::Child", "std::process::Stdio", "tokio::process"],
        places: &["engines/", "tls/", "audit/alerts/", "operations/", "control/", "daemon/"],
        reason: "other programs are started by few",
    },
];

/// Files over this many lines hide their second idea.
const LINES_MAX: usize = 800;
/// Files that are longer for now; the list only shrinks.
const LINES_EXEMPT: &[&str] = &[];

// ---------------------------------------------------------------------------------------------------- scanner

/// A word or a sign of the source, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Replaces comments and the inside of strings and characters by blanks; line breaks stay.
fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let hide = |out: &mut String, text: &[char]| out.extend(text.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    while at < chars.len() {
        let rest = &chars[at..];
        let after_word = at > 0 && is_word(chars[at - 1]);
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => quoted(rest, '"'),
            ['b' | 'c', '"', ..] if !after_word => 1 + quoted(&rest[1..], '"'),
            ['r', '"' | '#', ..] if !after_word => raw_string(rest, 1),
            ['b' | 'c', 'r', '"' | '#', ..] if !after_word => raw_string(rest, 2),
            // A character, not a lifetime: 'a' closes right after, '\n' begins with a backslash.
            ['\'', '\\', ..] => quoted(rest, '\''),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(chars[at]);
            at += 1;
        } else {
            hide(&mut out, &rest[..length]);
            at += length;
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a quoted text with its quotes.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"…"` or `r##"…"##`; 0 for a raw identifier such as `r#type`.
fn raw_string(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[open + 1..];
    body.windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| open + 1 + at + end.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words and signs of blanked source; `::` is one sign.
fn tokens(blanked: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (index, text) in blanked.lines().enumerate() {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let length = match &chars[at..] {
                [c, ..] if is_word(*c) => chars[at..].iter().take_while(|c| is_word(**c)).count(),
                [':', ':', ..] => 2,
                _ => 1,
            };
            let text: String = chars[at..at + length].iter().collect();
            if !text.trim().is_empty() {
                found.push(Token { text, line: index + 1 });
            }
            at += length;
        }
    }
    found
}

/// Drops `#[cfg(test)]` together with the `mod … { … }` that follows: tests may do what the product may not.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        let marked = rest.len() > 10 && ATTRIBUTE.iter().zip(rest).all(|(wanted, token)| token.text == *wanted);
        let module =
            marked.then(|| rest.iter().skip(ATTRIBUTE.len()).take(4).position(|token| token.text == "mod")).flatten();
        match module.map(|offset| ATTRIBUTE.len() + offset + 2) {
            Some(open) if rest.get(open).is_some_and(|token| token.text == "{") => at += open + group(&rest[open..]),
            _ => {
                kept.push(rest[0].clone());
                at += 1;
            }
        }
    }
    kept
}

/// Length of `{ … }` with its braces.
fn group(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// A whole path such as `crate::net::pool::Pool`, from a `use` tree or in line; a macro ends with `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    segments: Vec<String>,
    line: usize,
    /// Whether it is a `use`, and a public one.
    reexported: bool,
}

impl Named {
    fn begins_with(&self, path: &str) -> bool {
        let mut wanted = path.split("::");
        let mut own = self.segments.iter();
        wanted.all(|segment| own.next().is_some_and(|own| own == segment))
    }
}

/// All paths that the tokens name.
fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        let starts = token.text.chars().all(is_word) && !token.text.starts_with(|c: char| c.is_ascii_digit());
        let previous = at.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
        let follows = tokens.get(at + 1).map_or("", |next| next.text.as_str());
        // `use<'a>` says what an opaque type captures.
        if token.text == "use" && follows != "<" {
            let reexported =
                previous == "pub" || (previous == ")" && tokens[..at].iter().rev().take(5).any(|t| t.text == "pub"));
            // `::std::…` is `std::…`.
            let skip = usize::from(follows == "::");
            at = tree(tokens, at + 1 + skip, &[], reexported, &mut found);
        } else if starts && previous != "::" && previous != "." {
            at = inline(tokens, at, &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Spreads a `use` tree out; answers where it ends.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], reexported: bool, found: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    let after = tree(tokens, at, &segments, reexported, found);
                    let comma = tokens.get(after).is_some_and(|token| token.text == ",");
                    // A tree that is none, in a macro, must not stop the walk.
                    at = if comma || after == at { after + 1 } else { after };
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => {
                at += 2;
                continue;
            }
            "::" => {}
            word => segments.push(word.to_owned()),
        }
        at += 1;
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    found.push(Named { segments, line, reexported });
    at
}

/// Reads `a::b::c` or `name!` in line; answers where it ends.
fn inline(tokens: &[Token], start: usize, found: &mut Vec<Named>) -> usize {
    let mut segments = vec![tokens[start].text.clone()];
    let mut at = start + 1;
    while tokens.get(at).is_some_and(|token| token.text == "::")
        && tokens.get(at + 1).is_some_and(|token| token.text.chars().all(is_word))
    {
        segments.push(tokens[at + 1].text.clone());
        at += 2;
    }
    let is_macro = tokens.get(at).is_some_and(|token| token.text == "!")
        && tokens.get(at + 1).is_some_and(|token| matches!(token.text.as_str(), "(" | "[" | "{"));
    if is_macro && let Some(last) = segments.last_mut() {
        last.push('!');
    }
    if segments.len() > 1 || is_macro {
        found.push(Named { segments, line: tokens[start].line, reexported: false });
    }
    at
}

// ------------------------------------------------------------------------------------------------------ rules

/// The room of a file, by its path below `src/`; `None` for `lib.rs`.
fn room_of(path: &str) -> Option<&str> {
    path.split_once('/').map(|(room, _)| room)
}

fn allowed(room: &str) -> Option<&'static [&'static str]> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, imports)| *imports)
}

/// Everything that is wrong with one file, given by its path below `src/` and its text.
fn faults(path: &str, source: &str) -> Vec<String> {
    let all = tokens(&blank(source));
    let mut found = Vec::new();
    imports(path, &paths(&all), &mut found);
    fences(path, &paths(&without_tests(&all)), &mut found);
    for window in all.windows(3) {
        if let [first, middle, last] = window
            && (first.text.as_str(), middle.text.as_str(), last.text.as_str()) == ("super", "::", "super")
        {
            found.push(format!("src/{path}:{}: super::super hides where it leads; write crate::room::…", first.line));
        }
    }
    if !source.starts_with("//!") {
        found.push(format!("src/{path}:1: opens without //!; say what it is for, who calls it, what it must never do"));
    }
    let lines = source.lines().count();
    if lines > LINES_MAX && !LINES_EXEMPT.contains(&path) {
        found.push(format!("src/{path}:{lines}: over {LINES_MAX} lines; one file, one idea: split it"));
    }
    if path.matches('/').count() > 2 {
        found.push(format!("src/{path}:1: more than two folders deep"));
    }
    found
}

fn imports(path: &str, named: &[Named], found: &mut Vec<String>) {
    let Some(room) = room_of(path) else {
        for name in named.iter().filter(|name| name.reexported) {
            found.push(format!("src/{path}:{}: lib.rs re-exports nothing, it would blind this test", name.line));
        }
        return;
    };
    let Some(may_import) = allowed(room) else {
        found.push(format!("src/{path}:1: no room {room:?} in the table of tests/tidy.rs and docs/architecture.md"));
        return;
    };
    let root = if room == "bin" { "flm" } else { "crate" };
    let top = path.matches('/').count() == 1 && path.ends_with("/mod.rs");
    for name in named {
        let target = match name.segments.as_slice() {
            [first, second, ..] if first == root || (top && first == "super" && allowed(second).is_some()) => second,
            _ => continue,
        };
        let target = target.as_str();
        if target == "*" {
            found.push(format!("src/{path}:{}: a glob of the whole library", name.line));
        } else if target != room && allowed(target).is_some() {
            if !may_import.contains(&target) {
                found.push(format!(
                    "src/{path}:{}: {room} may not import {target}: move the type to types, or pass it in from daemon",
                    name.line
                ));
            }
            if name.reexported {
                found.push(format!("src/{path}:{}: re-exports room {target}; import it where it is used", name.line));
            }
        }
    }
}

fn fences(path: &str, named: &[Named], found: &mut Vec<String>) {
    for fence in FENCES {
        if fence.places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for name in named {
            if let Some(outside) = fence.paths.iter().find(|outside| name.begins_with(outside)) {
                let places = fence.places.join(", ");
                found.push(format!("src/{path}:{}: {outside} only in {places}: {}", name.line, fence.reason));
            }
        }
    }
}

/// The files that `root` reaches by its `mod` lines, `#[path]` included.
fn reachable(root: &Path) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(file) = open.pop() {
        if !file.exists() || !reached.insert(file.clone()) {
            continue;
        }
        let source = read(&file);
        let folder = file.parent().expect("has a folder");
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("has a name");
        let is_root = file == root || stem == "mod";
        let inner = if is_root { folder.to_owned() } else { folder.join(stem) };
        let words = tokens(&blank(&source));
        for window in words.windows(3) {
            if window[0].text == "mod" && window[2].text == ";" {
                let name = &window[1].text;
                let above = window[0].line.checked_sub(2).and_then(|line| source.lines().nth(line)).unwrap_or_default();
                match above.trim().strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                    Some(path) => open.push(normal(&folder.join(path))),
                    None => open.extend([inner.join(format!("{name}.rs")), inner.join(name).join("mod.rs")]),
                }
            }
        }
    }
    reached
}

/// Resolves `..` in a path without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All files below a folder whose names end with `.EXTENSION`.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

// ------------------------------------------------------------------------------------------ the house as it is

#[test]
fn every_source_file_keeps_the_rules() {
    let source = repository().join("src");
    let mut found = Vec::new();
    for file in files(&source, "rs") {
        let path = file.strip_prefix(&source).expect("below src").to_str().expect("UTF-8").to_owned();
        found.extend(faults(&path, &read(&file)));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn no_source_file_is_forgotten() {
    let source = repository().join("src");
    let mut reached = reachable(&source.join("lib.rs"));
    for binary in ["bin/flm.rs", "bin/flm-tui.rs"] {
        reached.extend(reachable(&source.join(binary)));
    }
    let forgotten: Vec<_> = files(&source, "rs").into_iter().filter(|file| !reached.contains(file)).collect();
    assert!(forgotten.is_empty(), "no mod line leads to {forgotten:?}");
}

#[test]
fn no_test_or_bench_file_is_forgotten() {
    let manifest: toml::Table = read(&repository().join("Cargo.toml")).parse().expect("Cargo.toml parses");
    let mut reached = BTreeSet::new();
    for section in ["test", "bench"] {
        for target in manifest.get(section).and_then(toml::Value::as_array).into_iter().flatten() {
            let name = target["name"].as_str().expect("a name");
            let path =
                target.get("path").and_then(toml::Value::as_str).map_or(format!("{section}s/{name}.rs"), String::from);
            let root = repository().join(&path);
            assert!(root.exists(), "Cargo.toml names {path}, which does not exist");
            reached.extend(reachable(&root));
        }
    }
    let mut all = files(&repository().join("tests"), "rs");
    all.extend(files(&repository().join("benches"), "rs"));
    // Packages of their own.
    let apart = ["tests/fuzz", "benches/ring"].map(|folder| repository().join(folder));
    let is_apart = |file: &PathBuf| apart.iter().any(|folder| file.starts_with(folder));
    let forgotten: Vec<_> = all.into_iter().filter(|file| !reached.contains(file) && !is_apart(file)).collect();
    assert!(forgotten.is_empty(), "no [[test]] or [[bench]] of Cargo.toml leads to {forgotten:?}");
}

#[test]
fn all_languages_have_the_same_keys() {
    let languages = files(&repository().join("i18n"), "yml");
    let names: Vec<_> = languages.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
    assert!(names.contains(&"en") && names.contains(&"ja"), "English and Japanese are complete (SPEC §9.9): {names:?}");
    let keys: Vec<BTreeSet<String>> = languages.iter().map(|file| yaml_keys(&read(file))).collect();
    for (name, own) in names.iter().zip(&keys) {
        let missing: Vec<_> = keys[0].symmetric_difference(own).collect();
        assert!(missing.is_empty(), "{name}.yml and {}.yml differ in {missing:?}", names[0]);
    }
}

/// One more language is one more file: what is built names none but the one that all fall back to.
#[test]
fn no_source_names_a_language() {
    let mut sources = files(&repository().join("src"), "rs");
    sources.push(repository().join("build.rs"));
    for language in files(&repository().join("i18n"), "yml") {
        let code = language.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let named = |file: &PathBuf| {
            let text = read(file);
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            product.contains(&format!("\"{code}\"")) || product.contains(&format!("{code}.yml"))
        };
        let places: Vec<_> = sources.iter().filter(|file| named(file)).collect();
        match code {
            "en" => assert_eq!(places.len(), 2, "types::language and rust_i18n's own fallback: {places:?}"),
            _ => assert!(places.is_empty(), "{code} is named in {places:?}"),
        }
    }
}

/// Dotted keys of a language file: nested maps with two blanks of indent.
fn yaml_keys(text: &str) -> BTreeSet<String> {
    let mut stack: Vec<(usize, String)> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let Some((key, _value)) = line.trim_start().split_once(':') else { continue };
        stack.retain(|(depth, _)| *depth < indent);
        stack.push((indent, key.trim_matches(['"', '\'']).to_owned()));
        keys.insert(stack.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("."));
    }
    keys
}

#[test]
fn every_theme_is_a_file_that_parses() {
    let themes = files(&repository().join("themes"), "toml");
    for theme in &themes {
        if let Err(error) = read(theme).parse::<toml::Table>() {
            panic!("{}: {error}", theme.display());
        }
    }
    let names: Vec<_> = themes.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
    for wanted in ["dark", "light", "high-contrast"] {
        assert!(names.contains(&wanted), "no theme {wanted} (SPEC §9.10) in {names:?}");
    }
}

#[test]
fn the_architecture_document_tells_the_table_and_the_diagram() {
    let document = read(&repository().join("docs/architecture.md"));
    assert_eq!(document_table(&document), table(), "the table of docs/architecture.md and ROOMS differ");
    let drawn = diagram(&document);
    let table = table();
    for (from, targets) in &drawn {
        for to in targets {
            assert!(table[from].contains(to), "the diagram draws {from} --> {to}, which ROOMS does not allow");
        }
    }
    assert_eq!(closure(&drawn), closure(&table), "the diagram of docs/architecture.md and ROOMS reach different rooms");
}

type Edges = BTreeMap<String, BTreeSet<String>>;

fn table() -> Edges {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    ROOMS.iter().map(|(room, imports)| ((*room).to_owned(), owned(imports))).collect()
}

/// Rows of the form ``| `room` | `a`, `b` |``.
fn document_table(document: &str) -> Edges {
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect::<BTreeSet<_>>();
    let mut lines = document.lines().skip_while(|line| !line.starts_with("| room | may import |"));
    let rows = lines.by_ref().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (names(cells[1]).into_iter().next().expect("a room"), names(cells[2]))
    })
    .collect()
}

/// Edges `a --> b & c` of the Mermaid block.
fn diagram(document: &str) -> Edges {
    let block = document.split("```mermaid").nth(1).and_then(|rest| rest.split("```").next()).expect("a diagram");
    let mut edges: Edges = ROOMS.iter().map(|(room, _)| ((*room).to_owned(), BTreeSet::new())).collect();
    for line in block.lines() {
        if let Some((from, targets)) = line.split_once("-->") {
            for room in from.split('&') {
                let known = edges.get_mut(room.trim()).unwrap_or_else(|| panic!("the diagram has no room {room:?}"));
                known.extend(targets.split('&').map(|to| to.trim().to_owned()));
            }
        }
    }
    edges
}

/// What each room reaches, directly or not.
fn closure(edges: &Edges) -> Edges {
    let mut reached = edges.clone();
    // Rooms are listed from the bottom up, so one pass in that order is enough.
    for (room, _) in ROOMS {
        let further: BTreeSet<String> =
            reached[*room].iter().flat_map(|to| reached.get(to).into_iter().flatten().cloned()).collect();
        reached.entry((*room).to_owned()).or_default().extend(further);
    }
    reached
}

// --------------------------------------------------------------------------------- proof that each rule can fail

/// Asserts that the sample breaks exactly one rule, and that the finding says this.
#[track_caller]
fn breaks(path: &str, source: &str, says: &str) {
    let found = faults(path, &format!("//! A sample.\n{source}"));
    assert!(matches!(found.as_slice(), [one] if one.contains(says)), "{found:?} is not one finding with {says:?}");
}

#[track_caller]
fn keeps(path: &str, source: &str) {
    let found = faults(path, &format!("//! A sample.\n{source}"));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn imports_against_the_table_are_found_in_every_spelling() {
    breaks("proxy/relay.rs", "use crate::storage::Stores;", "src/proxy/relay.rs:2: proxy may not import storage");
    breaks(
        "guard/keys.rs",
        "use crate::{types::ids::KeyId, telemetry::tasks::Tasks};",
        "guard may not import telemetry",
    );
    breaks(
        "wire/sse.rs",
        "use crate::{\n    types::{ids::KeyId, key},\n    config::{self},\n};",
        "src/wire/sse.rs:4: wire may not",
    );
    breaks("types/ids.rs", "fn f() { crate::wire::json_body::parse(); }", "types may not import wire");
    breaks("tui/state.rs", "type A = Vec<crate::cli::Launch>;", "tui may not import cli");
    breaks("net/mod.rs", "use super::engines::registry;", "net may not import engines");
    breaks("bin/flm.rs", "fn main() { flm::operations::run() }", "bin may not import operations");
    breaks("net/pool.rs", "#[cfg(test)]\nmod tests {\n use crate::engines::registry;\n}", "net may not import engines");
    breaks("cellar/mod.rs", "", "no room \"cellar\"");
    breaks("net/pool.rs", "use crate::*;", "a glob of the whole library");
}

#[test]
fn allowed_imports_comments_and_strings_are_not_found() {
    keeps("proxy/relay.rs", "use crate::engines::registry::Registry;\nuse crate::proxy::exchange::Parsed;");
    keeps(
        "guard/keys.rs",
        "// crate::storage\n/* crate::net /* nested */ crate::net */ const A: &str = \"crate::net\";",
    );
    keeps("guard/keys.rs", "const A: &str = r#\"use \"crate::net\" \"#; const B: char = '\"'; use crate::types::ids;");
    keeps("guard/keys.rs", "fn f<'a>(a: &'a str) -> char { '\\'' } const A: &[u8] = b\"crate::net\\\"\";");
    keeps("types/mod.rs", "macro_rules! call { () => { $crate::types::calls::Call } }");
    keeps("net/pool.rs", "fn f<'a>(a: &'a str) -> impl Iterator + use<'a> { a.chars(); }");
    keeps("net/pool.rs", "fn r#type() {} #[cfg(test)]\nmod tests {\n use super::*;\n}");
}

#[test]
fn outside_crates_are_fenced() {
    breaks("operations/keys.rs", "use rusqlite::Connection;", "rusqlite only in storage/");
    breaks("cli/output.rs", "use crossterm::style::Color;", "crossterm only in tui/");
    breaks("cli/keys.rs", "fn f() { let a = t!(\"header.title\"); }", "t! only in tui/");
    breaks("daemon/mod.rs", "use clap::Parser;", "clap only in cli/");
    breaks("engines/ollama.rs", "use hyper::{body::Incoming, server::conn::http1};", "hyper::server only in proxy/");
    breaks("proxy/relay.rs", "use hyper_util::client::legacy::Client;", "hyper_util::client only in net/");
    breaks(
        "engines/ollama.rs",
        "use tokio::net::TcpStream;\nasync fn f() { TcpStream::connect(a).await; }",
        "TcpStream::connect only in net/",
    );
    breaks("audit/mail.rs", "use std::net::{IpAddr, UdpSocket};", "std::net::UdpSocket only in net/");
    breaks("tls/acme.rs", "async fn f() { tokio::net::lookup_host(a).await; }", "tokio::net::lookup_host only in net/");
    breaks("operations/models.rs", "use reqwest::Client;", "reqwest only in net/");
    breaks("proxy/listener.rs", "use ::rustls::ServerConfig;", "rustls only in tls/");
    breaks("cli/mod.rs", "fn f() -> color_eyre::Result<()> { Ok(()) }", "color_eyre only in bin/");
    breaks("proxy/stages.rs", "use argon2::Argon2;", "argon2 only in guard/");
    breaks("cli/keys.rs", "fn f() { println!(\"a\"); }", "println! only in cli/output.rs");
    breaks("proxy/listener.rs", "fn f() { tokio::spawn(async {}); }", "tokio::spawn only in telemetry/tasks.rs");
    breaks("config/paths.rs", "use std::{fs, process::{Command, ExitCode}};", "std::process::Command only in engines/");
}

#[test]
fn fences_leave_their_own_places_and_tests_alone() {
    keeps("storage/config_db.rs", "use rusqlite::Connection;");
    keeps("telemetry/tasks.rs", "fn f() { tokio::spawn(async {}); }");
    keeps("bin/flm.rs", "use std::process::ExitCode;\nfn f() { flm::cli::run() }");
    keeps("net/pool.rs", "#[cfg(test)]\nmod tests {\n fn f() { tokio::spawn(async { if a { b } }); }\n}");
    breaks(
        "net/pool.rs",
        "#[cfg(test)]\nmod tests { fn f() { { } } }\nfn g() { tokio::spawn(async {}); }",
        "net/pool.rs:4",
    );
}

#[test]
fn the_small_laws_can_be_broken() {
    breaks("lib.rs", "pub use types::ids::KeyId;", "lib.rs re-exports nothing");
    breaks("engines/mod.rs", "pub use crate::wire::sse;", "re-exports room wire");
    breaks("engines/mod.rs", "pub(crate) use crate::wire::{sse};", "re-exports room wire");
    breaks("types/calls/keys.rs", "use super::super::ids::KeyId;", "super::super");
    breaks("net/a/b/c.rs", "", "more than two folders deep");
    breaks("net/pool.rs", &"\n".repeat(LINES_MAX), "over 800 lines");
    let found = faults("net/pool.rs", "use std::fmt;");
    assert!(matches!(found.as_slice(), [one] if one.contains("opens without //!")), "{found:?}");
}

#[test]
fn forgotten_files_and_missing_keys_can_be_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        std::fs::write(&path, text).expect("writes");
    };
    put("main.rs", "mod known;\n// mod unknown;\n#[path = \"../elsewhere/mod.rs\"]\nmod support;");
    put("known/mod.rs", "pub mod inner;");
    put("known/inner.rs", "");
    put("unknown.rs", "");
    let reached = reachable(&folder.path().join("main.rs"));
    let names: Vec<_> = reached.iter().map(|file| file.strip_prefix(folder.path()).expect("inside")).collect();
    assert_eq!(names, [Path::new("known/inner.rs"), Path::new("known/mod.rs"), Path::new("main.rs")]);
    assert_eq!(
        yaml_keys("a:\n  b: \"x: y\"\n  c:\n    d: z\n"),
        BTreeSet::from(["a", "a.b", "a.c", "a.c.d"].map(String::from))
    );
}

#[test]
fn a_wrong_diagram_or_table_can_be_found() {
    let document =
        "| room | may import |\n|---|---|\n| `wire` | `types`, `net` |\n\n```mermaid\nflowchart\n  wire --> types\n```";
    assert_eq!(document_table(document)["wire"], BTreeSet::from(["types".to_owned(), "net".to_owned()]));
    assert_ne!(document_table(document), table());
    assert_ne!(closure(&diagram(document)), closure(&table()));
    assert!(closure(&table())["proxy"].contains("storage"), "through audit");
}
