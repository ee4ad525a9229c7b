//! What client and server of the control protocol agree on (SPEC §4.10).
//!
//! `POST /admin/<operation>` with JSON arguments answers `{"version":"1.0","data":…}` or `{"error":{…}}`, the same
//! shapes that commands print (SPEC §2). `GET /admin/events` answers one JSON line per live event until either side
//! closes. An operation that takes long answers lines: `{"progress":…}` as often as it has something to tell, then one of
//! the two shapes. One connection carries one exchange; closing it cancels an operation that only reads or takes long.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Paths begin with it.
pub const PREFIX: &str = "/admin/";
/// The live lane.
pub const EVENTS: &str = "/admin/events";
/// Answers as soon as the owner serves.
pub const HEALTH: &str = "/admin/health";
/// Version of the program that asks: values of two versions may differ in shape.
pub const VERSION_HEADER: &str = "flm-version";
/// Present with `read-only` on connections that may only look (SPEC §9.7).
pub const ACCESS_HEADER: &str = "flm-access";
/// The only value of [`ACCESS_HEADER`].
pub const READ_ONLY: &str = "read-only";
/// `Host` of every request: there is no network name behind a Unix socket.
pub const HOST: &str = "flm";
/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Version of the JSON shapes (SPEC §2).
pub const SHAPE: &str = "1.0";
/// Operations that another version may ask for: what it takes to see and end an owner of another version.
pub const ANY_VERSION: &[&str] = &["proxy/status", "proxy/end"];

/// `{"version":"1.0","data":…}`.
#[derive(Debug, Serialize)]
struct Success<'a> {
    version: &'static str,
    data: &'a RawValue,
}

/// Either shape, as it is read.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    error: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Refusal<'a> {
    error: &'a Failure,
}

/// Writes an answer; status and body.
#[must_use]
pub fn write_answer(outcome: &Outcome<Bytes>) -> (StatusCode, Bytes) {
    let written = match outcome {
        Ok(data) => serde_json::from_slice::<&RawValue>(data)
            .and_then(|data| serde_json::to_vec(&Success { version: SHAPE, data }))
            .map(|body| (StatusCode::OK, body)),
        Err(failure) => serde_json::to_vec(&Refusal { error: failure }).map(|body| (status_of(failure.code), body)),
    };
    match written {
        Ok((status, body)) => (status, body.into()),
        // Cannot happen with values of this program; the client then says that the answer is damaged.
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    }
}

/// Writes how far an operation is: one line.
#[must_use]
pub fn write_progress(progress: &[u8]) -> Bytes {
    [b"{\"progress\":", progress, b"}\n"].concat().into()
}

/// What a line that tells how far an operation is holds, as JSON; `None` when the line is its answer.
pub fn progress_of(line: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        progress: &'a RawValue,
    }
    let told: Told<'_> = serde_json::from_slice(line).ok()?;
    Some(told.progress.get())
}

/// What an answer of either shape holds: the result as JSON, or the failure.
pub fn data_of(body: &[u8]) -> Outcome<&str> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    match (answer.error, answer.data) {
        (Some(failure), _) => Err(failure),
        // `()` is written as null, which a borrowed `Option` reads as absent.
        (None, data) => Ok(data.map_or("null", RawValue::get)),
    }
}

/// Reads a value of either. The one place of this room where the types of all operations are read: each costs code.
pub fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Outcome<T> {
    serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))
}

fn damaged(why: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the proxy's answer cannot be read: {why}"))
        .hint("restart it with this version: flm proxy stop --all, then flm proxy start")
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::NotFound | ErrorCode::EngineNotFound => StatusCode::NOT_FOUND,
        ErrorCode::ReadOnly => StatusCode::FORBIDDEN,
        ErrorCode::InvalidArgument
        | ErrorCode::ProxyInvalidConfig
        | ErrorCode::ConfigNotSet
        | ErrorCode::PolicyInvalid => StatusCode::BAD_REQUEST,
        ErrorCode::ProxyAlreadyRunning | ErrorCode::ProxyPortInUse => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_answer<T: serde::de::DeserializeOwned>(body: &[u8]) -> Outcome<T> {
        read(data_of(body)?.as_bytes())
    }

    #[test]
    fn answers_survive_the_way() {
        let (status, body) = write_answer(&Ok(Bytes::from_static(b"[1,2]")));
        assert_eq!((status, &body[..]), (StatusCode::OK, &br#"{"version":"1.0","data":[1,2]}"#[..]));
        assert_eq!(read_answer::<Vec<u32>>(&body), Ok(vec![1, 2]));

        let (_, body) = write_answer(&Ok(Bytes::from_static(b"null")));
        assert_eq!(read_answer::<()>(&body), Ok(()));
        assert_eq!(read_answer::<Option<u32>>(&body), Ok(None));
    }

    #[test]
    fn failures_keep_code_message_and_hint() {
        let failure = Failure::new(ErrorCode::ProxyPortInUse, "port 8484 is taken").hint("use --port 8485");
        let (status, body) = write_answer(&Err(failure.clone()));
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(read_answer::<u32>(&body), Err(failure));
    }

    #[test]
    fn progress_is_told_from_the_answer() {
        let told = |line: &[u8]| progress_of(line).map(|json| read::<u32>(json.as_bytes()));
        assert_eq!(told(&write_progress(b"7")), Some(Ok(7)));
        assert_eq!(told(&write_answer(&Ok(Bytes::from_static(b"7"))).1), None);
        assert!(told(&write_progress(b"\"x\"")).is_some_and(|told| told.is_err()));
    }

    #[test]
    fn garbage_is_a_failure_that_says_what_to_do() {
        let failure = read_answer::<u32>(b"<html>").expect_err("no JSON");
        assert!(failure.hint.expect("a hint").contains("flm proxy stop"));
    }
}
