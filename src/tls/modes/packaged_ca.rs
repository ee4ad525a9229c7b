//! `packaged-ca`: a certificate of the home's own authority. Whoever trusts its root has nothing more to do, whatever
//! the listener's certificate becomes.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy, Usual};
use crate::config::table;
use crate::tls::authority::{Authority, SERVER};
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
        let certificate = match supply.kept(SERVER, &names, now).await? {
            Some(kept) if wanted.occasion != Occasion::Asked => kept,
            _ => supply.keep(SERVER, authority.issue(names, now)?.issued, now).await?,
        };
        let next_renewal = Some(certificate.renewal());
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
