//! `flm chat`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use clap::Args;

use super::output::{Format, Output, Piece, TextStream, for_stdout};
use super::session::Session;
use crate::config::files::{self, Audience};
use crate::types::calls::chat::{Chat, ChatProgress};
use crate::types::chat::{AudioClip, ChatAnswer, ChatDelivery, ChatRoute, Said, Sampling, Speaker};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::request::TokenSource;
use crate::types::text::escape;

/// Largest picture or sound: what the endpoint takes as well (SPEC §4.4, 25 MB of audio).
const MEDIA_LIMIT: u64 = 25_000_000;

#[derive(Debug, Args)]
pub(super) struct ChatArguments {
    /// Any name under which clients may ask for it
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The question [default: read from stdin]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with the question
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A picture that belongs to it: PNG, JPEG or WebP; may be given again
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// The URL of a picture, fetched by FLM when `media.fetch_remote` allows it; may be given again
    #[arg(long, value_name = "URL")]
    image_url: Vec<String>,
    /// Sound that belongs to it: WAV, MP3, FLAC or Ogg
    #[arg(long, value_name = "FILE", conflicts_with = "responses")]
    audio: Option<PathBuf>,
    /// Print the answer as it comes
    #[arg(long)]
    stream: bool,
    /// Print JSON, as --format json does
    #[arg(long)]
    json: bool,
    /// Ask through /v1/responses instead of /v1/chat/completions
    #[arg(long)]
    responses: bool,
    /// What the answer may consist of, such as text,audio
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "responses")]
    modalities: Vec<String>,
    /// Where sound in the answer is written to
    #[arg(long, value_name = "FILE")]
    save_audio: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArguments,
}

/// How a model picks its words.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct SamplingArguments {
    /// 0 is the likeliest word every time [default: the model's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Longest answer in tokens [default: the model's]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// The same seed gives the same answer, where the engine can
    #[arg(long, value_name = "S")]
    seed: Option<i64>,
}

impl SamplingArguments {
    pub(super) fn sampling(self) -> Sampling {
        Sampling { temperature: self.temperature, max_tokens: self.max_tokens, seed: self.seed }
    }
}

impl ChatArguments {
    /// The format in which results and failures are written.
    pub(super) fn format(&self, otherwise: Format) -> Format {
        if self.json { Format::Json } else { otherwise }
    }

    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let mut images = self.image.iter().map(|file| picture(file)).collect::<Outcome<Vec<_>>>()?;
        images.extend(self.image_url.iter().cloned());
        let audio = self.audio.as_deref().map(sound).transpose()?;
        let has_media = audio.is_some() || !images.is_empty();
        let prompt = match question(self.prompt.as_deref(), self.prompt_file.as_deref())? {
            None if has_media => String::new(),
            None => return Err(no_question()),
            Some(prompt) => prompt,
        };
        let call = Chat {
            model: self.model,
            prompt,
            earlier: self.system.map(|text| Said { by: Speaker::System, text }).into_iter().collect(),
            images,
            audio,
            modalities: self.modalities,
            route: if self.responses { ChatRoute::Responses } else { ChatRoute::Completions },
            delivery: if self.stream { ChatDelivery::Streamed } else { ChatDelivery::Whole },
            sampling: self.sampling.sampling(),
        };
        let streamed = call.delivery == ChatDelivery::Streamed;
        let mut stream = TextStream::new(session.format);
        let outcome = session
            .follow_until(call, |told| {
                let piece = match &told {
                    ChatProgress::Text(text) => Piece::Said(text),
                    ChatProgress::Reasoning(text) => Piece::Thought(text),
                    ChatProgress::Begun { .. } => Piece::Silent,
                };
                if streamed { stream.piece(&told, piece) } else { std::ops::ControlFlow::Continue(()) }
            })
            .await;
        stream.end();
        let Some(answer) = outcome? else { return Ok(Output::nothing()) };
        let saved = self.save_audio.map(|file| save(&answer, &file)).transpose()?;
        let text = if streamed { String::new() } else { for_stdout(answer.text.trim_end()).into_owned() };
        let mut note = summary(&answer);
        if let Some(saved) = saved {
            note.push_str(&saved);
        }
        Ok(Output::new(&answer, text).note(note))
    }
}

