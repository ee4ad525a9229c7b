//! [`Watched`]: a stream whose reads are looked at by somebody who may end it, such as a deadline. Writes pass as they are.
//!
//! Used by `connection` for both versions of HTTP: hyper's own timers cannot tell the cases apart that SPEC §4.6 does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Looks at the reads of a stream.
pub(super) trait Watch: Unpin {
    /// So many bytes came; none is the end of the stream.
    fn came(&mut self, bytes: usize);

    /// Nothing is there to read. Ready when that has taken too long; else the task is woken when it has.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// See the head of the file.
pub(super) struct Watched<S, W> {
    stream: S,
    watch: W,
}

impl<S, W> Watched<S, W> {
    pub(super) fn new(stream: S, watch: W) -> Self {
        Self { stream, watch }
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for Watched<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, watch } = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(stream).poll_read(cx, buffer) {
            watch.came(buffer.filled().len() - before);
            return Poll::Ready(result);
        }
        ready!(watch.poll_overdue(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for Watched<S, W> {
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
