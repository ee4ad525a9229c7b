//! `local-http`: plain HTTP, for programs on the same machine.

use super::{Mode, Privacy, Usual};
use crate::types::listener::TlsMode;

/// Plain HTTP.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::LOCAL_HTTP,
    title: "plain HTTP, for this machine",
    privacy: Privacy::Clear,
    usual: Usual::Home,
    certify: None,
};
