//! The live lane of one attached console as a body of JSON lines: a snapshot, then events, a new snapshot after a
//! gap. Costs nothing while nothing happens; a console that is gone is noticed by its closed connection.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;

use crate::operations::context::Host;
use crate::telemetry::live::{Delivery, Hub, Subscription};
use crate::types::live::{LiveEvent, LiveLine};

enum Next {
    /// A snapshot; this many events were dropped before it.
    Snapshot { dropped: u64 },
    /// Events above this number.
    Events { after: u64 },
    /// Nothing: the owner has said that it ends.
    Over,
}

struct Lane {
    host: Arc<dyn Host>,
    subscription: Subscription,
    next: Next,
}

/// The lines for one console. Subscribes at once, so that no event between snapshot and events is lost.
pub(super) fn lines(
    hub: &Hub,
    host: Arc<dyn Host>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
    let lane = Lane { host, subscription: hub.subscribe(), next: Next::Snapshot { dropped: 0 } };
    stream::unfold(lane, |mut lane| async move {
        let line = lane.line().await?;
        Some((Ok(Frame::data(written(&line)?)), lane))
    })
}

impl Lane {
    async fn line(&mut self) -> Option<LiveLine> {
        loop {
            match self.next {
                Next::Over => return None,
                Next::Snapshot { dropped } => {
                    let snapshot = Box::new(self.host.snapshot());
                    self.next = Next::Events { after: snapshot.sequence };
                    return Some(LiveLine::Snapshot { snapshot, dropped });
                }
                Next::Events { after } => match self.subscription.next().await {
                    Delivery::Event(event) if event.sequence <= after => {}
                    Delivery::Event(event) => {
                        if matches!(*event.event, LiveEvent::Ending) {
                            self.next = Next::Over;
                        }
                        return Some(LiveLine::Event(event));
                    }
                    Delivery::Gap(dropped) => self.next = Next::Snapshot { dropped },
                    Delivery::Closed => return None,
                },
            }
        }
    }
}

fn written(line: &LiveLine) -> Option<Bytes> {
    match serde_json::to_vec(line) {
        Ok(mut text) => {
            text.push(b'\n');
            Some(text.into())
        }
        Err(error) => {
            tracing::error!(%error, "a live event cannot be written");
            None
        }
    }
}
