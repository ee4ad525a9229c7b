//! A fast fake engine: OpenAI's chat route with answers that are ready before they are asked for.
//!
//! Run by the bench as its own process, on one thread of bare tokio, so that it costs as little of the machine as can
//! be. What it does is chosen by the request: `"stream":true` streams `max_tokens` chunks, at once for the model
//! `bench-fast`, one each 10 ms for `bench-paced`, one each second for `bench-held`; otherwise one JSON answer.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Fault;

/// The models that it lists.
pub(crate) const FAST: &str = "bench-fast";
/// One chunk each 10 ms: 100 chunks/s, the rate of a quick engine.
pub(crate) const PACED: &str = "bench-paced";
/// One chunk each second: streams that are held open.
pub(crate) const HELD: &str = "bench-held";

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// Serves until killed; writes `listening PORT` to stdout once it can be connected to.
pub(crate) fn run() -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(std::io::stdout(), "listening {}", listener.local_addr()?.port())?;
        loop {
            let (stream, _peer) = listener.accept().await?;
            tokio::spawn(async move {
                // A proxy that closes ends the connection; there is nobody to tell.
                let _ended = serve(stream).await;
            });
        }
    })
}

async fn serve(mut stream: TcpStream) -> Result<(), std::io::Error> {
    stream.set_nodelay(true)?;
    let answers = Answers::new();
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let body_len = content_length(&buffer[..head]);
        let chunked = body_len.is_none() && has(&buffer[..head], b"ransfer-");
        let total = match body_len {
            Some(length) => {
                while buffer.len() < head + length {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                head + length
            }
            None if chunked => loop {
                if let Some(end) = memmem::find(&buffer[head..], b"0\r\n\r\n") {
                    break head + end + 5;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            },
            None => head,
        };
        answer(&mut stream, &answers, &buffer[..head], &buffer[head..total]).await?;
        buffer.drain(..total);
    }
}

async fn answer(stream: &mut TcpStream, answers: &Answers, head: &[u8], body: &[u8]) -> Result<(), std::io::Error> {
    if head.starts_with(b"GET ") {
        let known = head.starts_with(b"GET /v1/models");
        return stream.write_all(if known { &answers.models } else { &answers.not_found }).await;
    }
    if !has(body, b"\"stream\":true") && !has(body, b"\"stream\": true") {
        return stream.write_all(&answers.whole).await;
    }
    let chunks = number_after(body, b"\"max_tokens\":").unwrap_or(16);
    let interval = if has(body, PACED.as_bytes()) {
        Some(Duration::from_millis(10))
    } else if has(body, HELD.as_bytes()) {
        Some(Duration::from_secs(1))
    } else {
        None
    };
    stream.write_all(STREAM_HEAD).await?;
    let mut ticks = interval.map(tokio::time::interval);
    for _ in 0..chunks {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        stream.write_all(&answers.chunk).await?;
    }
    if has(body, b"\"include_usage\":true") {
        stream.write_all(&answers.usage).await?;
    }
    stream.write_all(&answers.done).await
}

struct Answers {
    models: Vec<u8>,
    not_found: Vec<u8>,
    whole: Vec<u8>,
    chunk: Vec<u8>,
    usage: Vec<u8>,
    done: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let entry =
            |model: &str| format!(r#"{{"id":"{model}","object":"model","created":1700000000,"owned_by":"bench"}}"#);
        let models = format!(r#"{{"object":"list","data":[{},{},{}]}}"#, entry(FAST), entry(PACED), entry(HELD));
        let whole = concat!(
            r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench-fast","#,
            r#""choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog."},"#,
            r#""logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":10,"total_tokens":22}}"#
        );
        let chunk = concat!(
            r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-fast","#,
            r#""choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}"#
        );
        let usage = concat!(
            r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-fast","choices":[],"#,
            r#""usage":{"prompt_tokens":12,"completion_tokens":10,"total_tokens":22}}"#
        );
        let done = event("[DONE]");
        Self {
            models: message("200 OK", &models),
            not_found: message("404 Not Found", r#"{"error":{"message":"not found"}}"#),
            whole: message("200 OK", whole),
            chunk: event(chunk),
            usage: event(usage),
            done: [done.as_slice(), b"0\r\n\r\n"].concat(),
        }
    }
}

fn message(status: &str, json: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}", json.len())
        .into_bytes()
}

/// One server-sent event in one HTTP chunk.
fn event(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn has(text: &[u8], wanted: &[u8]) -> bool {
    memmem::find(text, wanted).is_some()
}

fn content_length(head: &[u8]) -> Option<usize> {
    number_after(head, b"content-length:").or_else(|| number_after(head, b"Content-Length:"))
}

fn number_after(text: &[u8], name: &[u8]) -> Option<usize> {
    let rest = &text[memmem::find(text, name)? + name.len()..];
    let digits = rest.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) * 10 + usize::from(digit - b'0')))
}
