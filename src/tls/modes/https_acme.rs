//! `https-acme`: a certificate that browsers and client libraries trust, from an ACME directory such as Let's Encrypt.
//!
//! What to obtain and how is in the settings `acme.…`; the work is done in `tls/acme`.

use super::{Mode, Privacy, Usual};
use crate::tls::acme::renewal;
use crate::types::listener::TlsMode;

/// From an ACME directory.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::HTTPS_ACME,
    title: "TLS with a certificate that the world trusts, from an ACME directory",
    privacy: Privacy::Encrypted,
    usual: Usual::World,
    certify: Some(|supply, wanted| Box::pin(renewal::certify(supply, wanted))),
};
