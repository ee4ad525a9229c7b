//! Certificates of the listeners: given at start, renewed and swapped while they run (SPEC §6).
//!
//! Each listener's mode is asked again once a minute, when the machine's addresses may be others, the clock has
//! gone on and files may be new; a mode answers with the certificate that there is while that is good. The kernel
//! would tell of addresses by netlink, but not of files that a certificate tool renews, and a question a minute costs
//! nothing that could be measured.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use super::hosting::Hosting;
use crate::proxy::service::ProxyService;
use crate::tls::modes;
use crate::tls::supply::{Progress, Supplied, Wanted};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calendar::date;
use crate::types::certificate::{CertificateView, Occasion, TlsStatus};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::ListenerPhase;

/// How often every listener's certificate is looked at.
const PERIOD: Duration = Duration::from_mins(1);

/// What a look at a listener's certificate did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Looked {
    /// The one in use stays.
    Kept,
    /// Another one is served from now on.
    Swapped(CertificateView),
}

/// Looks at the certificates until the owner ends.
pub(super) async fn watch(hosting: Arc<Hosting>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let services = hosting.services();
        // Those that wait for their first certificate are being looked after. Side by side, since an order may take minutes.
        let served = services.iter().filter(|service| service.status().phase == ListenerPhase::Running);
        let looks = served.map(|service| give(&hosting, service, Occasion::Look, &|_: &str| {}));
        // What went wrong is in the listener's status and the log; the certificate before it is served on.
        let _told = join_all(looks).await;
    }
}

/// Looks at every listener's certificate now; answers the names of what is served anew.
///
/// # Errors
/// The first failure; certificates that were served are served on.
pub(super) async fn look_at_all(hosting: &Hosting) -> Outcome<Vec<String>> {
    let mut swapped = Vec::new();
    for service in hosting.services() {
        if service.status().phase == ListenerPhase::Obtaining {
            continue;
        }
        // A certificate that is still good is no reason to refuse a reload, whatever keeps it from being renewed.
        if let Looked::Swapped(view) = give(hosting, &service, Occasion::Reload, &|_: &str| {}).await? {
            swapped.push(view.names.join(", "));
        }
    }
    Ok(swapped)
}

/// What came of asking a mode for a certificate.
struct Certified {
    looked: Looked,
    /// Why there is no newer one, where one was due or asked for.
    trouble: Option<Failure>,
}

/// Gives a listener its certificate, and tells wherever somebody may look how that went.
///
/// # Errors
/// What the mode says; what was served is served on. Also when somebody asked for another certificate and there is none.
pub(super) async fn give(
    hosting: &Hosting,
    service: &ProxyService,
    occasion: Occasion,
    told: &(dyn Fn(&str) + Send + Sync),
) -> Outcome<Looked> {
    let before = service.status();
    let port = before.config.port;
    let known = before.tls.as_ref().and_then(|tls| tls.last_error.clone());
    let outcome = certify(hosting, service, occasion, told).await;
    let (looked, trouble) = match outcome {
        Ok(Certified { looked, trouble }) => (Ok(looked), trouble),
        Err(failure) => (Err(failure.clone()), Some(failure)),
    };
    if let Ok(Looked::Swapped(view)) = &looked {
        let details = format!(
            "the listener on port {port} serves a new certificate for {}, valid until {}",
            view.names.join(", "),
            date(view.not_after)
        );
        tracing::info!(details, "certificate swapped");
        // The first one is told by who starts the listener.
        if before.phase == ListenerPhase::Running {
            hosting.record(AuditKind::CertificateChanged, Severity::Low, details).await;
        }
    }
    if looked.is_err() {
        let mut status = service.status().tls.unwrap_or_default();
        status.progress = None;
        status.last_error = trouble.as_ref().map(|failure| failure.message.clone());
        service.tell_tls(status);
    }
    // Told once, not once a minute; and a start that fails is told by who starts.
    if let Some(failure) = trouble.as_ref().filter(|failure| known.as_ref() != Some(&failure.message))
        && failure.code != ErrorCode::Cancelled
        && (looked.is_ok() || before.phase == ListenerPhase::Running)
    {
        tracing::error!(%failure, hint = failure.hint, port, "there is no newer certificate");
        let details = format!("certificate of the listener on port {port}: {}", failure.message);
        hosting.record(AuditKind::CertificateChanged, Severity::High, details).await;
    }
    if service.status() != before {
        hosting.publish_status();
    }
    match (looked, trouble) {
        // Who asks for another one wants to know that it is the old one still.
        (Ok(_), Some(failure)) if occasion == Occasion::Asked => Err(failure),
        (looked, _) => looked,
    }
}

/// Has the listener's mode give its certificate, and serves it when it is another one.
///
/// # Errors
/// `PROXY_CERT_FAILED` and what else a mode says; what was served is served on. `CANCELLED` when the listener is stopped.
async fn certify(
    hosting: &Hosting,
    service: &ProxyService,
    occasion: Occasion,
    told: &(dyn Fn(&str) + Send + Sync),
) -> Outcome<Certified> {
    let listener = service.status().config;
    let Some(certify) = modes::find(&listener.mode.0).and_then(|mode| mode.certify) else {
        return Ok(Certified { looked: Looked::Kept, trouble: None });
    };
    let (steps, mut heard) = tokio::sync::watch::channel(String::new());
    let progress = Progress::new(move |step| {
        steps.send_replace(step.to_owned());
    });
    let mut work = certify(hosting.supply.clone(), Wanted { listener, occasion, progress });
    let supplied = loop {
        tokio::select! {
            biased;
            supplied = &mut work => break supplied.map_err(Failure::from)?,
            Ok(()) = heard.changed() => {
                let step = heard.borrow_and_update().clone();
                tracing::info!(step, "certificate");
                service.tell_progress(&step);
                hosting.publish_status();
                told(&step);
            }
            () = service.stopping() => return Err(broken_off("the listener is being stopped")),
            () = hosting.ending.cancelled() => return Err(broken_off("the proxy is about to end")),
        }
    };
    let Supplied { certificate, next_renewal, warning, trouble } = supplied;
    let view = certificate.view.clone();
    let served = service.status().tls.and_then(|status| status.certificate);
    let looked = if served.is_some_and(|served| served.fingerprint == view.fingerprint) {
        Looked::Kept
    } else {
        service.open_tls(certificate).map_err(|error| {
            Failure::new(ErrorCode::ProxyPortInUse, error.to_string())
                .hint("end the program that took the port, or choose another with --https-port N")
        })?;
        Looked::Swapped(view.clone())
    };
    let last_error = trouble.as_ref().map(|failure| failure.message.clone());
    service.tell_tls(TlsStatus { certificate: Some(view), next_renewal, progress: None, last_error, warning });
    Ok(Certified { looked, trouble })
}

fn broken_off(why: &str) -> Failure {
    Failure::new(ErrorCode::Cancelled, format!("obtaining the certificate was broken off: {why}"))
}
