//! How fast security events get onto the disk: sustained, chained, with encryption on (SPEC §5.9).
//!
//! `cargo bench --bench audit [-- FOLDER]`: records 400,000 events as fast as the queue takes them, each as a flood of
//! refused requests makes them, and waits until the last is committed. Nothing may be shed. Alerts run beside it, with a channel
//! that wants every row (SPEC §5.10): the dearest that an operator can order.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a bench prints its result and ends by panicking")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use flm::audit::alerts::{Alerts, Tools};
use flm::audit::{AuditLog, verify};
use flm::net::egress::Egress;
use flm::storage::SecurityStore;
use flm::telemetry::live::Hub;
use flm::telemetry::tasks::Tasks;
use flm::types::alert::{AlertChannel, AlertRules, AlertTarget, ChannelId};
use flm::types::audit::{AuditEvent, AuditKind, Severity};
use flm::types::clock::Clock;
use flm::types::ids::RequestId;

const EVENTS: u64 = 400_000;
/// Events that wait at most, well below what the queue holds, so that none is shed.
const AHEAD: u64 = 4_096;
/// SPEC §5.9 and its issue: events per second that must be sustained.
const TARGET: f64 = 20_000.0;

fn event(number: u64) -> AuditEvent {
    let mut event = AuditEvent::new(
        Clock::system().wall(),
        AuditKind::AddressRefused,
        Severity::Low,
        "refused: the address is on the block list",
    );
    event.request_id = Some(RequestId::from_random(u128::from(number)));
    let octets = u32::try_from(number % 100_000).expect("small").to_be_bytes();
    event.address = Some(std::net::Ipv4Addr::new(198, octets[1], octets[2], octets[3]).into());
    event.endpoint = Some("/v1/chat/completions".to_owned());
    event.status = Some(403);
    event.latency_ms = Some(1);
    event
}

/// A channel of the console that wants every row.
fn channel() -> AlertChannel {
    AlertChannel {
        id: ChannelId::parse("console").expect("a name"),
        target: AlertTarget::Terminal,
        rules: AlertRules { severity: Severity::Low, ..AlertRules::default() },
        created: Clock::system().wall(),
        through: 0,
    }
}

fn main() -> ExitCode {
    // `cargo bench` hands over flags of its own.
    let folder = std::env::args().skip(1).find(|word| !word.starts_with('-')).map(PathBuf::from);
    let temporary = tempfile::tempdir_in(folder.unwrap_or_else(std::env::temp_dir)).expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store =
            SecurityStore::open(&temporary.path().join("security.db"), &temporary.path().join("keys/security.key"))
                .expect("opens");
        let (tasks, clock, hub) = (Tasks::new(), Clock::system(), Hub::new());
        let log = AuditLog::start(store.clone(), hub.clone(), &tasks, clock.clone()).await.expect("starts");
        store.put_alert_channel(channel()).await.expect("stores");
        let tools = Tools { egress: Egress::direct(), store: store.clone(), hub, clock: clock.clone() };
        let alerting = Tasks::new();
        let _alerts = Alerts::start(&log.tap(), tools, &alerting, vec![channel()]);
        let sink = log.sink();
        let began = clock.wall();
        for number in 0..EVENTS {
            while number - log.head().sequence.min(number) >= AHEAD {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sink.record(event(number));
        }
        sink.record_acknowledged(event(EVENTS)).await;
        let seconds = clock.wall().since(began).as_secs_f64();
        let (rate, health) = (f64::from(u32::try_from(EVENTS).expect("small")) / seconds, log.health());
        let size = store.audit_size().await.expect("measures");
        let verdict = verify(&store, Some(log.head()), &[]).await.expect("verifies");
        println!(
            "{EVENTS} events in {seconds:.2} s: {rate:.0} events/s on disk, {} shed, chain of {} rows {}",
            health.shed,
            verdict.rows,
            if verdict.broken_at.is_none() { "whole" } else { "broken" },
        );
        // The row that a channel told last is its mark, and is stored as it ends.
        alerting.shutdown(Duration::from_secs(10)).await;
        let told = store.alert_channels().await.expect("reads").into_iter().map(|channel| channel.through).max();
        println!("the alert channel has dealt with rows up to {}", told.unwrap_or(0));
        store.close().await.expect("closes");
        let file = std::fs::metadata(temporary.path().join("security.db")).expect("is there").len();
        println!("security.db has {file} bytes, {} a row; audit_size told {}", file / EVENTS, size.bytes);
        assert!(health.shed == 0 && verdict.broken_at.is_none(), "{health:?} {verdict:?}");
        let met = rate >= TARGET;
        println!("target {TARGET:.0} events/s: {}", if met { "met" } else { "missed" });
        if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
