//! Reads the daemon's log files: the newest lines, and what comes after a place, over rotation (SPEC §5.11).
//!
//! Called by `operations`. Blocks: call it off the runtime.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::logging::log_files_in;
use crate::types::calls::logs::{LogPage, LogPlace};
use crate::types::clock::UnixMillis;

/// Of each file at most this much is looked at for the newest lines.
const TAIL: u64 = 16 << 20;
/// A page is at most this large.
const PAGE: usize = 1 << 20;

/// The newest lines, oldest of them first, and where the log ends now.
///
/// # Errors
/// When a file cannot be read.
pub fn newest(folder: &Path, since: Option<UnixMillis>, limit: usize) -> io::Result<LogPage> {
    let mut kept = VecDeque::with_capacity(limit.min(1024));
    let mut next = LogPlace::default();
    for path in log_files_in(folder) {
        let mut file = File::open(&path)?;
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut reader = BufReader::new(file.take(length - start));
        let mut place = LogPlace { file: name(&path), offset: start };
        let mut first = start > 0;
        while let Some(line) = next_line(&mut reader, &mut place)? {
            // The first line of a tail is most likely a part of one.
            if std::mem::take(&mut first) {
                continue;
            }
            let line = parse(&line);
            if since.is_none_or(|since| time(&line).is_none_or(|at| at >= since)) {
                if kept.len() == limit {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        }
        next = place;
    }
    Ok(LogPage { lines: kept.into(), next })
}

/// The lines after a place; none when nothing came. A file that was removed meanwhile is passed over.
///
/// # Errors
/// When a file cannot be read.
pub fn after(folder: &Path, place: &LogPlace, limit: usize) -> io::Result<LogPage> {
    let mut page = LogPage { lines: Vec::new(), next: place.clone() };
    let mut size = 0;
    for path in log_files_in(folder) {
        let file = name(&path);
        if file < place.file {
            continue;
        }
        let offset = if file == place.file { place.offset } else { 0 };
        let mut opened = File::open(&path)?;
        opened.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::new(opened);
        page.next = LogPlace { file, offset };
        while page.lines.len() < limit && size < PAGE {
            let Some(line) = next_line(&mut reader, &mut page.next)? else { break };
            size += line.len();
            page.lines.push(parse(&line));
        }
        if page.lines.len() >= limit || size >= PAGE {
            break;
        }
    }
    Ok(page)
}

/// The next whole line; one that is still being written is left for later.
fn next_line(reader: &mut impl io::BufRead, place: &mut LogPlace) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    place.offset += read as u64;
    Ok(Some(line))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn parse(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line)
        .unwrap_or_else(|_| serde_json::json!({ "message": String::from_utf8_lossy(line).into_owned() }))
}

fn time(line: &serde_json::Value) -> Option<UnixMillis> {
    let at: jiff::Timestamp = line.get("timestamp")?.as_str()?.parse().ok()?;
    Some(UnixMillis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn write(folder: &Path, day: &str, text: &str) {
        let path = folder.join(format!("flm.{day}.log"));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
        file.write_all(text.as_bytes()).expect("writes");
    }

    fn line(time: &str, message: &str) -> String {
        format!("{{\"timestamp\":\"{time}\",\"level\":\"INFO\",\"fields\":{{\"message\":\"{message}\"}}}}\n")
    }

    fn messages(page: &LogPage) -> Vec<String> {
        let message = |line: &serde_json::Value| line["fields"]["message"].as_str().unwrap_or("?").to_owned();
        page.lines.iter().map(message).collect()
    }

    #[test]
    fn the_newest_lines_come_from_all_files_and_reading_goes_on_over_rotation() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path();
        assert_eq!(newest(folder, None, 10).expect("reads"), LogPage::default());
        write(folder, "2026-11-28", &(line("2026-11-28T10:00:00Z", "a") + &line("2026-11-28T23:59:59Z", "b")));
        write(folder, "2026-11-29", &line("2026-11-29T00:00:01Z", "c"));
        let page = newest(folder, None, 2).expect("reads");
        assert_eq!(messages(&page), ["b", "c"]);
        let since: jiff::Timestamp = "2026-11-29T00:00:00Z".parse().expect("a time");
        let page = newest(folder, Some(UnixMillis(since.as_millisecond())), 10).expect("reads");
        assert_eq!(messages(&page), ["c"]);

        // Half a line is left for later, and a new day begins a new file.
        let whole = line("2026-11-29T12:00:00Z", "d");
        write(folder, "2026-11-29", &whole[..20]);
        let page = after(folder, &page.next, 10).expect("reads");
        assert!(page.lines.is_empty());
        write(folder, "2026-11-29", &whole[20..]);
        write(folder, "2026-11-30", "no JSON\n");
        let page = after(folder, &page.next, 10).expect("reads");
        assert_eq!((messages(&page), &page.lines[1]["message"]), (vec!["d".into(), "?".into()], &"no JSON".into()));
        assert!(after(folder, &page.next, 10).expect("reads").lines.is_empty());

        // The file that was being read is removed by rotation.
        std::fs::remove_file(folder.join("flm.2026-11-30.log")).expect("removes");
        write(folder, "2026-12-01", &(line("2026-12-01T00:00:00Z", "e") + &line("2026-12-01T00:00:01Z", "f")));
        let first = after(folder, &page.next, 1).expect("reads");
        assert_eq!(messages(&first), ["e"]);
        assert_eq!(messages(&after(folder, &first.next, 1).expect("reads")), ["f"]);
    }
}
