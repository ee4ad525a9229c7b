//! [`Operator`]: runs a call where the home's owner is.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body_util::Full;

use super::dialer::Dialer;
use super::exchange::{self, Answer, Stream};
use super::ownership::{self, Claim, OwnerLock};
use super::protocol;
use crate::config::paths::HomePaths;
use crate::operations::context::{Context, ContextOptions};
use crate::operations::dispatch::{dispatch, dispatch_long};
use crate::operations::progress::{Line, Ongoing};
use crate::types::calls::{Call, LongCall, Permission};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::LiveLine;
use crate::types::secret::Secret;

/// Where calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A daemon, over its socket.
    Daemon,
    /// An owner in this process, over an in-memory duplex.
    InProcess,
    /// No owner lives: operations run here, holding the lock.
    Alone,
}

/// The operator's hand. Cloned freely.
#[derive(Clone)]
pub struct Operator {
    route: Route,
    permission: Permission,
}

#[derive(Clone)]
enum Route {
    Socket(Box<HomePaths>),
    Duplex(Dialer),
    Alone(Arc<Alone>),
}

/// A home without an owner, held by this process for as long as an operator of it lives.
struct Alone {
    context: Arc<Context>,
    /// Released after the context: fields are dropped in order.
    _lock: OwnerLock,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("attachment", &self.attachment())
            .field("permission", &self.permission)
            .finish_non_exhaustive()
    }
}

impl Operator {
    /// Attaches to the home's owner; `None` when there is none.
    ///
    /// # Errors
    /// When the socket is there but may not be used.
    pub async fn attach(paths: &HomePaths, permission: Permission) -> Outcome<Option<Self>> {
        let found = ownership::connect(paths).await?;
        Ok(found.map(|_probe| Self { route: Route::Socket(Box::new(paths.clone())), permission }))
    }

    /// Attaches to the home's owner or, when there is none, takes the home for this operator alone.
    ///
    /// # Errors
    /// Of folders, lock and databases.
    pub async fn connect(paths: &HomePaths, permission: Permission) -> Outcome<Self> {
        Self::connect_with(paths, permission, None).await
    }

    /// The same, with the passphrase of `security.db` for when the home is taken.
    ///
    /// # Errors
    /// As [`Operator::connect`], and of the passphrase.
    pub async fn connect_with(paths: &HomePaths, permission: Permission, passphrase: Option<Secret>) -> Outcome<Self> {
        let route = match ownership::claim(paths).await? {
            Claim::Owned(_probe) => Route::Socket(Box::new(paths.clone())),
            Claim::Free(lock) => {
                let options = ContextOptions { passphrase, ..ContextOptions::from_process() };
                let context = Arc::new(Context::open(paths.clone(), options).await?);
                Route::Alone(Arc::new(Alone { context, _lock: lock }))
            }
        };
        Ok(Self { route, permission })
    }

    /// An operator of an owner in this process.
    #[must_use]
    pub fn in_process(dialer: Dialer, permission: Permission) -> Self {
        Self { route: Route::Duplex(dialer), permission }
    }

    /// Runs an operation. Dropping the future cancels an operation that only reads or takes long, and stops waiting for
    /// another one that changes something.
    ///
    /// # Errors
    /// The operation's own failure, or `IO_ERROR` with "the proxy's daemon is gone" when the owner vanished.
    pub async fn call<C: Call>(&self, call: C) -> Outcome<C::Output> {
        let arguments = written(C::NAME, serde_json::to_vec(&call))?;
        // A call on the stack of its caller would make a state machine with all of this for each operation.
        protocol::read(&Box::pin(self.ask(C::NAME, arguments)).await?)
    }

    /// The same, from JSON to JSON.
    async fn ask(&self, name: &str, arguments: Bytes) -> Outcome<Bytes> {
        if let Route::Alone(alone) = &self.route {
            return dispatch(alone.context.clone(), name, arguments, self.permission).await;
        }
        let (_, answer) = self.exchange(Method::POST, &format!("{}{name}", protocol::PREFIX), arguments).await?;
        let body = answer.whole().await.map_err(|error| vanished(&error))?;
        // Of an operation that takes long only how it ended: its last line.
        let line = body.trim_ascii_end();
        let data = protocol::data_of(memchr::memrchr(b'\n', line).map_or(line, |at| &line[at + 1..]))?;
        Ok(Bytes::copy_from_slice(data.as_bytes()))
    }

    /// Begins an operation that takes long. Dropping what is answered ends it.
    ///
    /// # Errors
    /// As [`Operator::call`], as far as it is known before it runs; the rest comes with [`Following::next`].
    pub async fn follow<C: LongCall>(&self, call: &C) -> Outcome<Following<C>> {
        let arguments = written(C::NAME, serde_json::to_vec(call))?;
        Ok(Following { source: Box::pin(self.begin(C::NAME, arguments)).await?, call: PhantomData })
    }

    async fn begin(&self, name: &str, arguments: Bytes) -> Outcome<Source> {
        if let Route::Alone(alone) = &self.route {
            let ongoing = dispatch_long(&alone.context, name, &arguments, self.permission)?
                .ok_or_else(|| Failure::new(ErrorCode::Internal, format!("{name} is no operation that takes long")))?;
            return Ok(Source::Here { ongoing, _alone: alone.clone() });
        }
        let (_, answer) = self.exchange(Method::POST, &format!("{}{name}", protocol::PREFIX), arguments).await?;
        Ok(Source::Owner { answer, received: BytesMut::new() })
    }

