//! A small OpenAI-compatible engine whose stream the test drives: one chunk per [`Engine::speak`], so that nothing
//! depends on timing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The model that it lists.
pub(crate) const MODEL: &str = "driven-model";

/// A listening engine; serves until the test ends.
pub(crate) struct Engine {
    /// Where it listens.
    pub(crate) port: u16,
    allowed: Arc<(Mutex<Allowed>, Condvar)>,
}

#[derive(Default)]
struct Allowed {
    chunks: usize,
    finished: bool,
}

impl Engine {
    /// Starts to listen.
    pub(crate) fn start() -> Self {
        let allowed = Arc::<(Mutex<Allowed>, Condvar)>::default();
        let shared = Arc::clone(&allowed);
        let port = serve(move |first, writer| {
            if first.starts_with("POST") {
                return speak(writer, &shared);
            }
            if first.starts_with("GET /v1/models ") {
                let list = format!(
                    r#"{{"object":"list","data":[{{"id":"{MODEL}","object":"model","created":1,"owned_by":"test"}}]}}"#
                );
                return answer(writer, "200 OK", &list);
            }
            answer(writer, "404 Not Found", r#"{"error":{"message":"not here"}}"#)
        });
        Self { port, allowed }
    }

    /// Lets the stream send one chunk more.
    pub(crate) fn speak(&self) {
        self.change(|allowed| allowed.chunks += 1);
    }

    /// Lets the stream end.
    pub(crate) fn finish(&self) {
        self.change(|allowed| allowed.finished = true);
    }

    fn change(&self, change: impl FnOnce(&mut Allowed)) {
        change(&mut self.allowed.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.allowed.1.notify_all();
    }
}

/// Listens until the test ends, and has each request answered by its first line; tells the port.
pub(crate) fn serve(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            // A peer that leaves ends its connection.
            std::thread::spawn(move || drop(connection(stream, &*answer)));
        }
    });
    port
}

fn connection(stream: TcpStream, answer: &dyn Fn(&str, &mut TcpStream) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        answer(&first, &mut writer)?;
    }
}

/// Answers with JSON.
pub(crate) fn answer(writer: &mut TcpStream, status: &str, json: &str) -> std::io::Result<()> {
    let length = json.len();
    write!(writer, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}")
}

fn speak(writer: &mut TcpStream, allowed: &(Mutex<Allowed>, Condvar)) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut sent = 0;
    loop {
        let mut state = allowed.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.chunks == sent && !state.finished {
            state = allowed.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (chunks, finished) = (state.chunks, state.finished);
        drop(state);
        while sent < chunks {
            sent += 1;
            event(writer, &chunk(&format!(r#"{{"content":"word{sent} "}}"#), "null"))?;
        }
        if finished {
            event(writer, &chunk("{}", r#""stop""#))?;
            event(writer, "[DONE]")?;
            return writer.write_all(b"0\r\n\r\n");
        }
    }
}

fn chunk(delta: &str, finish_reason: &str) -> String {
    format!(
        r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"{MODEL}","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}]}}"#
    )
}

fn event(writer: &mut TcpStream, data: &str) -> std::io::Result<()> {
    let event = format!("data: {data}\n\n");
    write!(writer, "{:x}\r\n{event}\r\n", event.len())
}
