//! Challenge `http-01` (RFC 8555 §8.3): the plain port answers for as long as the directory checks.

use std::sync::Arc;

use super::order::Proof;
use crate::tls::challenges::{Challenges, OpenChallenge};

/// Answers all of these until what is returned is dropped.
pub(super) fn answer(challenges: &Arc<Challenges>, proofs: &[Proof]) -> Vec<OpenChallenge> {
    proofs.iter().map(|proof| challenges.open(&proof.token, &proof.key_authorization)).collect()
}
