//! When the directory advises to renew (RFC 9773): asked seldom, followed, and never trusted to leave a certificate to its end.

use std::time::Duration;

use instant_acme::{CertificateIdentifier, Error, RenewalInfo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::account;
use super::client::Client;
use super::error::AcmeError;
use super::plan::Plan;
use crate::storage::SecurityStore;
use crate::types::acme::RenewalAdvice;
use crate::types::certificate::CertificateView;
use crate::types::clock::UnixMillis;

/// When to ask again where the directory does not say, or gives no advice: RFC 9773 §4.3.3 wants it at least once a day.
const ASK_AGAIN: Duration = Duration::from_hours(6);
/// Bounds of what the directory says (RFC 9773 §4.3.2).
const ASK_AGAIN_LEAST: Duration = Duration::from_mins(1);
const ASK_AGAIN_MOST: Duration = Duration::from_hours(24);

/// How a certificate is named in the protocol; `None` when it does not say who issued it.
pub(super) fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    CertificateIdentifier::try_from(&leaf).ok().map(CertificateIdentifier::into_owned)
}

/// Whether it is time to ask.
pub(super) fn is_due(advice: Option<&RenewalAdvice>, view: &CertificateView, now: UnixMillis) -> bool {
    advice.is_none_or(|advice| advice.fingerprint != view.fingerprint || advice.ask_again <= now)
}

/// Asks, and keeps the answer under the certificate's name.
///
/// # Errors
/// When the directory does not answer; the advice before stands, and it is not asked at once again.
pub(super) async fn ask(
    store: &SecurityStore,
    plan: &Plan,
    client: &Client,
    name: &str,
    chain: &str,
    view: &CertificateView,
    now: UnixMillis,
) -> Result<RenewalAdvice, AcmeError> {
    let before = store.renewal_advice(name).await?.filter(|advice| advice.fingerprint == view.fingerprint);
    let silent = |ask_again: Duration| RenewalAdvice {
        fingerprint: view.fingerprint.clone(),
        renew: before.as_ref().and_then(|advice| advice.renew),
        window: before.as_ref().and_then(|advice| advice.window),
        ask_again: now.plus(ask_again),
    };
    // First, so that a directory that answers with errors is not asked every minute.
    store.put_renewal_advice(name, silent(ASK_AGAIN)).await?;
    let Some(identifier) = identifier(chain) else { return Ok(silent(ASK_AGAIN)) };
    let Some((account, _)) = account::kept(store, plan, client).await? else { return Ok(silent(ASK_AGAIN)) };
    let advice = match account.renewal_info(&identifier).await {
        Ok((info, ask_again)) => {
            let ask_again = ask_again.clamp(ASK_AGAIN_LEAST, ASK_AGAIN_MOST);
            follow(&info, before.as_ref(), view, now.plus(ask_again), fastrand::f64())
        }
        Err(Error::Unsupported(_)) => RenewalAdvice { renew: None, window: None, ..silent(ASK_AGAIN) },
        Err(error) => return Err(client.error("its advice on renewal", &error)),
    };
    store.put_renewal_advice(name, advice.clone()).await?;
    Ok(advice)
}

/// A point of the window, evenly at random (RFC 9773 §4.2); the one that was chosen stays while the window does.
fn follow(
    info: &RenewalInfo,
    before: Option<&RenewalAdvice>,
    view: &CertificateView,
    ask_again: UnixMillis,
    random: f64,
) -> RenewalAdvice {
    let at = |time: time::OffsetDateTime| UnixMillis(time.unix_timestamp().saturating_mul(1000));
    let (start, end) = (at(info.suggested_window.start), at(info.suggested_window.end));
    let window = Some((start, end));
    let renew = match before {
        Some(before) if before.window == window => before.renew,
        // A window that ends before it begins means nothing.
        _ if end <= start => None,
        _ => Some(start.plus(end.since(start).mul_f64(random.clamp(0.0, 1.0)))),
    };
    RenewalAdvice { fingerprint: view.fingerprint.clone(), renew, window, ask_again }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(start: &str, end: &str) -> RenewalInfo {
        serde_json::from_value(serde_json::json!({ "suggestedWindow": { "start": start, "end": end } })).expect("info")
    }

    fn view() -> CertificateView {
        CertificateView {
            names: vec!["a.example".into()],
            subject: String::new(),
            issuer: String::new(),
            not_before: UnixMillis(0),
            not_after: UnixMillis(1),
            fingerprint: "AB".into(),
        }
    }

    #[test]
    fn a_point_of_the_window_is_chosen_once_and_kept_while_the_window_stays() {
        let window = info("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        let first = follow(&window, None, &view(), UnixMillis(7), 0.5);
        let (start, end) = first.window.expect("a window");
        assert_eq!(end.since(start), Duration::from_hours(48));
        assert_eq!(first.renew, Some(start.plus(Duration::from_hours(24))));
        let same = follow(&window, Some(&first), &view(), UnixMillis(9), 0.9);
        assert_eq!((same.renew, same.ask_again), (first.renew, UnixMillis(9)));
        let sooner = info("2025-12-01T00:00:00Z", "2025-12-02T00:00:00Z");
        let moved = follow(&sooner, Some(&same), &view(), UnixMillis(9), 0.0);
        assert_eq!(moved.renew, moved.window.map(|(start, _)| start), "another window is followed");
        let senseless = info("2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z");
        assert_eq!(follow(&senseless, None, &view(), UnixMillis(9), 0.5).renew, None);
    }

    #[test]
    fn it_is_asked_once_per_certificate_and_then_when_it_said() {
        let now = UnixMillis(100);
        assert!(is_due(None, &view(), now));
        let advice = RenewalAdvice { fingerprint: "AB".into(), renew: None, window: None, ask_again: UnixMillis(101) };
        assert!(!is_due(Some(&advice), &view(), now));
        assert!(is_due(Some(&advice), &view(), UnixMillis(101)));
        let other = RenewalAdvice { fingerprint: "CD".into(), ..advice };
        assert!(is_due(Some(&other), &view(), now), "another certificate");
    }
}
