//! Serves the control protocol over the Unix socket and over in-memory connections (SPEC §4.10).
//!
//! One connection carries one exchange. Only the user that runs the owner, or root, gets an answer; for the system unit
//! the members of its control group do too.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};

use super::live_lane;
use crate::config::files::{self, FileError, PRIVATE_FILE};
use crate::config::paths::HomePaths;
use crate::control::dialer::Incoming;
use crate::control::protocol;
use crate::operations::context::{Context, Live};
use crate::operations::dispatch::{dispatch, dispatch_long};
use crate::operations::progress::{Line, Ongoing};
use crate::telemetry::tasks::Tasks;
use crate::types::calls::Permission;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Largest arguments: a chat with 25 MB of sound and some pictures in base64. Only the operator gets here.
const LARGEST_ARGUMENTS: usize = 64 << 20;
/// Pause after a connection could not be accepted, for lack of files mostly: trying at once would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The control socket, and who may use it.
pub(super) struct ControlSocket {
    listener: UnixListener,
    /// Group whose members may, besides this process's user and root.
    group: Option<u32>,
}

/// Mode of a socket that a group may use.
const SHARED_SOCKET: u32 = 0o660;

/// Binds the control socket, mode 0600, or 0660 for a control group. The caller holds the home's lock, so a socket file
/// there is stale.
///
/// # Errors
/// When the socket cannot be made, or the group is not known.
pub(super) fn bind(paths: &HomePaths) -> Outcome<ControlSocket> {
    let socket = paths.socket();
    let group = paths.control_group.as_deref().map(group_id).transpose()?;
    files::remove(&socket)?;
    let listener = UnixListener::bind(&socket).map_err(|error| FileError::new("listen on", &socket, error))?;
    // The folder lets nobody else pass, so nobody else gets here in between.
    let set = |path: &Path, mode: u32| {
        let failed = |error| FileError::new("set the mode of", path, error);
        if let Some(group) = group
            && std::fs::metadata(path).map_err(failed)?.gid() != group
        {
            std::os::unix::fs::chown(path, None, Some(group)).map_err(failed)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
    };
    if group.is_some() {
        set(&socket, SHARED_SOCKET)?;
        set(&paths.run_dir, files::PASSAGE_DIR)?;
        set(&paths.data_dir, files::PASSAGE_DIR)?;
    } else {
        set(&socket, PRIVATE_FILE)?;
    }
    Ok(ControlSocket { listener, group })
}

/// The number of a group, from the machine's own list (group(5)).
fn group_id(name: &str) -> Outcome<u32> {
    let list = Path::new("/etc/group");
    let text = files::read_to_string(list)?;
    let id = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|known| *known == name).and_then(|_| fields.nth(1)?.parse().ok())
    });
    id.ok_or_else(|| {
        Failure::new(
            ErrorCode::InvalidArgument,
            format!("FLM_CONTROL_GROUP names {:?}, which /etc/group does not know", escape(name)),
        )
        .hint(format!("make the group (groupadd --system {}), or leave the variable out", escape(name)))
    })
}

/// Serves until `tasks` ends.
pub(super) async fn serve(context: Arc<Context>, socket: ControlSocket, mut incoming: Option<Incoming>, tasks: Tasks) {
    let ControlSocket { listener, group } = socket;
    loop {
        let in_memory = async {
            match &mut incoming {
                Some(incoming) => incoming.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = tasks.ending().cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if is_operator(&stream, group) => start(&context, stream, &tasks),
                Ok(_) => tracing::warn!("another user's connection to the control socket was refused"),
                Err(error) => {
                    tracing::error!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            dialed = in_memory => match dialed {
                Some(stream) => start(&context, stream, &tasks),
                None => incoming = None,
            },
        }
    }
}

fn is_operator(stream: &UnixStream, group: Option<u32>) -> bool {
    const ROOT: u32 = 0;
    let me = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| {
        peer.uid() == me
            || peer.uid() == ROOT
            || group.is_some_and(|group| peer.gid() == group || joins(peer.pid(), group))
    })
}

/// Whether a process is in a group besides its own (proc(5), `Groups`). The socket's mode has asked the kernel the same.
fn joins(pid: Option<i32>, group: u32) -> bool {
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|id| id.parse() == Ok(group))
}