/// The question: as given, from a file, or from stdin when that is no terminal.
pub(super) fn question(prompt: Option<&str>, file: Option<&Path>) -> Outcome<Option<String>> {
    let text = match (prompt, file) {
        (Some(prompt), _) => prompt.to_owned(),
        (None, Some(file)) => files::read_to_string(file)?,
        (None, None) if io::stdin().is_terminal() => return Ok(None),
        (None, None) => files::read_text(io::stdin().lock()).map_err(|error| {
            Failure::new(ErrorCode::IoError, format!("the question cannot be read from stdin: {error}"))
                .hint("give it with --prompt TEXT or --prompt-file FILE")
        })?,
    };
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

pub(super) fn no_question() -> Failure {
    Failure::new(ErrorCode::InvalidArgument, "there is no question to ask")
        .hint("give it with --prompt TEXT or --prompt-file FILE, or pipe it in")
}

/// `req_… · 200 · first token 120 ms · 45.3 tok/s · 12 + 345 tokens · 7.6 s`.
fn summary(answer: &ChatAnswer) -> String {
    let mut parts = vec![escape(answer.request_id.as_deref().unwrap_or("no request id")).into_owned()];
    parts.push(answer.status.to_string());
    if let Some(first) = answer.timing.first_token_ms {
        parts.push(format!("first token {first:.0} ms"));
    }
    if let Some(rate) = answer.timing.tokens_per_second {
        parts.push(format!("{rate:.1} tok/s"));
    }
    let usage = &answer.usage;
    match usage.source {
        TokenSource::Engine => parts.push(format!("{} + {} tokens", usage.prompt, usage.completion)),
        TokenSource::Estimated => parts.push(format!("~{} tokens", usage.completion)),
        TokenSource::None => {}
    }
    parts.push(format!("{:.1} s", answer.timing.total_ms / 1000.0));
    if let Some(reason) = answer.finish_reason.as_deref().filter(|reason| !matches!(*reason, "stop" | "completed")) {
        parts.push(format!("ended by {}", escape(reason)));
    }
    parts.join(" · ")
}

/// A picture as a `data:` URL.
fn picture(file: &Path) -> Outcome<String> {
    let content = media(file)?;
    let kind = match content.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xff, 0xd8, 0xff, ..] => "jpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        _ => return Err(no_media(file, "a PNG, JPEG or WebP picture")),
    };
    Ok(format!("data:image/{kind};base64,{}", Base64::encode_string(&content)))
}

fn sound(file: &Path) -> Outcome<AudioClip> {
    let content = media(file)?;
    let format = match content.as_slice() {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "wav",
        // An ID3 tag, or the sync word of an MPEG frame.
        [b'I', b'D', b'3', ..] | [0xff, 0xe0..=0xff, ..] => "mp3",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'O', b'g', b'g', b'S', ..] => "ogg",
        _ => return Err(no_media(file, "WAV, MP3, FLAC or Ogg sound")),
    };
    Ok(AudioClip { format: format.to_owned(), data: Base64::encode_string(&content) })
}

fn media(file: &Path) -> Outcome<Vec<u8>> {
    let size = files::size(file)?;
    if size > MEDIA_LIMIT {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} has {size} bytes; pictures and sound may have {MEDIA_LIMIT}", file.display()),
        )
        .hint("send a smaller one"));
    }
    Ok(files::read(file)?)
}

fn no_media(file: &Path, wanted: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("{} is not {wanted}", file.display()))
        .hint("the content is looked at, not the name; convert the file first")
}

/// Writes the sound of an answer and says so.
fn save(answer: &ChatAnswer, file: &Path) -> Outcome<String> {
    let Some(clip) = &answer.audio else {
        let mut failure = Failure::new(ErrorCode::NotFound, "there is no sound in the answer")
            .hint("ask for it with --modalities text,audio, and a model that speaks");
        failure.request_id.clone_from(&answer.request_id);
        return Err(failure);
    };
    // A stream brings its sound in pieces, each in base64 of its own.
    let sound = Base64::decode_vec(&clip.data).map_err(|error| {
        Failure::new(ErrorCode::EngineApiError, format!("the sound in the answer is no base64: {error}"))
            .hint("the engine's own log may say more")
    })?;
    files::replace(file, &sound, Audience::Everyone)?;
    Ok(format!("\n{} bytes of sound ({}) are in {}", sound.len(), escape(&clip.format), file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::chat::ChatTiming;
    use crate::types::request::TokenUsage;

    fn file(folder: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = folder.path().join("file");
        files::replace(&path, content, Audience::Owner).expect("writes");
        path
    }

    #[test]
    fn media_are_known_by_their_content() {
        let folder = tempfile::tempdir().expect("folder");
        let png = file(&folder, b"\x89PNG\r\n\x1a\n");
        assert_eq!(picture(&png).expect("a picture"), "data:image/png;base64,iVBORw0KGgo=");
        assert!(sound(&png).is_err());
        let wav = file(&folder, b"RIFF\0\0\0\0WAVEfmt ");
        assert_eq!(sound(&wav).expect("sound").format, "wav");
        assert!(picture(&wav).expect_err("no picture").message.contains("PNG"));
        assert_eq!(picture(&folder.path().join("none")).expect_err("not there").code, ErrorCode::IoError);
    }

    #[test]
    fn a_summary_tells_what_is_known_and_nothing_else() {
        let mut answer = ChatAnswer {
            model: "m".into(),
            status: 200,
            request_id: Some("req_1".into()),
            text: String::new(),
            reasoning: String::new(),
            audio: None,
            finish_reason: Some("length".into()),
            usage: TokenUsage { prompt: 3, completion: 11, cached: 0, source: TokenSource::Engine },
            timing: ChatTiming::of(Some(100.0), 1100.0, 11),
        };
        assert_eq!(
            summary(&answer),
            "req_1 · 200 · first token 100 ms · 10.0 tok/s · 3 + 11 tokens · 1.1 s · ended by length"
        );
        answer.usage = TokenUsage::default();
        answer.timing = ChatTiming::of(None, 50.0, 0);
        answer.finish_reason = Some("stop".into());
        assert_eq!(summary(&answer), "req_1 · 200 · 0.1 s");
    }
}
