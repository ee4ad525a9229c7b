//! Requests at a steady rate: the load under which the console is measured.
//!
//! Run by the bench as its own process, on one thread of bare tokio, with keep-alive connections that each send at their share
//! of the rate; what is late is caught up.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Fault;

/// Connections side by side.
const CONNECTIONS: u32 = 16;

/// A load that runs; it ends with this.
pub(crate) struct Load(Child);

impl Load {
    /// Starts one.
    pub(crate) fn start(target: SocketAddr, key: &str, rate: u32) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["load", &target.to_string(), key, &rate.to_string()])
            .stdout(Stdio::piped())
            .stdin(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Ends it and answers how many requests a second it came to.
    pub(crate) fn end(mut self) -> Result<f64, Fault> {
        // Closing its input ends it.
        drop(self.0.stdin.take());
        let mut told = String::new();
        if let Some(out) = &mut self.0.stdout {
            out.read_to_string(&mut told)?;
        }
        self.0.wait()?;
        Ok(told.trim().parse()?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Sends until its input is closed; writes the rate that it reached.
pub(crate) fn run(target: SocketAddr, key: &str, rate: u32) -> Result<(), Fault> {
    let began = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let (message, counted) = (request(target, key), Arc::clone(&sent));
    let driving = std::thread::spawn(move || drive(target, &message, rate, &counted));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    if driving.is_finished() {
        driving.join().map_err(|_| "the load panicked")??;
    }
    let count = u32::try_from(sent.load(Ordering::Relaxed))?;
    writeln!(std::io::stdout(), "{}", f64::from(count) / began.elapsed().as_secs_f64())?;
    Ok(())
}

fn drive(target: SocketAddr, message: &[u8], rate: u32, sent: &Arc<AtomicU64>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = tokio::task::JoinSet::new();
        for number in 0..CONNECTIONS {
            let (message, sent) = (message.to_vec(), Arc::clone(sent));
            connections.spawn(async move { connection(target, &message, rate, number, &sent).await });
        }
        match connections.join_next().await {
            Some(ended) => ended?,
            None => Ok(()),
        }
    })
}

fn request(target: SocketAddr, key: &str) -> Vec<u8> {
    let body =
        r#"{"model":"bench-fast","messages":[{"role":"user","content":"Say something about foxes."}],"max_tokens":16}"#;
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {key}\r\nuser-agent: bench\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn connection(target: SocketAddr, message: &[u8], rate: u32, number: u32, sent: &AtomicU64) -> Result<(), Fault> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let step = Duration::from_secs(1) * CONNECTIONS / rate.max(1);
    let mut next = tokio::time::Instant::now() + step * number / CONNECTIONS;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        tokio::time::sleep_until(next).await;
        next += step;
        stream.write_all(message).await?;
        let head = loop {
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the proxy closed the connection".into());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("answered {:?}", text.lines().next().unwrap_or_default()).into());
        }
        let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length:")).map(str::trim);
        let length: usize = length.ok_or("an answer without a length")?.parse()?;
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the proxy closed the connection".into());
            }
        }
        buffer.drain(..head + length);
        sent.fetch_add(1, Ordering::Relaxed);
    }
}
