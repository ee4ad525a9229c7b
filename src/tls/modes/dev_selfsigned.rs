//! `dev-selfsigned`: a certificate that nobody vouches for, for development and a LAN whose clients are told to
//! accept it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy, Usual};
use crate::tls::error::TlsError;
use crate::tls::issuing;
use crate::tls::supply::{Supplied, Supply, Wanted};
use crate::types::certificate::Occasion;
use crate::types::listener::TlsMode;

/// Self-signed.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::DEV_SELFSIGNED,
    title: "TLS with a self-signed certificate, for development",
    privacy: Privacy::Encrypted,
    usual: Usual::Home,
    certify: Some(certify),
};

/// Name in the store.
const STORED: &str = "dev-selfsigned";

#[expect(clippy::needless_pass_by_value, reason = "the shape of `Certify`")]
fn certify(supply: Arc<Supply>, wanted: Wanted) -> BoxFuture<'static, Result<Supplied, TlsError>> {
    Box::pin(async move {
        let names = supply.names().await?.subjects();
        let now = supply.clock.wall();
        let certificate = match supply.kept(STORED, &names, now).await? {
            Some(kept) if wanted.occasion != Occasion::Asked => kept,
            _ => supply.keep(STORED, issuing::self_signed(names, now)?, now).await?,
        };
        let next_renewal = Some(certificate.renewal());
        Ok(Supplied::good(certificate, next_renewal))
    })
}
