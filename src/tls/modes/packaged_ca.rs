//! `packaged-ca`: a certificate of the home's own authority. Whoever trusts its root has nothing more to do, whatever
//! the listener's certificate becomes.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy, Usual};
use crate::config::table;
use crate::tls::authority::{Authority, SERVER, SERVER_BY_NAME};
use crate::tls::certificate::Certificate;
use crate::tls::error::TlsError;
use crate::tls::supply::{Supplied, Supply, Wanted};
use crate::types::address::parse_network;
use crate::types::certificate::Occasion;
use crate::types::listener::TlsMode;

/// The home's own authority.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::PACKAGED_CA,
    title: "TLS with a certificate of this home's own authority",
    privacy: Privacy::Encrypted,
    usual: Usual::Home,
    certify: Some(certify),
};

#[expect(clippy::needless_pass_by_value, reason = "the shape of `Certify`")]
fn certify(supply: Arc<Supply>, wanted: Wanted) -> BoxFuture<'static, Result<Supplied, TlsError>> {
    Box::pin(async move {
        let machine = supply.names().await?;
        let now = supply.clock.wall();
        let authority = if let Some(authority) = Authority::load(&supply.store, now).await? {
            authority
        } else {
            // The setting's rule has let networks through only.
            let networks = (supply.settings)().get(table::TLS_CA_NETWORKS);
            let networks: Vec<_> = networks.iter().filter_map(|text| parse_network(text).ok()).collect();
            Authority::make(&supply.store, &machine, &networks, now).await?
        };
        let (names, refused) = authority.allowed(machine.subjects());
        // BoringSSL, and with it Bun, cannot check a root's limits on addresses, and refuses a leaf that names one
        // (UNSUPPORTED_CONSTRAINT_TYPE): whoever calls a name gets a leaf for names alone.
        let only_names: Vec<String> = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let certificate = leaf(&supply, &authority, wanted.occasion, SERVER, names).await?;
        let mut renewal = certificate.renewal();
        let certificate = if only_names.is_empty() {
            certificate
        } else {
            let by_name = leaf(&supply, &authority, wanted.occasion, SERVER_BY_NAME, only_names).await?;
            renewal = renewal.min(by_name.renewal());
            certificate.with_by_name(&by_name)
        };
        let next_renewal = Some(renewal);
        let warning = (!refused.is_empty()).then(|| {
            format!(
                "the certificate authority may not vouch for {}: clients that call these are refused by their own check; \
                 'flm security ca init --replace' makes one that may",
                refused.join(", ")
            )
        });
        Ok(Supplied { warning, ..Supplied::good(certificate, next_renewal) })
    })
}

/// The leaf that is kept there, or a new one when it is not for all of these names, or another was asked for.
async fn leaf(
    supply: &Supply,
    authority: &Authority,
    occasion: Occasion,
    place: &str,
    names: Vec<String>,
) -> Result<Certificate, TlsError> {
    let now = supply.clock.wall();
    match supply.kept(place, &names, now).await? {
        Some(kept) if occasion != Occasion::Asked => Ok(kept),
        _ => supply.keep(place, authority.issue(names, now)?.issued, now).await,
    }
}
