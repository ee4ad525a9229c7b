//! [`PrefaceInTime`]: an HTTP/2 client must have said its whole preface before a deadline. Afterwards hyper's own pings find
//! out who is gone; before, it waits without a timer (SECURITY.md §H, half an h2 preface).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Length of `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` with the head of the SETTINGS frame that must follow (RFC 9113 §3.4).
const PREFACE: usize = 24 + 9;

/// See the head of the file.
pub(super) struct PrefaceInTime<S> {
    stream: S,
    /// Bytes that came so far.
    read: usize,
    /// Until the preface is complete.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set when it did not come in time; read by whoever serves the connection.
    overdue: Arc<AtomicBool>,
}

impl<S> PrefaceInTime<S> {
    pub(super) fn new(stream: S, within: Duration, overdue: Arc<AtomicBool>) -> Self {
        Self { stream, read: 0, deadline: Some(Box::pin(tokio::time::sleep(within))), overdue }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceInTime<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(deadline) = self.deadline.as_mut() else { return polled };
        if polled.is_pending() {
            return deadline.as_mut().poll(cx).map(|()| {
                self.overdue.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::TimedOut.into())
            });
        }
        self.read += buffer.filled().len() - before;
        if self.read >= PREFACE {
            self.deadline = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceInTime<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
