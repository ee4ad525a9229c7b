//! A client connection that is driven by whoever uses it, not by a task of its own.
//!
//! Used by [`super::pool`] alone. hyper gives a connection as two halves, a sender and a future that moves the bytes, and
//! expects that future in a task: every head and every chunk then costs a second wake-up and a hand-over between two
//! tasks of the same thread. Here the future is polled where its bytes are wanted. Nothing polls it while it idles in the
//! pool, so a peer that closes is seen at the next use ([`Connection::rest`]) or when the pool sweeps.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An HTTP/1.1 connection. Dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; gone when it ended.
    driver: Option<Driver>,
    inner: Inner,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Prepares an open stream for requests.
    pub(super) async fn handshake<S>(io: S) -> hyper::Result<Self>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http1::Builder::new().handshake(io).await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), inner: Inner::new() })
    }

    /// Sends a request and waits for the head of its answer. Dropping the future leaves the connection unusable.
    ///
    /// # Errors
    /// With the request in it when nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let Self { sender, driver, inner } = self;
        let mut answer = pin!(sender.try_send_request(request));
        std::future::poll_fn(|cx| inner.poll(driver, cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// The next piece of an answer's body, which must be of this connection.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.inner.poll(&mut self.driver, cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))
    }

    /// Lets the connection finish with its last exchange and look whether its peer has closed; answers whether it can
    /// take a request now. Nobody is woken by it later.
    pub(super) fn rest(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let _never_ready = self.inner.poll(&mut self.driver, &mut nobody, |_| Poll::<()>::Pending);
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Polls driver and reader together, and keeps the wake-ups that they give each other from becoming wake-ups of the task.
struct Inner {
    signal: Arc<Signal>,
    /// [`Self::signal`] as a waker, made once.
    waker: Waker,
}

/// The waker that driver and reader get.
struct Signal {
    state: AtomicU8,
    /// The task that polled last.
    task: AtomicWaker,
}

/// Nobody polls: a wake-up is for the task.
const RESTING: u8 = 0;
/// Being polled.
const POLLED: u8 = 1;
/// Being polled, and woken meanwhile: poll once more.
const AGAIN: u8 = 2;

/// Times that driver and reader are polled in a row while they wake each other: a head and its body take two.
const ROUNDS: usize = 4;

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.state.compare_exchange(POLLED, AGAIN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(AGAIN) => {}
            Err(_resting) => self.task.wake(),
        }
    }
}

impl Inner {
    fn new() -> Self {
        let signal = Arc::new(Signal { state: AtomicU8::new(RESTING), task: AtomicWaker::new() });
        Self { waker: Waker::from(signal.clone()), signal }
    }

    fn poll<T>(
        &mut self,
        driver: &mut Option<Driver>,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Each wake-up takes the waker, so it is told anew each time.
        self.signal.task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            self.signal.state.store(POLLED, Ordering::Release);
            // Its error, if any, is told to the reader as well.
            if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(&mut inner).is_ready()) {
                *driver = None;
            }
            let result = read(&mut inner);
            if result.is_ready() {
                // Whoever got something comes again, and drives again then.
                self.signal.state.store(RESTING, Ordering::Release);
                return result;
            }
            let rested =
                self.signal.state.compare_exchange(POLLED, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if rested {
                return Poll::Pending;
            }
        }
        // Somebody wakes without end, such as tokio when the task has used up its budget: let others run.
        self.signal.state.store(RESTING, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
