//! A chat stream read by hand, so that a test sees each event when it comes and can leave at any moment.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// An open stream; dropped, the connection is closed.
pub(crate) struct ChatStream {
    reader: BufReader<TcpStream>,
    /// Decoded text that is no whole event yet.
    text: String,
    ended: bool,
}

impl ChatStream {
    /// Sends the request and reads the head of the answer, which must be 200.
    #[track_caller]
    pub(crate) fn open(url: &str, key: &str, model: &str, max_tokens: u32) -> Self {
        let address = url.strip_prefix("http://").expect("plain HTTP");
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets a bound");
        let body = serde_json::json!({
            "model": model,
            "messages": [{"role": "user", "content": "Say a few words."}],
            "max_tokens": max_tokens,
            "ignore_eos": true,
            "stream": true,
        })
        .to_string();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nUser-Agent: OpenAI/Python\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sends");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).expect("reads the head");
            assert!(read > 0, "closed within the head: {head:?}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Self { reader, text: String::new(), ended: false }
    }

    /// The data of the next event, comments left out; `None` at the end of the answer.
    #[track_caller]
    pub(crate) fn next_event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                if let Some(data) = event.trim_end().strip_prefix("data: ") {
                    return Some(data.to_owned());
                }
            } else if self.ended {
                return None;
            } else {
                self.read_chunk();
            }
        }
    }

    /// Reads one chunk of the answer (RFC 9112 §7.1).
    #[track_caller]
    fn read_chunk(&mut self) {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("reads a chunk's size");
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).expect("reads a chunk");
        chunk.truncate(size);
        self.text.push_str(&String::from_utf8(chunk).expect("UTF-8"));
        self.ended = size == 0;
    }
}
