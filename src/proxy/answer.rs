//! [`AnswerBody`]: the one body type that hyper writes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::Activity;
use super::passed::{BrokenOff, Passed};
use super::stream::Stream;

/// What is written after the head.
pub(super) struct AnswerBody {
    content: Content,
    /// Told when the body is written or dropped, so that the connection's idle time begins.
    activity: Option<Arc<Activity>>,
}

enum Content {
    Empty,
    Whole(Bytes),
    Events(Box<Stream>),
    Passed(Box<Passed>),
}

impl AnswerBody {
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, activity: None }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { content: if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) }, activity: None }
    }

    pub(super) fn events(stream: Box<Stream>) -> Self {
        Self { content: Content::Events(stream), activity: None }
    }

    pub(super) fn passed(passed: Box<Passed>) -> Self {
        Self { content: Content::Passed(passed), activity: None }
    }

    pub(super) fn telling(mut self, activity: Arc<Activity>) -> Self {
        self.activity = Some(activity);
        self
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.answered();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Events(stream) => stream.poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
            Content::Passed(passed) => passed.poll_next(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Events(_) | Content::Passed(_) => SizeHint::default(),
        }
    }
}
