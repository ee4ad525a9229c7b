//! `certificate-files`: a certificate that the operator brings and renews, as files. They are read again when they
//! changed and on reload.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy, Usual};
use crate::tls::certificate::Certificate;
use crate::tls::error::TlsError;
use crate::tls::supply::{Supplied, Supply, Wanted};
use crate::types::calendar::date;
use crate::types::listener::TlsMode;

/// The operator's own certificate.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::CERTIFICATE_FILES,
    title: "TLS with a certificate of your own, as files",
    privacy: Privacy::Encrypted,
    usual: Usual::Home,
    certify: Some(certify),
};

/// How long before its end the operator is reminded.
const REMIND: Duration = Duration::from_hours(24 * 14);

fn certify(supply: Arc<Supply>, wanted: Wanted) -> BoxFuture<'static, Result<Supplied, TlsError>> {
    Box::pin(async move {
        let Some(files) = wanted.listener.certificate else {
            return Err(TlsError::Incomplete {
                message: format!("mode {} needs a certificate and its key", TlsMode::CERTIFICATE_FILES),
                hint:
                    "name them: flm proxy start --mode certificate-files --certificate fullchain.pem --key privkey.pem"
                        .to_owned(),
            });
        };
        let now = supply.clock.wall();
        let read = tokio::task::spawn_blocking(move || Certificate::from_files(&files.chain, &files.key, now)).await;
        let certificate =
            read.map_err(|error| TlsError::Setup(format!("reading the certificate failed: {error}")))??;
        let end = certificate.view.not_after;
        let warning = (end.minus(REMIND) <= now)
            .then(|| format!("the certificate ends on {}: renew its files, FLM reads them again by itself", date(end)));
        Ok(Supplied { warning, ..Supplied::good(certificate, None) })
    })
}
