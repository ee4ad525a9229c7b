//! Forms with files, `multipart/form-data` (RFC 7578, RFC 2046 §5.1.1): a bounded reader of a whole body, and a writer.
//!
//! Called by [`super::form`]. The body was capped before it was buffered, and parts are slices of it: nothing is copied.
//! Must never guess: what another reader could take for something else (a name twice in one head, a part without a name,
//! an encoding, a missing end) is refused, so that FLM and an engine cannot disagree about a form.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// Parts of one form. The largest real one has sixteen images and about fifteen texts.
pub const MAX_PARTS: usize = 64;

/// Bytes of one part's head.
pub const MAX_HEAD: usize = 4 << 10;

/// Header lines of one part.
pub const MAX_HEADERS: usize = 8;

/// Longest name of a field that is repeated in a message.
const MAX_NAME: usize = 128;

/// What separates the parts, as the `Content-Type` of a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(String);

/// Why a form cannot be read: told to the client with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartFault {
    /// The media type names no usable boundary.
    #[error("the Content-Type has no valid boundary of 1 to 70 characters")]
    Boundary,
    /// The body does not begin with its boundary.
    #[error("the form does not begin with its boundary")]
    NoBeginning,
    /// The body ends before the closing boundary.
    #[error("the form is cut off: its closing boundary is missing")]
    CutOff,
    /// More follows the closing boundary than white space.
    #[error("something follows the end of the form")]
    Trailing,
    /// More than [`MAX_PARTS`] parts.
    #[error("the form has more than {MAX_PARTS} parts")]
    TooManyParts,
    /// A head is longer than [`MAX_HEAD`] or has more than [`MAX_HEADERS`] lines.
    #[error("the head of part {part} is longer than {MAX_HEAD} bytes or has more than {MAX_HEADERS} lines")]
    LongHead {
        /// Counted from one.
        part: usize,
    },
    /// A head that is none.
    #[error("the head of part {part} is not valid: {reason}")]
    Head {
        /// Counted from one.
        part: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The field.
    pub name: String,
    /// Whether it carries a file name: then it is a file, whatever it holds. The name itself goes nowhere.
    pub is_file: IsFile,
    /// What it holds.
    pub content: Bytes,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsFile {
    /// A file.
    File,
    /// A text.
    Text,
}

impl Boundary {
    /// Reads the boundary out of a `Content-Type`; `Ok(None)` when the type is another one.
    ///
    /// # Errors
    /// [`MultipartFault::Boundary`] when there is none, or several, or one that RFC 2046 does not allow.
    pub fn of_media_type(media_type: &str) -> Result<Option<Self>, MultipartFault> {
        let (essence, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
        if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Ok(None);
        }
        let mut found = None;
        for (name, value) in Parameters(parameters) {
            let value = value.ok_or(MultipartFault::Boundary)?;
            if name.eq_ignore_ascii_case("boundary") && found.replace(value).is_some() {
                return Err(MultipartFault::Boundary);
            }
        }
        let boundary = found.ok_or(MultipartFault::Boundary)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
        let fits = (1..=70).contains(&boundary.len()) && boundary.bytes().all(allowed) && !boundary.ends_with(' ');
        if fits { Ok(Some(Self(boundary))) } else { Err(MultipartFault::Boundary) }
    }
}

/// Reads a whole form.
///
/// # Errors
/// See [`MultipartFault`].
pub fn parse(body: &Bytes, boundary: &Boundary) -> Result<Vec<Part>, MultipartFault> {
    let dashes = format!("--{}", boundary.0);
    let delimiter = format!("\r\n{dashes}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    // A preamble is allowed by the RFC and sent by nobody.
    let begin = body.strip_prefix(b"\r\n".as_slice()).unwrap_or(body);
    if !begin.starts_with(dashes.as_bytes()) {
        return Err(MultipartFault::NoBeginning);
    }
    let mut at = body.len() - begin.len() + dashes.len();
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if let Some(after) = rest.strip_prefix(b"--") {
            return if after.trim_ascii().is_empty() { Ok(parts) } else { Err(MultipartFault::Trailing) };
        }
        let padding = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if !rest[padding..].starts_with(b"\r\n") {
            return Err(if rest.len() <= padding + 1 { MultipartFault::CutOff } else { MultipartFault::Trailing });
        }
        if parts.len() == MAX_PARTS {
            return Err(MultipartFault::TooManyParts);
        }
        // The line end of the boundary stays: a part without any header has its head's end right there.
        at += padding;
        let number = parts.len() + 1;
        let window = &body[at..body.len().min(at + 2 + MAX_HEAD + 4)];
        let Some(head_length) = memmem::find(window, b"\r\n\r\n") else {
            let long = window.len() == 2 + MAX_HEAD + 4;
            return Err(if long { MultipartFault::LongHead { part: number } } else { MultipartFault::CutOff });
        };
        let (name, is_file) = head(&window[..head_length], number)?;
        let content = at + head_length + 4;
        // A content may be empty: then its delimiter begins with the line end of the head.
        let from = content - 2;
        let length = finder.find(&body[from..]).ok_or(MultipartFault::CutOff)?;
        let end = (from + length).max(content);
        parts.push(Part { name, is_file, content: body.slice(content..end) });
        at = from + length + delimiter.len();
    }
}

/// Reads the head of a part: which field, and whether it is a file.
fn head(head: &[u8], part: usize) -> Result<(String, IsFile), MultipartFault> {
    let fault = |reason| MultipartFault::Head { part, reason };
    let text = std::str::from_utf8(head).map_err(|_| fault("it is not UTF-8"))?;
    let mut disposition = None;
    for (index, line) in text.split("\r\n").skip(1).enumerate() {
        if index == MAX_HEADERS {
            return Err(MultipartFault::LongHead { part });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| fault("a line without a colon"))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(fault("a header's name is not valid"));
        }
        if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(fault("a header holds a control character"));
        }
        if name.eq_ignore_ascii_case("content-disposition") && disposition.replace(value).is_some() {
            return Err(fault("two Content-Disposition headers"));
        }
        // RFC 7578 §4.7: senders must not use it, and readers differ over it.
        let is_identity = ["7bit", "8bit", "binary"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
        if name.eq_ignore_ascii_case("content-transfer-encoding") && !is_identity {
            return Err(fault("a Content-Transfer-Encoding other than binary"));
        }
    }
    let disposition = disposition.ok_or_else(|| fault("no Content-Disposition"))?;
    let (kind, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(fault("its Content-Disposition is not form-data"));
    }
    let (mut field, mut is_file) = (None, IsFile::Text);
    for (name, value) in Parameters(parameters) {
        let value = value.ok_or_else(|| fault("a parameter of its Content-Disposition is not valid"))?;
        if name.eq_ignore_ascii_case("name") {
            if field.replace(value).is_some() {
                return Err(fault("two names"));
            }
        } else if name.eq_ignore_ascii_case("filename") || name.eq_ignore_ascii_case("filename*") {
            is_file = IsFile::File;
        }
    }
    match field {
        Some(name) if (1..=MAX_NAME).contains(&name.len()) => Ok((name, is_file)),
        Some(_) => Err(fault("its name is empty or longer than 128 bytes")),
        None => Err(fault("no name")),
    }
}

