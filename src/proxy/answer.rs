//! [`AnswerBody`]: the one body type that hyper writes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::Activity;
use super::passed::{BrokenOff, Passed};
use super::rules::Sender;
use super::stream::Stream;

/// What is written after the head.
pub(super) struct AnswerBody {
    content: Content,
    /// Told when the body is written or dropped, so that the connection's idle time begins.
    activity: Option<Arc<Activity>>,
    /// It is counted among the whole answers that wait to be written.
    waits: bool,
    /// Whoever gets it.
    receiver: Sender,
}

enum Content {
    Empty,
    Whole(Bytes),
    Events(Box<Stream>),
    Passed(Box<Passed>),
}

impl AnswerBody {
    fn new(content: Content) -> Self {
        Self { content, activity: None, waits: false, receiver: Sender::Stranger }
    }

    pub(super) fn empty() -> Self {
        Self::new(Content::Empty)
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::new(if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) })
    }

    pub(super) fn events(stream: Box<Stream>) -> Self {
        Self::new(Content::Events(stream))
    }

    pub(super) fn passed(passed: Box<Passed>) -> Self {
        Self::new(Content::Passed(passed))
    }

    /// Says who gets it.
    pub(super) fn for_sender(mut self, receiver: Sender) -> Self {
        self.receiver = receiver;
        self
    }

    pub(super) fn telling(mut self, activity: Arc<Activity>) -> Self {
        if self.receiver == Sender::KeyHolder {
            activity.known();
        }
        self.activity = Some(activity);
        self
    }

    /// The same over HTTP/2, whose client may give a whole answer no room to be written.
    pub(super) fn telling_what_waits(mut self, activity: Arc<Activity>) -> Self {
        if matches!(self.content, Content::Whole(_)) {
            activity.waits();
            self.waits = true;
        }
        self.telling(activity)
    }

    /// It is written, or its client is gone.
    fn waits_no_more(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(activity) = &self.activity
        {
            activity.waited();
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.waits_no_more();
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
                // hyper takes it before there is room for it, and drops this when there is: until then it waits.
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
