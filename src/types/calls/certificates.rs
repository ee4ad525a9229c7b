//! Operations on the listeners' certificates (SPEC §2 `flm security certificate`, §6).

use serde::{Deserialize, Serialize};

use super::long_call;
use crate::types::certificate::CertificateProgress;
use crate::types::listener::ListenerStatus;

/// Gives a listener another certificate now. Fails with `NOT_FOUND` when no listener with TLS runs there, with what its mode says
/// when there is none; the one before is served on then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewCertificate {
    /// Which port for plain HTTP; `None` is the only listener with TLS.
    pub port: Option<u16>,
}
long_call!(RenewCertificate, "certificates/renew", Changes, ListenerStatus, CertificateProgress);
