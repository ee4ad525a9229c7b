//! [`Watched`]: a stream whose reads are looked at by somebody who may end it, such as a deadline. What is
//! written is counted, and given up when the other side takes nothing of it for too long.
//!
//! Used by `connection` for both versions of HTTP: hyper's own timers cannot tell the cases apart that SPEC §4.6 does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// More came than anybody who means it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMuch;

/// Looks at the reads of a stream.
pub(super) trait Watch: Unpin {
    /// These bytes came; none is the end of the stream.
    ///
    /// # Errors
    /// [`TooMuch`] ends the stream.
    fn came(&mut self, bytes: &[u8]) -> Result<(), TooMuch>;

    /// So many bytes were written.
    fn wrote(&mut self, _bytes: usize) {}

    /// Nothing is there to read. Ready when that has taken too long; else the task is woken when it has.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// See the head of the file.
pub(super) struct Watched<S, W> {
    stream: S,
    watch: W,
    /// How long the other side may take nothing of what is written.
    patience: Duration,
    /// Runs while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S, W> Watched<S, W> {
    pub(super) fn new(stream: S, watch: W, patience: Duration) -> Self {
        Self { stream, watch, patience, stalled: None }
    }
}

impl<S: Unpin, W: Watch> Watched<S, W> {
    /// What came of a try to write: a client that asks and never reads is not waited for for ever.
    fn tried<T>(&mut self, tried: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.watch.wrote(bytes);
        }
        self.tried(written, cx)
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for Watched<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, watch, .. } = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(stream).poll_read(cx, buffer) {
            let looked = watch.came(&buffer.filled()[before..]);
            return Poll::Ready(result.and(looked.map_err(|TooMuch| io::ErrorKind::ConnectionAborted.into())));
        }
        ready!(watch.poll_overdue(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for Watched<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.tried(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.tried(shut, cx)
    }
}
