//! The forms of OpenAI's routes that take files: what they may hold, how one becomes a JSON object with files beside it, and
//! how an engine gets it (SPEC §4.1, §4.6).
//!
//! Called by `proxy` (body stage) and by the adapters of `engines`. The form of a client is never passed on: known fields become
//! the pivot's, so that everything after the body stage sees one shape, and the engine's form is written anew from them.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Map, Number, Value};

use crate::wire::json_body::JsonBody;
use crate::wire::media_kind::MediaKind;
use crate::wire::multipart::{self, Boundary, IsFile, MultipartFault, Part, Written};

/// What a form may hold.
#[derive(Debug, PartialEq, Eq)]
pub struct FormSpec {
    /// Texts beside `model`.
    pub texts: &'static [TextField],
    /// Files.
    pub files: &'static [FileField],
}

/// A text of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct TextField {
    /// As it is written to engines and named to clients.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// Whose word it is.
    pub word: Word,
}

/// What a text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Anything.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A JSON number.
    Number,
    /// `true` or `false`.
    Switch,
    /// Several texts, each a part of its own; the name ends in `[]`.
    Texts,
    /// Several `data:` URLs.
    DataUrls,
}

/// Whose word a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// OpenAI's: every engine of the route knows or ignores it.
    OpenAi,
    /// vLLM's (its `TranscriptionRequest`); llama.cpp answers 400 to some of them, since it reads a form's texts as strings.
    Vllm,
}

/// A file of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct FileField {
    /// As it is written to engines.
    pub name: &'static str,
    /// What it is.
    pub holds: FileHolds,
    /// How many there may be: the least and the most. Several are written under the name with `[]`.
    pub count: (usize, usize),
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileHolds {
    /// A sound.
    Audio,
    /// An image.
    Image,
}

const fn text(name: &'static str, holds: Holds) -> TextField {
    TextField { name, holds, word: Word::OpenAi }
}

const fn vllm(name: &'static str, holds: Holds) -> TextField {
    TextField { name, holds, word: Word::Vllm }
}

/// The formats of a transcription; `diarized_json` is of OpenAI's diarizing models.
const FORMATS: &[&str] = &["json", "text", "srt", "verbose_json", "vtt", "diarized_json"];

/// `/v1/audio/transcriptions` (OpenAI's API reference, Create transcription; vLLM's `TranscriptionRequest`).
pub static TRANSCRIPTION: FormSpec = FormSpec {
    texts: &[
        text("language", Holds::Text),
        text("prompt", Holds::Text),
        text("response_format", Holds::OneOf(FORMATS)),
        text("temperature", Holds::Number),
        text("stream", Holds::Switch),
        text("timestamp_granularities[]", Holds::Texts),
        text("include[]", Holds::Texts),
        text("chunking_strategy", Holds::Text),
        text("known_speaker_names[]", Holds::Texts),
        text("known_speaker_references[]", Holds::DataUrls),
        vllm("to_language", Holds::Text),
        vllm("hotwords", Holds::Text),
        vllm("seed", Holds::Number),
        vllm("top_p", Holds::Number),
        vllm("top_k", Holds::Number),
        vllm("min_p", Holds::Number),
        vllm("repetition_penalty", Holds::Number),
        vllm("frequency_penalty", Holds::Number),
        vllm("presence_penalty", Holds::Number),
        vllm("max_completion_tokens", Holds::Number),
        vllm("stream_include_usage", Holds::Switch),
        vllm("stream_continuous_usage_stats", Holds::Switch),
    ],
    files: &[FileField { name: "file", holds: FileHolds::Audio, count: (1, 1) }],
};

/// `/v1/audio/translations` (OpenAI's API reference, Create translation; vLLM's `TranslationRequest`).
pub static TRANSLATION: FormSpec = FormSpec {
    texts: &[
        text("prompt", Holds::Text),
        text("response_format", Holds::OneOf(FORMATS)),
        text("temperature", Holds::Number),
        vllm("stream", Holds::Switch),
        vllm("language", Holds::Text),
        vllm("to_language", Holds::Text),
        vllm("seed", Holds::Number),
        vllm("max_completion_tokens", Holds::Number),
        vllm("stream_include_usage", Holds::Switch),
        vllm("stream_continuous_usage_stats", Holds::Switch),
    ],
    files: &[FileField { name: "file", holds: FileHolds::Audio, count: (1, 1) }],
};