    /// Subscribes to the live lane: first a snapshot, then events.
    ///
    /// # Errors
    /// When the owner is gone, refuses, or does not exist.
    pub async fn events(&self) -> Outcome<EventStream> {
        let (parts, answer) = self.exchange(Method::GET, protocol::EVENTS, Bytes::new()).await?;
        if parts.status == http::StatusCode::OK {
            return Ok(EventStream { answer, received: BytesMut::new(), lines: VecDeque::new() });
        }
        let body = answer.whole().await.map_err(|error| vanished(&error))?;
        protocol::data_of(&body)?;
        Err(Failure::new(ErrorCode::Internal, format!("the proxy answers {} to the live lane", parts.status)))
    }

    /// Where calls go.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        match self.route {
            Route::Socket(_) => Attachment::Daemon,
            Route::Duplex(_) => Attachment::InProcess,
            Route::Alone(_) => Attachment::Alone,
        }
    }

    /// Writes everything back and gives the home free, when this operator was alone with it. Only the last clone
    /// has something to do.
    pub async fn close(self) {
        if let Route::Alone(alone) = self.route
            && let Some(alone) = Arc::into_inner(alone)
        {
            alone.context.close().await;
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Outcome<(http::response::Parts, Answer)> {
        let stream: Box<dyn Stream> = match &self.route {
            Route::Socket(paths) => Box::new(ownership::connect(paths).await?.ok_or_else(gone)?),
            Route::Duplex(dialer) => Box::new(dialer.dial().await.ok_or_else(gone)?),
            Route::Alone(_) => {
                return Err(Failure::new(ErrorCode::NotFound, "no proxy runs for this home")
                    .hint("start it with: flm proxy start"));
            }
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, protocol::HOST)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::CONNECTION, "close")
            .header(protocol::VERSION_HEADER, protocol::VERSION);
        if self.permission == Permission::ReadOnly {
            request = request.header(protocol::ACCESS_HEADER, protocol::READ_ONLY);
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("the request for {path} cannot be written: {error}"))
        })?;
        exchange::send(stream, request).await.map_err(|error| vanished(&error))
    }
}

/// An operation that takes long, on its way.
pub struct Following<C: LongCall> {
    source: Source,
    call: PhantomData<fn(C)>,
}

enum Source {
    Here { ongoing: Ongoing, _alone: Arc<Alone> },
    Owner { answer: Answer, received: BytesMut },
}

/// What comes next of an operation that takes long.
#[derive(Debug)]
pub enum Step<C: LongCall> {
    /// How far it is.
    Progress(C::Progress),
    /// It is done; nothing comes after this.
    Done(C::Output),
}

/// What a long operation tells, as JSON.
enum Told {
    Progress(Bytes),
    Done(Bytes),
}

impl Source {
    /// See [`Following::next`].
    async fn told(&mut self) -> Outcome<Told> {
        match self {
            Self::Here { ongoing, .. } => Ok(match ongoing.next().await {
                Line::Progress(line) => Told::Progress(line),
                Line::Ended(outcome) => Told::Done(outcome?),
            }),
            Self::Owner { answer, received } => {
                let line = loop {
                    if let Some(end) = memchr::memchr(b'\n', received) {
                        break received.split_to(end + 1);
                    }
                    match answer.piece().await {
                        Some(Ok(piece)) => received.extend_from_slice(&piece),
                        Some(Err(error)) => return Err(vanished(&error)),
                        // The last line is the answer, and ends with the body.
                        None if received.is_empty() => return Err(gone()),
                        None => break std::mem::take(received),
                    }
                };
                let copy = |json: &str| Bytes::copy_from_slice(json.as_bytes());
                match protocol::progress_of(&line) {
                    Some(progress) => Ok(Told::Progress(copy(progress))),
                    None => protocol::data_of(&line).map(copy).map(Told::Done),
                }
            }
        }
    }
}

/// Arguments as they go over the wire.
fn written(name: &str, json: serde_json::Result<Vec<u8>>) -> Outcome<Bytes> {
    json.map(Bytes::from).map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the arguments of {name} cannot be written: {error}"))
    })
}

impl<C: LongCall> Following<C> {
    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// The operation's own failure, which ends it, or that the owner vanished.
    pub async fn next(&mut self) -> Outcome<Step<C>> {
        match self.source.told().await? {
            Told::Progress(json) => protocol::read(&json).map(Step::Progress),
            Told::Done(json) => protocol::read(&json).map(Step::Done),
        }
    }
}

/// The live lane as a console reads it.
pub struct EventStream {
    answer: Answer,
    /// Bytes of a line that is not whole yet.
    received: BytesMut,
    lines: VecDeque<LiveLine>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl EventStream {
    /// The next line; `None` when the owner ended or the connection broke. Cancel-safe.
    pub async fn next(&mut self) -> Option<LiveLine> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            match self.answer.piece().await? {
                Ok(piece) => self.received.extend_from_slice(&piece),
                Err(error) => {
                    tracing::debug!(%error, "live lane broke");
                    return None;
                }
            }
            if !self.cut_lines() {
                return None;
            }
        }
    }

    /// Cuts whole lines off; false when one cannot be read, so that the console attaches anew.
    fn cut_lines(&mut self) -> bool {
        while let Some(end) = memchr::memchr(b'\n', &self.received) {
            let line = self.received.split_to(end + 1);
            match serde_json::from_slice(&line) {
                Ok(line) => self.lines.push_back(line),
                Err(error) => {
                    tracing::warn!(%error, "a live event cannot be read");
                    return false;
                }
            }
        }
        true
    }
}

fn gone() -> Failure {
    Failure::new(ErrorCode::IoError, "the proxy's daemon is gone").hint("start it again with: flm proxy start")
}

fn vanished(error: &hyper::Error) -> Failure {
    tracing::debug!(%error, "control connection broke");
    gone()
}
