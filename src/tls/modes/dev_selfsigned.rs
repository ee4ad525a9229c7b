//! `dev-selfsigned`: a certificate that nobody vouches for, for development and a LAN whose clients are told to
//! accept it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy};
use crate::tls::error::TlsError;
use crate::tls::issuing;
use crate::tls::supply::{Supplied, Supply};
use crate::types::listener::{ListenerConfig, TlsMode};

/// Self-signed.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::DEV_SELFSIGNED,
    title: "TLS with a self-signed certificate, for development",
    privacy: Privacy::Encrypted,
    certify: Some(certify),
};

/// Name in the store.
const STORED: &str = "dev-selfsigned";

fn certify(supply: Arc<Supply>, _listener: ListenerConfig) -> BoxFuture<'static, Result<Supplied, TlsError>> {
    Box::pin(async move {
        let wanted = supply.names().await?.subjects();
        let now = supply.clock.wall();
        let certificate = match supply.kept(STORED, &wanted, now).await? {
            Some(kept) => kept,
            None => supply.keep(STORED, issuing::self_signed(wanted, now)?, now).await?,
        };
        let next_renewal = Some(certificate.renewal());
        Ok(Supplied { certificate, next_renewal, warning: None })
    })
}
