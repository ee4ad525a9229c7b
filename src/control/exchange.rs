//! One HTTP/1.1 exchange over one connection, driven by whoever waits for it: dropping it closes the connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What drives a connection. It never ends with a value, only with the connection.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer's head, with its body still on the way.
pub(super) struct Answer {
    driver: Option<Driver>,
    body: Incoming,
}

/// A connection that moves bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Sends a request and waits for the head of the answer.
pub(super) async fn send(
    stream: Box<dyn Stream>,
    request: http::Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Answer), hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver: Option<Driver> = Some(Box::pin(async move {
        // How the connection ended is told to whoever waits for answer or body.
        let _ended = connection.await;
    }));
    let response = driven(&mut driver, sender.send_request(request)).await?;
    let (parts, body) = response.into_parts();
    Ok((parts, Answer { driver, body }))
}

impl Answer {
    /// Reads the whole body.
    pub(super) async fn whole(mut self) -> Result<Bytes, hyper::Error> {
        let body = self.body;
        Ok(driven(&mut self.driver, body.collect()).await?.to_bytes())
    }

    /// The next piece of the body; `None` at its end. Cancel-safe: a piece is taken only when it is returned.
    pub(super) async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let body = &mut self.body;
            let frame = driven(&mut self.driver, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await?;
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers carry nothing here.
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Polls the connection beside the work that waits for it. Both live in one task, so nothing is spawned and
/// nothing is left behind.
async fn driven<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx: &mut Context<'_>| {
        if let Some(running) = driver
            && running.as_mut().poll(cx).is_ready()
        {
            *driver = None;
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(value),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
