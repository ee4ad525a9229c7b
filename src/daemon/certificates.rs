//! Certificates of the listeners: given at start, renewed and swapped while they run (SPEC §6).
//!
//! Each listener's mode is asked again once a minute, when the machine's addresses may be others, the clock has
//! gone on and files may be new; a mode answers with the certificate that there is while that is good. The kernel
//! would tell of addresses by netlink, but not of files that a certificate tool renews, and a question a minute costs
//! nothing that could be measured.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::hosting::Hosting;
use crate::proxy::service::ProxyService;
use crate::tls::modes;
use crate::tls::supply::Supplied;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calendar::date;
use crate::types::certificate::{CertificateView, TlsStatus};
use crate::types::failure::{ErrorCode, Failure, Outcome};

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
        for service in hosting.services() {
            // What went wrong is in the listener's status and the log; the certificate before it is served on.
            let _told = look_again(&hosting, &service).await;
        }
    }
}

/// Looks at every listener's certificate now; answers the names of what is served anew.
///
/// # Errors
/// The first failure; certificates that were served are served on.
pub(super) async fn look_at_all(hosting: &Hosting) -> Outcome<Vec<String>> {
    let mut swapped = Vec::new();
    for service in hosting.services() {
        if let Looked::Swapped(view) = look_again(hosting, &service).await? {
            swapped.push(view.names.join(", "));
        }
    }
    Ok(swapped)
}

async fn look_again(hosting: &Hosting, service: &ProxyService) -> Outcome<Looked> {
    let port = service.status().config.port;
    match certify(hosting, service).await {
        Ok(Looked::Kept) => Ok(Looked::Kept),
        Ok(Looked::Swapped(view)) => {
            let details = format!(
                "the listener on port {port} serves a new certificate for {}, valid until {}",
                view.names.join(", "),
                date(view.not_after)
            );
            tracing::info!(details, "certificate swapped");
            hosting.record(AuditKind::CertificateChanged, Severity::Low, details).await;
            hosting.publish_status();
            Ok(Looked::Swapped(view))
        }
        Err(failure) => {
            let mut status = service.status().tls.unwrap_or_default();
            status.last_error = Some(failure.message.clone());
            // Told once, not once a minute.
            if service.tell_tls(status) {
                tracing::error!(%failure, port, "the certificate could not be renewed");
                let details = format!("certificate of the listener on port {port}: {}", failure.message);
                hosting.record(AuditKind::CertificateChanged, Severity::High, details).await;
                hosting.publish_status();
            }
            Err(failure)
        }
    }
}

/// Has the listener's mode give its certificate, and serves it when it is another one.
///
/// # Errors
/// `PROXY_CERT_FAILED` and what else a mode says; what was served is served on.
pub(super) async fn certify(hosting: &Hosting, service: &ProxyService) -> Outcome<Looked> {
    let before = service.status();
    let Some(certify) = modes::find(&before.config.mode.0).and_then(|mode| mode.certify) else {
        return Ok(Looked::Kept);
    };
    let supplied = certify(hosting.supply.clone(), before.config.clone()).await.map_err(Failure::from)?;
    let Supplied { certificate, next_renewal, warning } = supplied;
    let view = certificate.view.clone();
    let served = before.tls.and_then(|status| status.certificate);
    let looked = if served.is_some_and(|served| served.fingerprint == view.fingerprint) {
        Looked::Kept
    } else {
        service.open_tls(certificate).map_err(|error| {
            Failure::new(ErrorCode::ProxyPortInUse, error.to_string())
                .hint("end the program that took the port, or choose another with --https-port N")
        })?;
        Looked::Swapped(view.clone())
    };
    let status = TlsStatus { certificate: Some(view), next_renewal, progress: None, last_error: None, warning };
    if service.tell_tls(status) {
        hosting.publish_status();
    }
    Ok(looked)
}
