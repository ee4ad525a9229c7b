//! Refusals of strangers leave at a pace (ADR 22): at once while they are rare, in turn in a flood.

use std::time::Duration;

use bytes::Bytes;
use flm::proxy::limits::ProxyLimits;
use flm::telemetry::tasks::Tasks;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::KeyLimits;
use flm::types::request::{Progress, RequestEnd};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::fake_engine::PATIENCE;
use crate::{Proxy, no_address_limits};

/// Refusals of one worker that leave at once, and that may wait.
const BURST: usize = 100;
const WAITING: usize = 2048;
/// From one refusal to the next.
const SLOT: Duration = Duration::from_millis(2);
/// The proxies of these tests have as many.
const WORKERS: usize = 2;

/// A proxy whose time stands still, and its clock.
fn still() -> (Proxy, Clock) {
    let clock = Clock::stepped(UnixMillis(1_800_000_000_000));
    let proxy = Proxy::at(clock.clone(), ProxyLimits::default(), KeyLimits::default());
    proxy.shared.guard.set_policy(no_address_limits());
    (proxy, clock)
}

fn wrong(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("http://127.0.0.1{path}")).header("host", "127.0.0.1");
    request.header("x-api-key", "wrong").body(Full::default()).expect("a request")
}

/// A connection of somebody without a key. The proxy gives the first to one worker, the second to the other.
struct Stranger {
    sender: http1::SendRequest<Full<Bytes>>,
    tasks: Tasks,
}

impl Stranger {
    async fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).await.expect("connects");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("speaks");
        let tasks = Tasks::new();
        tasks.spawn_until_end("stranger", connection);
        Self { sender, tasks }
    }

    async fn ask(&mut self, path: &str) -> StatusCode {
        let asked = async {
            self.sender.ready().await.expect("it is open");
            let answer = self.sender.send_request(wrong(path)).await.expect("an answer");
            let status = answer.status();
            answer.into_body().collect().await.expect("a body");
            status
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("in time")
    }

    /// One whose worker has no refusal left that leaves at once.
    async fn worn_out(proxy: &Proxy) -> Self {
        let mut stranger = Self::of(proxy).await;
        for _ in 0..BURST {
            assert_eq!(stranger.ask("/v1/models").await, 401);
        }
        stranger
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.tasks.ending().cancel();
    }
}

