//! What translating a stream costs, in CPU time per chunk: an Ollama engine's lines for an OpenAI client (SPEC's target is
//! 10 µs), and an OpenAI engine's chunks for clients of every other dialect.
//!
//! `cargo bench --bench translation`. The baseline of the same run reads each line into a JSON value and writes it again,
//! which is the least that a translator without a plan would do. Figures: docs/benchmarks.md.

#[expect(dead_code, reason = "other benches use the rest")]
#[path = "measure.rs"]
mod measure;

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use flm::types::clock::Clock;
use flm::wire::client::{About, ClientDialect};
use flm::wire::json_body::JsonBody;
use flm::wire::ollama_answer::ChatTranslator;
use flm::wire::openai_tap::UsageForClient;
use flm::wire::pivot::OllamaCall;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Chunks of one stream, and streams per round: some 100 ms of work each.
const CHUNKS: usize = 500;
const STREAMS: usize = 40;
const ROUNDS: usize = 9;
/// SPEC, issue 3: translation of an Ollama stream costs at most so much per chunk.
const TARGET_MICROSECONDS: f64 = 10.0;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            let _nobody_listens = writeln!(std::io::stderr(), "error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    let lines = ollama_lines();
    let chunks = openai_chunks();
    let baseline = median(&mut || parse_and_write(&lines))?;
    let mut out = std::io::stdout();
    writeln!(out, "CPU time per chunk, median of {ROUNDS} rounds of {STREAMS} streams of {CHUNKS} chunks")?;
    writeln!(out, "{:<44} {:>8} {:>16}", "", "µs", "of the baseline")?;
    let mut row = |name: &str, microseconds: f64| {
        writeln!(out, "{name:<44} {microseconds:>8.2} {:>15.2}x", microseconds / baseline)
    };
    row("baseline: a JSON value read and written", baseline)?;
    let ollama = median(&mut || from_ollama(&lines))?;
    row("an Ollama engine for an OpenAI client", ollama)?;
    for (name, dialect) in [
        ("an OpenAI engine for an Anthropic client", ClientDialect::Messages),
        ("an OpenAI engine for a Responses client", ClientDialect::Responses),
        ("an OpenAI engine for an Ollama client", ClientDialect::Ollama(OllamaCall::Chat)),
    ] {
        row(name, median(&mut || into_dialect(dialect, &chunks))?)?;
    }
    let verdict = if ollama <= TARGET_MICROSECONDS { "met" } else { "missed" };
    writeln!(out, "target for an Ollama stream: {TARGET_MICROSECONDS} µs, {verdict}")?;
    Ok(())
}

/// Microseconds of CPU time per chunk.
fn median(work: &mut dyn FnMut() -> Result<(), Fault>) -> Result<f64, Fault> {
    work()?;
    let chunks = u32::try_from(CHUNKS * STREAMS)?;
    measure::microseconds_each(ROUNDS, chunks, || (0..STREAMS).try_for_each(|_| work()))
}

fn ollama_lines() -> Vec<Bytes> {
    let mut lines: Vec<Bytes> = (0..CHUNKS - 1)
        .map(|number| {
            Bytes::from(format!(
                "{{\"model\":\"qwen3:8b\",\"created_at\":\"2026-08-21T10:00:00.123456789Z\",\
                 \"message\":{{\"role\":\"assistant\",\"content\":\" token{number}\"}},\"done\":false}}\n"
            ))
        })
        .collect();
    lines.push(Bytes::from_static(
        b"{\"model\":\"qwen3:8b\",\"created_at\":\"2026-08-21T10:00:09Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\
          \"done\":true,\"done_reason\":\"stop\",\"total_duration\":5000000,\"prompt_eval_count\":31,\"eval_count\":499}\n",
    ));
    lines
}

fn openai_chunks() -> Vec<Bytes> {
    let head = "\"created\":1795440748,\"id\":\"chatcmpl-TPcp09CyT5IlgxCzbH3Q11EyVdnR0lY5\",\"model\":\"qwen3-8b\",\
                \"system_fingerprint\":\"b11434-unknown\",\"object\":\"chat.completion.chunk\"";
    let mut chunks: Vec<Bytes> = (0..CHUNKS - 1)
        .map(|number| {
            Bytes::from(format!(
                "data: {{\"choices\":[{{\"finish_reason\":null,\"index\":0,\"delta\":{{\"content\":\" token{number}\"}}}}],{head}}}\n\n"
            ))
        })
        .collect();
    chunks.push(Bytes::from(format!(
        "data: {{\"choices\":[{{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{{}}}}],{head}}}\n\ndata: [DONE]\n\n"
    )));
    chunks
}

fn parse_and_write(lines: &[Bytes]) -> Result<(), Fault> {
    for line in lines {
        let value: serde_json::Value = serde_json::from_slice(line)?;
        black_box(value.to_string());
    }
    Ok(())
}

fn from_ollama(lines: &[Bytes]) -> Result<(), Fault> {
    let mut translator = ChatTranslator::new("chatcmpl-1".to_owned(), UsageForClient::Pass);
    let mut out = Vec::new();
    for line in lines {
        translator.push(line, &mut out)?;
        black_box(&out);
        out.clear();
    }
    translator.finish(&mut out)?;
    Ok(())
}

fn into_dialect(dialect: ClientDialect, chunks: &[Bytes]) -> Result<(), Fault> {
    let request = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"input":"x","stream":true}"#;
    let body = JsonBody::parse(Bytes::from_static(request))?;
    let clock = Clock::system();
    let about = About { request_id: "req_00000000000000000000", model: "m", clock: &clock };
    let mut client = dialect.translate(&body, about)?.ok_or("no translator")?.client;
    let mut out = VecDeque::new();
    for chunk in chunks {
        client.push(chunk.clone(), &mut out)?;
        black_box(&out);
        out.clear();
    }
    Ok(())
}
