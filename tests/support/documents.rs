//! The documents of the repository and their code blocks (docs/documentation-policy.md).
//!
//! Included by test binaries with `#[path]`.

use std::path::{Path, PathBuf};

/// Folders of documents; every one in them is checked.
const FOLDERS: [&str; 4] = ["", "docs", "docs/adr", "docs/audit"];

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) mark: Mark,
    pub(crate) text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// By `tests/cli/docs.rs`; with what else it needs to know.
    Run(String),
    /// By another test, or by CI: its file.
    RunBy(String),
    /// With the reason.
    NoRun(String),
    /// A drawing or what a program says, which nobody runs.
    Drawing,
    None,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path in the repository, in order.
pub(crate) fn all() -> Vec<String> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        for entry in std::fs::read_dir(root().join(folder)).expect("lists") {
            let path = Path::new(folder).join(entry.expect("an entry").file_name());
            if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every document's path on this machine.
pub(crate) fn files() -> Vec<PathBuf> {
    all().into_iter().map(|document| root().join(document)).collect()
}

/// The blocks of a document, in order.
pub(crate) fn read(document: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
    blocks(&text)
}

/// The only block that a file of tests runs and that holds these words.
#[track_caller]
pub(crate) fn run_by(file: &str, document: &str, words: &str) -> String {
    let mark = Mark::RunBy(file.to_owned());
    let mut found = read(document).into_iter().filter(|block| block.mark == mark && block.text.contains(words));
    let block = found.next().unwrap_or_else(|| panic!("{document} has no block with {words:?} marked run-by {file}"));
    assert!(found.next().is_none(), "{document} has several blocks with {words:?}");
    block.text
}

pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in document.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text.push_str(&format!("{line}\n")),
            (None, Some(info)) => {
                let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
                let mark = mark(language, rest.trim());
                open = Some(Block { line: number + 1, language: language.to_owned(), mark, text: String::new() });
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a block is not closed");
    found
}

fn mark(language: &str, rest: &str) -> Mark {
    let after = |word: &str| rest.strip_prefix(word).map(str::trim).filter(|rest| !rest.is_empty()).map(str::to_owned);
    if matches!(language, "mermaid" | "text") {
        return Mark::Drawing;
    }
    if let Some(reason) = after("norun:") {
        return Mark::NoRun(reason);
    }
    if let Some(file) = after("run-by ") {
        return Mark::RunBy(file);
    }
    match rest.strip_prefix("run") {
        Some("") => Mark::Run(String::new()),
        Some(more) if more.starts_with(' ') => Mark::Run(more.trim().to_owned()),
        _ => Mark::None,
    }
}