/// Waits until so many refusals in all have had to wait.
async fn delayed(proxy: &Proxy, count: u64) {
    let waiting = async {
        while proxy.shared.metrics.sums().delayed < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = || proxy.shared.metrics.sums().delayed;
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{} instead of {count}", seen()));
}

/// Case 3.
#[tokio::test]
async fn given_a_flood_of_wrong_keys_then_refusals_wait_for_their_turn_and_a_right_key_is_answered() {
    let (proxy, clock) = still();
    let mut strangers = [Stranger::worn_out(&proxy).await, Stranger::worn_out(&proxy).await];
    assert_eq!(proxy.shared.metrics.sums().delayed, 0, "few are answered at once");
    let [one, two] = &mut strangers;
    let mut refused = std::pin::pin!(futures_util::future::join(one.ask("/v1/models"), two.ask("/.env")));
    let right = async {
        delayed(&proxy, 2).await;
        for _ in 0..4 {
            let bytes = crate::blocking::models(&proxy.key, "");
            assert_eq!(crate::blocking::raw("127.0.0.1", proxy.address(), &bytes).await, 200);
        }
    };
    tokio::select! {
        biased;
        told = &mut refused => panic!("answered before their time: {told:?}"),
        () = right => {}
    }
    // Whoever has a right key waits for nobody with what it gets wrong either.
    assert_eq!(proxy.get("/v1/nowhere").await.status, 404);
    clock.advance(SLOT);
    assert_eq!(refused.await, (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    let open = Request::get("/metrics").body(Full::default()).expect("a request");
    let page = proxy.send(open).await;
    assert!(page.text().contains("\nflm_refusals_delayed_total 2\n"), "{}", page.text());
}

/// A trap tells as little by its time as by its words.
#[tokio::test]
async fn the_answer_of_a_trap_waits_as_a_refusal_does() {
    let (proxy, clock) = still();
    proxy.shared.guard.exposure().notice();
    let mut policy = no_address_limits();
    policy.failed_authentication.mode = flm::types::policy::Mode::Off;
    proxy.shared.guard.set_policy(policy);
    let mut stranger = Stranger::worn_out(&proxy).await;
    let mut trapped = std::pin::pin!(stranger.ask("/wp-login.php"));
    tokio::select! {
        biased;
        told = &mut trapped => panic!("answered before its time: {told:?}"),
        () = delayed(&proxy, 1) => {}
    }
    clock.advance(SLOT);
    assert_eq!(trapped.await, 200);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_refusal_waits_was_refused() {
    let (proxy, _clock) = still();
    let mut stranger = Stranger::worn_out(&proxy).await;
    let left = async {
        let asked = stranger.ask("/v1/models/left").map(|told| panic!("answered before its time: {told:?}"));
        tokio::select! {
            biased;
            () = asked => {}
            () = delayed(&proxy, 1) => {}
        }
    };
    left.await;
    drop(stranger);
    let row = proxy.row(|row| row.path == "/v1/models/left").await;
    assert_eq!((row.status, row.error_code.as_deref()), (401, Some("invalid_api_key")));
    assert!(matches!(row.progress, Progress::Ended { end: RequestEnd::Refused, .. }), "{row:?}");
    assert_eq!(proxy.shared.metrics.sums().client_left, 0);
}

#[tokio::test]
async fn a_stop_waits_for_no_refusals_turn() {
    let (proxy, _clock) = still();
    let mut stranger = Stranger::worn_out(&proxy).await;
    let stop = async {
        delayed(&proxy, 1).await;
        proxy.service.stop(PATIENCE * 2).await;
    };
    let (told, ()) = tokio::join!(stranger.ask("/v1/models"), stop);
    assert_eq!(told, 401);
}

/// HTTP/2 could have thousands wait over a few connections.
#[tokio::test]
async fn beyond_so_many_that_wait_a_refusal_leaves_at_once_and_its_connection_ends() {
    const CONNECTIONS: usize = 70;
    const EACH: usize = 63;
    let (proxy, clock) = still();
    let tasks = Tasks::new();
    let mut ends = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(proxy.address()).await.expect("connects");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks");
        ends.push(tasks.spawn_until_end("stranger", connection));
        sender.ready().await.expect("it is open");
        senders.push(sender);
    }
    let asked = senders
        .iter_mut()
        .flat_map(|sender| (0..EACH).map(|_| sender.send_request(wrong("/v1/models"))).collect::<Vec<_>>());
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut next = async || {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await.expect("in time");
        answer.expect("one more").expect("an answer").status()
    };
    for _ in 0..CONNECTIONS * EACH - WORKERS * WAITING {
        assert_eq!(next().await, 401, "a burst of each worker, and those beyond all places");
    }
    delayed(&proxy, (WORKERS * WAITING) as u64).await;
    clock.advance(Duration::from_millis(500));
    for _ in 0..WORKERS * WAITING {
        assert_eq!(next().await, 401);
    }
    drop(answers);
    // A rest, so that none of what comes now waits.
    clock.advance(Duration::from_secs(60));
    let mut open = 0;
    for (sender, end) in senders.iter_mut().zip(&mut ends) {
        // Those that had room go on; what ended them has told its client so.
        let told = tokio::time::timeout(PATIENCE, sender.send_request(wrong("/v1/models"))).await;
        match told.expect("in time") {
            Ok(answer) => {
                assert_eq!(answer.status(), 401);
                open += 1;
            }
            Err(_closed) => drop(tokio::time::timeout(PATIENCE, end).await.expect("it ends").expect("joins")),
        }
    }
    assert!((1..CONNECTIONS).contains(&open), "{open} of {CONNECTIONS} are open still");
    assert_eq!(proxy.get("/v1/models").await.status, 200);
}