/// The parameters of a header's value; a value of `None` is one that cannot be read.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([' ', '\t', ';']);
        if text.is_empty() {
            return None;
        }
        let (name, after) = text.split_once('=').unwrap_or((text, ""));
        let name = name.trim();
        let after = after.trim_start();
        let Some(quoted) = after.strip_prefix('"') else {
            let end = after.find(';').unwrap_or(after.len());
            self.0 = &after[end..];
            let value = after[..end].trim();
            return Some((name, (!value.is_empty() && !value.contains('"')).then(|| value.to_owned())));
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    let rest = quoted[at + 1..].trim_start();
                    self.0 = rest;
                    return Some((name, (rest.is_empty() || rest.starts_with(';')).then_some(value)));
                }
                // Browsers write `%22` for a quote and a bare backslash in names of Windows files: only a quote or another
                // backslash makes it an escape.
                '\\' if quoted[at + 1..].starts_with(['"', '\\']) => value.extend(characters.next().map(|(_, c)| c)),
                other => value.push(other),
            }
        }
        self.0 = "";
        Some((name, None))
    }
}

/// A part to be written. Names are FLM's own words, so nothing in them needs an escape.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The field.
    pub name: &'static str,
    /// File name and media type; `None` for a text.
    pub file: Option<(&'static str, &'static str)>,
    /// What it holds.
    pub content: &'a [u8],
}

