//! The listeners' certificates: another one now (SPEC §6). They are given and renewed by themselves otherwise.

use super::context::{Context, Told};
use super::progress::Reporter;
use crate::types::calls::LongCall;
use crate::types::calls::certificates::RenewCertificate;
use crate::types::certificate::{CertificateProgress, Occasion};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::ListenerStatus;

/// Gives a listener another certificate now.
///
/// # Errors
/// `NOT_FOUND` when no listener with TLS runs there, `INVALID_ARGUMENT` when several do and none is named, and what the mode
/// says when there is no other one.
pub async fn renew(
    context: &Context,
    call: RenewCertificate,
    told: Reporter<RenewCertificate>,
) -> Outcome<ListenerStatus> {
    let live = context.live()?;
    let running = live.host.status().listeners;
    let with_tls: Vec<u16> =
        running.iter().filter(|listener| listener.tls.is_some()).map(|listener| listener.config.port).collect();
    let ports = with_tls.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let port = match (call.port, with_tls.as_slice()) {
        (Some(port), known) if known.contains(&port) => port,
        (None, [only]) => *only,
        (_, []) => {
            return Err(Failure::new(ErrorCode::NotFound, "no listener with TLS runs")
                .hint("start one, such as: flm proxy start --mode packaged-ca"));
        }
        (Some(port), _) => {
            return Err(Failure::new(ErrorCode::NotFound, format!("no listener with TLS runs on port {port}"))
                .hint(format!("listeners with TLS run on: {ports}")));
        }
        (None, _) => {
            return Err(Failure::new(ErrorCode::InvalidArgument, "several listeners have certificates")
                .hint(format!("name one with --port ({ports})")));
        }
    };
    // Nothing else is changed, and what it takes is outside: other changes do not wait for it.
    live.host.certify(port, Occasion::Asked, told_to(told)).await
}

/// Hands what is being done on to whoever asked.
pub(super) fn told_to<C: LongCall<Progress = CertificateProgress>>(reporter: Reporter<C>) -> Told {
    Box::new(move |step| reporter.tell(&CertificateProgress { message: step.to_owned() }))
}