/// `/v1/images/edits` (OpenAI's API reference, Create image edit).
pub static IMAGE_EDIT: FormSpec = FormSpec {
    texts: &[
        text("prompt", Holds::Text),
        text("background", Holds::Text),
        text("input_fidelity", Holds::Text),
        text("moderation", Holds::Text),
        text("n", Holds::Number),
        text("output_compression", Holds::Number),
        text("output_format", Holds::Text),
        text("partial_images", Holds::Number),
        text("quality", Holds::Text),
        text("response_format", Holds::OneOf(&["url", "b64_json"])),
        text("size", Holds::Text),
        text("stream", Holds::Switch),
        text("user", Holds::Text),
    ],
    files: &[
        FileField { name: "image", holds: FileHolds::Image, count: (1, 16) },
        FileField { name: "mask", holds: FileHolds::Image, count: (0, 1) },
    ],
};

/// The longest text of a form, bytes: prompts are at most 32,000 characters (OpenAI's API reference, Create image edit).
const MAX_TEXT: usize = 256 << 10;

/// How large files may be, bytes (SPEC §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Of an image.
    pub image: usize,
    /// Of a sound.
    pub audio: usize,
}

/// A file on its way to an engine, known by its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormFile {
    /// The field, without `[]`.
    pub field: &'static str,
    /// What it is.
    pub kind: MediaKind,
    /// Its bytes.
    pub content: Bytes,
}

/// A form in the pivot's shape.
#[derive(Debug)]
pub struct Form {
    /// The texts as a JSON object: numbers are numbers, switches are `true` or `false`, lists are lists.
    pub body: Bytes,
    /// The files.
    pub files: Vec<FormFile>,
    /// Fields that no engine of the route has a word for; outside text.
    pub dropped: Vec<String>,
}