/// Writes a form; answers its media type and its body. `random` gives the boundary, which is made anew until none of the contents
/// holds it: a client that guessed it could otherwise put fields of its own into the form that an engine gets.
#[must_use]
pub fn write(parts: &[Written<'_>], mut random: impl FnMut() -> u128) -> (String, Bytes) {
    let boundary = loop {
        let boundary = format!("flm-{:032x}", random());
        let finder = memmem::Finder::new(boundary.as_bytes());
        if parts.iter().all(|part| finder.find(part.content).is_none()) {
            break boundary;
        }
    };
    let size: usize = parts.iter().map(|part| part.content.len() + 256).sum();
    let mut body = BytesMut::with_capacity(size + 64);
    for part in parts {
        let head = match part.file {
            None => format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{}\"\r\n\r\n", part.name),
            Some((file_name, media_type)) => format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{}\"; filename=\"{file_name}\"\r\n\
                 content-type: {media_type}\r\n\r\n",
                part.name
            ),
        };
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(part.content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boundary(text: &str) -> Boundary {
        let media_type = format!("multipart/form-data; boundary=\"{text}\"");
        Boundary::of_media_type(&media_type).expect("valid").expect("a form")
    }

    fn read(body: &str) -> Result<Vec<(String, IsFile, String)>, MultipartFault> {
        let parts = parse(&Bytes::copy_from_slice(body.as_bytes()), &boundary("x"))?;
        let text = |part: &Part| String::from_utf8_lossy(&part.content).into_owned();
        Ok(parts.iter().map(|part| (part.name.clone(), part.is_file, text(part))).collect())
    }

    #[test]
    fn boundaries_are_read_as_clients_write_them() {
        for (media_type, told) in [
            ("multipart/form-data; boundary=abc", Ok(Some("abc"))),
            ("Multipart/Form-Data;boundary=\"a b\" ; charset=utf-8", Ok(Some("a b"))),
            (
                "multipart/form-data; charset=utf-8; BOUNDARY=----WebKitFormBoundary7MA",
                Ok(Some("----WebKitFormBoundary7MA")),
            ),
            ("application/json", Ok(None)),
            ("multipart/mixed; boundary=abc", Ok(None)),
            ("multipart/form-data", Err(())),
            ("multipart/form-data; boundary=", Err(())),
            ("multipart/form-data; boundary=\"\"", Err(())),
            ("multipart/form-data; boundary=\"abc", Err(())),
            ("multipart/form-data; boundary=a; boundary=b", Err(())),
            ("multipart/form-data; boundary=a\u{1}b", Err(())),
            ("multipart/form-data; boundary=\"a \"", Err(())),
            ("multipart/form-data; boundary=\u{e9}", Err(())),
        ] {
            let read = Boundary::of_media_type(media_type).map(|found| found.map(|Boundary(text)| text)).map_err(drop);
            assert_eq!(read, told.map(|found| found.map(str::to_owned)), "{media_type}");
        }
        assert!(Boundary::of_media_type(&format!("multipart/form-data; boundary={}", "b".repeat(71))).is_err());
    }

    #[test]
    fn parts_are_read_with_their_names_and_contents() {
        let form = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n\
                    --x  \r\ncontent-type: audio/wav\r\nContent-Disposition: form-data; name=file; filename=\"C:\\a;\\\".wav\"\r\n\r\n\
                    RIFF\r\n--xnot\r\n--x\r\ncontent-disposition:form-data;name=\"prompt\"\r\n\r\n\r\n--x--\r\n";
        // A line that begins as the boundary does is one for every other reader too.
        assert_eq!(read(form), Err(MultipartFault::Trailing));
        let form = form.replace("\r\n--xnot", "\n--x not");
        assert_eq!(
            read(&form).expect("reads"),
            [
                ("model".to_owned(), IsFile::Text, "whisper".to_owned()),
                ("file".to_owned(), IsFile::File, "RIFF\n--x not".to_owned()),
                ("prompt".to_owned(), IsFile::Text, String::new()),
            ]
        );
        assert_eq!(read("--x--").expect("an empty form"), []);
    }

    #[test]
    fn hostile_forms_are_refused_with_the_reason() {
        let part = |head: &str| format!("--x\r\n{head}\r\n\r\nv\r\n--x--");
        let named = "Content-Disposition: form-data; name=\"a\"";
        for (form, fault) in [
            (String::new(), MultipartFault::NoBeginning),
            ("--".to_owned(), MultipartFault::NoBeginning),
            ("preamble\r\n--x--".to_owned(), MultipartFault::NoBeginning),
            ("--x".to_owned(), MultipartFault::CutOff),
            ("--x\r\n".to_owned(), MultipartFault::CutOff),
            (format!("--x\r\n{named}"), MultipartFault::CutOff),
            (format!("--x\r\n{named}\r\n\r\n"), MultipartFault::CutOff),
            (format!("--x\r\n{named}\r\n\r\nvalue\r\n--x"), MultipartFault::CutOff),
            (format!("--x\r\n{named}\r\n\r\nvalue\r\n-"), MultipartFault::CutOff),
            (format!("--x\r\n{named}\r\n\r\nv\r\n--x-- and more"), MultipartFault::Trailing),
            (format!("--x\r\n{named}\r\n\r\nv\r\n--xx--"), MultipartFault::Trailing),
            (format!("--x\r\n{}: v\r\n\r\nv\r\n--x--", "h".repeat(MAX_HEAD + 8)), MultipartFault::LongHead { part: 1 }),
            (part(&["A: b"; MAX_HEADERS + 1].join("\r\n")), MultipartFault::LongHead { part: 1 }),
            (
                format!("--x{}--", format!("\r\n{named}\r\n\r\nv\r\n--x").repeat(MAX_PARTS + 1)),
                MultipartFault::TooManyParts,
            ),
        ] {
            assert_eq!(read(&form), Err(fault), "{form:.200}");
        }
        for head in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; name=\"\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"b\"",
            "Content-Disposition: form-data; name=\"a",
            "Content-Disposition: form-data; name=\"a\"b",
            "Content-Disposition: attachment; name=\"a\"",
            &format!("{named}\r\n{named}"),
            &format!("{named}\r\nContent-Transfer-Encoding: base64"),
            &format!("{named}\r\nno colon"),
            &format!("{named}\r\n folded: yes"),
            &format!("{named}\nX: y"),
            "Content-Disposition: form-data; name=\"a\u{1}\"",
            &format!("Content-Disposition: form-data; name=\"{}\"", "n".repeat(129)),
        ] {
            assert!(matches!(read(&part(head)), Err(MultipartFault::Head { part: 1, .. })), "{head:?}");
        }
    }

    #[test]
    fn a_content_that_holds_the_boundary_gets_another() {
        let guessed = format!("flm-{:032x}", 7);
        let hostile = format!("x\r\n--{guessed}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nother");
        let part = Written { name: "file", file: Some(("audio.wav", "audio/wav")), content: hostile.as_bytes() };
        let mut numbers = [7, 7, 8].into_iter();
        let (media_type, body) = write(&[part], || numbers.next().expect("enough"));
        let boundary = Boundary::of_media_type(&media_type).expect("valid").expect("a form");
        let parts = parse(&body, &boundary).expect("reads");
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].content, hostile);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8), seed: u64) {
            let parts: Vec<Written<'_>> = contents
                .iter()
                .enumerate()
                .map(|(index, content)| {
                    let file = (index % 2 == 1).then_some(("image.png", "image/png"));
                    Written { name: ["a", "b[]"][index % 2], file, content }
                })
                .collect();
            let (media_type, body) = write(&parts, || u128::from(seed));
            let boundary = Boundary::of_media_type(&media_type).expect("valid").expect("a form");
            let read = parse(&body, &boundary).expect("reads");
            prop_assert_eq!(read.len(), parts.len());
            for (read, written) in read.iter().zip(&parts) {
                prop_assert_eq!(&read.name, written.name);
                prop_assert_eq!(&read.content[..], written.content);
                prop_assert_eq!(read.is_file == IsFile::File, written.file.is_some());
            }
            // Cut anywhere, it is refused.
            for cut in 0..body.len() - 2 {
                let cut_form = parse(&body.slice(..cut), &boundary);
                prop_assert!(cut_form.is_err() || body[cut..].trim_ascii().is_empty(), "{}", cut);
            }
        }
    }
}