fn start(context: &Arc<Context>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, tasks: &Tasks) {
    let (context, ending) = (context.clone(), tasks.ending().clone());
    tasks.spawn("control connection", async move {
        let service = service_fn(move |request| {
            let context = context.clone();
            async move { Ok::<_, Infallible>(answer(context, request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut ending = pin!(ending.cancelled_owned());
        let mut told = false;
        // An answer that is on its way is finished; the live lane ends itself with its last event.
        let ended = poll_fn(|cx| {
            if !told && ending.as_mut().poll(cx).is_ready() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "a control connection broke");
        }
    });
}

async fn answer(context: Arc<Context>, request: Request<Body>) -> Answer {
    let outcome = match (request.method(), request.uri().path()) {
        (&Method::GET, protocol::HEALTH) => Ok(Bytes::from_static(b"\"ok\"")),
        (&Method::GET, protocol::EVENTS) => match lane_for(&context, &request) {
            Ok(live) => {
                let lines = live_lane::lines(&context.hub, live.host.clone());
                return respond(StatusCode::OK, "application/x-ndjson", StreamBody::new(lines).boxed_unsync());
            }
            Err(failure) => Err(failure),
        },
        (&Method::POST, path) if path.starts_with(protocol::PREFIX) => match run(context, request).await {
            Ok(Ran::Short(outcome)) => outcome,
            Ok(Ran::Long(ongoing)) => {
                return respond(
                    StatusCode::OK,
                    "application/x-ndjson",
                    StreamBody::new(lines_of(ongoing)).boxed_unsync(),
                );
            }
            Err(failure) => Err(failure),
        },
        (method, _) => Err(Failure::new(ErrorCode::NotFound, format!("the control socket has no such {method} path"))),
    };
    let (status, body) = protocol::write_answer(&outcome);
    respond(status, "application/json", Full::new(body).boxed_unsync())
}

/// What came of a call.
enum Ran {
    Short(Outcome<Bytes>),
    Long(Ongoing),
}

/// A long operation as lines; dropping them, as when the caller leaves, ends it.
fn lines_of(ongoing: Ongoing) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    futures_util::stream::unfold(Some(ongoing), |ongoing| async move {
        let mut ongoing = ongoing?;
        Some(match ongoing.next().await {
            Line::Progress(progress) => (Ok(Frame::data(protocol::write_progress(&progress))), Some(ongoing)),
            Line::Ended(outcome) => (Ok(Frame::data(protocol::write_answer(&outcome).1)), None),
        })
    })
}

async fn run(context: Arc<Context>, request: Request<Body>) -> Outcome<Ran> {
    let (head, body) = request.into_parts();
    let name = head.uri.path().strip_prefix(protocol::PREFIX).unwrap_or_default().to_owned();
    if !protocol::ANY_VERSION.contains(&name.as_str()) {
        check_version(&head.headers)?;
    }
    let permission = match head.headers.get(protocol::ACCESS_HEADER) {
        None => Permission::Full,
        // A value that is not known can only be meant to restrict.
        Some(_) => Permission::ReadOnly,
    };
    let arguments = Limited::new(body, LARGEST_ARGUMENTS).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let limit = format!("arguments have at most {LARGEST_ARGUMENTS} bytes");
            return Failure::new(ErrorCode::InvalidArgument, limit);
        }
        Failure::new(ErrorCode::IoError, format!("the arguments did not arrive: {error}"))
    })?;
    let arguments = arguments.to_bytes();
    if let Some(ongoing) = dispatch_long(&context, &name, &arguments, permission)? {
        return Ok(Ran::Long(ongoing));
    }
    Ok(Ran::Short(dispatch(context, &name, arguments, permission).await))
}

fn lane_for<'a>(context: &'a Context, request: &Request<Body>) -> Outcome<&'a Live> {
    check_version(request.headers())?;
    context.live()
}

fn check_version(headers: &http::HeaderMap) -> Outcome<()> {
    let theirs = headers.get(protocol::VERSION_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    if theirs == protocol::VERSION {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::InvalidArgument,
        format!("this program is version {theirs}, and the proxy that runs is version {}", protocol::VERSION),
    )
    .hint("restart the proxy with this program: flm proxy stop --all, then flm proxy start"))
}

fn respond(status: StatusCode, content_type: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