/// What is wrong with a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] MultipartFault),
    /// A field that stands there once may not stand there twice: FLM and an engine could pick different ones.
    #[error("the field '{0}' stands there twice")]
    Duplicate(String),
    /// A text is not what the field holds; the second part says what is expected.
    #[error("the field '{0}' must be {1}")]
    WrongType(String, String),
    /// A file is missing.
    #[error("the file '{0}' is missing: {1}")]
    Missing(&'static str, &'static str),
    /// More files than the field takes.
    #[error("the field '{0}' takes at most {1} files")]
    TooManyFiles(&'static str, usize),
    /// A file is too large.
    #[error("the file '{0}' is larger than the limit of {1} bytes")]
    TooLarge(&'static str, usize),
    /// A file has another format than FLM takes.
    #[error("the file '{0}' is not {1}: its first bytes say so, whatever its name and type")]
    UnknownFormat(&'static str, &'static str),
}

impl FileHolds {
    fn kind(self, bytes: &[u8]) -> Option<MediaKind> {
        match self {
            Self::Audio => MediaKind::of_audio(bytes),
            Self::Image => MediaKind::of_image(bytes),
        }
    }

    fn limit(self, limits: FileLimits) -> usize {
        match self {
            Self::Audio => limits.audio,
            Self::Image => limits.image,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Audio => "a WAV, MP3, FLAC, OGG or M4A file",
            Self::Image => "a PNG, JPEG or WebP image",
        }
    }
}

impl FormSpec {
    /// Reads a whole form.
    ///
    /// # Errors
    /// See [`FormFault`].
    pub fn read(&self, body: &Bytes, boundary: &Boundary, limits: FileLimits) -> Result<Form, FormFault> {
        let mut fields = Map::new();
        let mut files: Vec<FormFile> = Vec::new();
        let mut dropped = Vec::new();
        for part in multipart::parse(body, boundary)? {
            // `image[]` and `image` are one field, whichever an engine or a client library writes.
            let plain = part.name.strip_suffix("[]").unwrap_or(&part.name);
            if let Some(field) = self.files.iter().find(|field| field.name == plain) {
                files.push(file(field, part, &files, limits)?);
            } else if part.name == "model" {
                put(&mut fields, "model", Holds::Text, &part)?;
            } else if let Some(field) =
                self.texts.iter().find(|field| field.name.strip_suffix("[]").unwrap_or(field.name) == plain)
            {
                put(&mut fields, field.name, field.holds, &part)?;
            } else if part.is_file == IsFile::File {
                return Err(FormFault::WrongType(part.name, "left out: this route takes no such file".to_owned()));
            } else if !dropped.contains(&part.name) {
                dropped.push(part.name);
            }
        }
        for field in self.files {
            if files.iter().filter(|file| file.field == field.name).count() < field.count.0 {
                return Err(FormFault::Missing(field.name, field.holds.title()));
            }
        }
        Ok(Form { body: Bytes::from(Value::from(fields).to_string()), files, dropped })
    }

    /// Writes the form that an engine gets; answers its media type, its body, and the fields that were left out because only vLLM
    /// knows them. `random` see [`multipart::write`].
    #[must_use]
    pub fn write(
        &self,
        body: &JsonBody,
        files: &[FormFile],
        model: &str,
        words: Word,
        random: impl FnMut() -> u128,
    ) -> (String, Bytes, Vec<String>) {
        let mut texts: Vec<(&'static str, String)> = vec![("model", model.to_owned())];
        let mut left_out = Vec::new();
        for field in self.texts {
            let Some(value) = body.raw(field.name).and_then(|raw| serde_json::from_str::<Value>(raw).ok()) else {
                continue;
            };
            if field.word == Word::Vllm && words == Word::OpenAi {
                left_out.push(field.name.to_owned());
                continue;
            }
            match value {
                Value::String(text) => texts.push((field.name, text)),
                Value::Array(items) => {
                    texts.extend(items.iter().filter_map(Value::as_str).map(|item| (field.name, item.to_owned())));
                }
                Value::Null => {}
                other => texts.push((field.name, other.to_string())),
            }
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for file in files {
            *counts.entry(file.field).or_default() += 1;
        }
        let names = |file: &FormFile| match (file.field, counts[file.field]) {
            ("image", 2..) => "image[]",
            (field, _) => field,
        };
        let mut parts: Vec<Written<'_>> =
            texts.iter().map(|(name, text)| Written { name, file: None, content: text.as_bytes() }).collect();
        parts.extend(files.iter().map(|file| Written {
            name: names(file),
            file: Some((file.kind.file_name(), file.kind.media_type())),
            content: &file.content,
        }));
        let (media_type, body) = multipart::write(&parts, random);
        (media_type, body, left_out)
    }
}

fn file(field: &FileField, part: Part, before: &[FormFile], limits: FileLimits) -> Result<FormFile, FormFault> {
    if part.is_file == IsFile::Text {
        return Err(FormFault::WrongType(field.name.to_owned(), "a file: its part has no file name".to_owned()));
    }
    if before.iter().filter(|other| other.field == field.name).count() == field.count.1 {
        return Err(match field.count.1 {
            1 => FormFault::Duplicate(field.name.to_owned()),
            most => FormFault::TooManyFiles(field.name, most),
        });
    }
    let limit = field.holds.limit(limits);
    if part.content.len() > limit {
        return Err(FormFault::TooLarge(field.name, limit));
    }
    let kind = field.holds.kind(&part.content).ok_or(FormFault::UnknownFormat(field.name, field.holds.title()))?;
    Ok(FormFile { field: field.name, kind, content: part.content })
}

/// Puts a text into the object.
fn put(fields: &mut Map<String, Value>, name: &'static str, holds: Holds, part: &Part) -> Result<(), FormFault> {
    let wrong = |expected: &str| FormFault::WrongType(name.to_owned(), expected.to_owned());
    if part.is_file == IsFile::File {
        return Err(wrong("a text, not a file"));
    }
    if part.content.len() > MAX_TEXT {
        return Err(wrong("shorter than 256 KiB"));
    }
    let text = std::str::from_utf8(&part.content).map_err(|_| wrong("UTF-8"))?;
    let list = matches!(holds, Holds::Texts | Holds::DataUrls);
    if !list && fields.contains_key(name) {
        return Err(FormFault::Duplicate(name.to_owned()));
    }
    let value = match holds {
        Holds::Text | Holds::Texts => Value::from(text),
        Holds::DataUrls if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) => {
            Value::from(text)
        }
        Holds::DataUrls => return Err(wrong("data: URLs: no engine fetches anything")),
        Holds::OneOf(words) if words.contains(&text) => Value::from(text),
        Holds::OneOf(words) => return Err(wrong(&format!("one of {}", words.join(", ")))),
        Holds::Number => serde_json::from_str::<Number>(text.trim()).map(Value::from).map_err(|_| wrong("a number"))?,
        Holds::Switch => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Value::from(true),
            "false" | "0" => Value::from(false),
            _ => return Err(wrong("true or false")),
        },
    };
    if list {
        if let Value::Array(items) = fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            items.push(value);
        }
    } else {
        fields.insert(name.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FileLimits = FileLimits { image: 64, audio: 64 };
    const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt ";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    fn form(parts: &[(&'static str, Option<&[u8]>, &str)]) -> (Bytes, Boundary) {
        let parts: Vec<Written<'_>> = parts
            .iter()
            .map(|(name, file, text)| Written {
                name,
                file: file.map(|_| ("x", "text/plain")),
                content: file.unwrap_or(text.as_bytes()),
            })
            .collect();
        let (media_type, body) = multipart::write(&parts, || 1);
        (body, Boundary::of_media_type(&media_type).expect("valid").expect("a form"))
    }

    fn read(spec: &FormSpec, parts: &[(&'static str, Option<&[u8]>, &str)]) -> Result<Form, FormFault> {
        let (body, boundary) = form(parts);
        spec.read(&body, &boundary, LIMITS)
    }

    #[test]
    fn a_form_becomes_an_object_with_files_beside_it() {
        let read = read(
            &TRANSCRIPTION,
            &[
                ("file", Some(WAV), ""),
                ("model", None, "whisper"),
                ("temperature", None, "0.2"),
                ("stream", None, "True"),
                ("timestamp_granularities[]", None, "word"),
                ("timestamp_granularities", None, "segment"),
                ("prompt", None, "a \"b\"\n"),
                ("api_base", None, "http://127.0.0.1"),
            ],
        )
        .expect("reads");
        let told: Value = serde_json::from_slice(&read.body).expect("JSON");
        assert_eq!(
            told,
            serde_json::json!({"model": "whisper", "temperature": 0.2, "stream": true, "prompt": "a \"b\"\n",
                "timestamp_granularities[]": ["word", "segment"]})
        );
        assert_eq!((read.files[0].kind, &read.files[0].content[..]), (MediaKind::Wav, WAV));
        assert_eq!(read.dropped, ["api_base"]);
    }

    #[test]
    fn what_a_form_may_not_hold_is_named() {
        let file = ("file", Some(WAV), "");
        let large = [WAV, &[0; 64]].concat();
        for (parts, fault) in [
            (vec![("model", None, "m")], FormFault::Missing("file", "a WAV, MP3, FLAC, OGG or M4A file")),
            (vec![file, file], FormFault::Duplicate("file".into())),
            (vec![file, ("model", None, "a"), ("model", None, "b")], FormFault::Duplicate("model".into())),
            (vec![file, ("temperature", None, "hot")], FormFault::WrongType("temperature".into(), "a number".into())),
            (vec![file, ("temperature", None, "NaN")], FormFault::WrongType("temperature".into(), "a number".into())),
            (vec![file, ("stream", None, "yes")], FormFault::WrongType("stream".into(), "true or false".into())),
            (vec![("file", Some(PNG), "")], FormFault::UnknownFormat("file", "a WAV, MP3, FLAC, OGG or M4A file")),
            (vec![("file", Some(b""), "")], FormFault::UnknownFormat("file", "a WAV, MP3, FLAC, OGG or M4A file")),
            (vec![("file", Some(&large), "")], FormFault::TooLarge("file", 64)),
        ] {
            assert_eq!(read(&TRANSCRIPTION, &parts).map(|_| ()), Err(fault));
        }
        for parts in [
            vec![("file", None, "RIFF")],
            vec![file, ("model", Some(WAV), "")],
            vec![file, ("other", Some(WAV), "")],
            vec![file, ("response_format", None, "html")],
            vec![file, ("known_speaker_references[]", None, "http://169.254.169.254/")],
        ] {
            assert!(matches!(read(&TRANSCRIPTION, &parts), Err(FormFault::WrongType(..))), "{parts:?}");
        }
        let many = vec![("image[]", Some(PNG), ""); 17];
        assert_eq!(read(&IMAGE_EDIT, &many).map(|_| ()), Err(FormFault::TooManyFiles("image", 16)));
    }

    #[test]
    fn an_engine_gets_a_form_of_its_own() {
        let asked = read(
            &IMAGE_EDIT,
            &[
                ("image[]", Some(PNG), ""),
                ("image[]", Some(PNG), ""),
                ("mask", Some(PNG), ""),
                ("n", None, "2"),
                ("model", None, "a"),
            ],
        )
        .expect("reads");
        let body = JsonBody::parse(asked.body).expect("parses");
        let (media_type, written, _) = IMAGE_EDIT.write(&body, &asked.files, "b", Word::OpenAi, || 5);
        let boundary = Boundary::of_media_type(&media_type).expect("valid").expect("a form");
        let parts = multipart::parse(&written, &boundary).expect("reads");
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["model", "n", "image[]", "image[]", "mask"]);
        assert_eq!((&parts[0].content[..], &parts[1].content[..]), (&b"b"[..], &b"2"[..]));
        assert!(memchr::memmem::find(&written, b"filename=\"image.png\"\r\ncontent-type: image/png").is_some());

        let asked = read(&TRANSCRIPTION, &[("file", Some(WAV), ""), ("top_k", None, "4"), ("language", None, "de")])
            .expect("reads");
        let body = JsonBody::parse(asked.body).expect("parses");
        let (_, written, left_out) = TRANSCRIPTION.write(&body, &asked.files, "b", Word::OpenAi, || 5);
        assert_eq!(left_out, ["top_k"]);
        assert!(memchr::memmem::find(&written, b"top_k").is_none());
        let (_, written, left_out) = TRANSCRIPTION.write(&body, &asked.files, "b", Word::Vllm, || 5);
        assert!(left_out.is_empty() && memchr::memmem::find(&written, b"top_k").is_some());
    }
}
