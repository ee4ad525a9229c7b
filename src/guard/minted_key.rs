//! [`MintedKey`]: a key that FLM makes for its own requests to its own endpoint, in memory only.
//!
//! Made by `operations` for one call; dropped with it, whether it ended, failed or was left. Such a key is in no store, no
//! list and no backup, has no limits, and costs no Argon2 run. Must never be handed to anybody but the call it was made for.

use std::fmt;
use std::sync::Arc;

use super::Guard;
use super::key_text;
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::key::{KeyLimits, KeyView};
use crate::types::secret::Secret;

/// A key that works as long as this lives.
pub struct MintedKey {
    guard: Arc<Guard>,
    id: KeyId,
    text: Secret,
}

impl MintedKey {
    /// Puts a drawn key in force. Its requests show under `label`, and are counted under [`KeyId::OWN`].
    #[must_use]
    pub fn new(guard: &Arc<Guard>, (id, text): (KeyId, Secret), label: &str, now: UnixMillis) -> Self {
        let last4 = text.expose().get(key_text::KEY_LENGTH - 4..).unwrap_or_default();
        // The operator's own work: it must not run into limits that are meant for clients.
        let limits = KeyLimits { requests_per_minute: 0, ..KeyLimits::default() };
        let view = KeyView::unused(KeyId::OWN, label, last4, limits, now);
        guard.keys.mint(id, text.expose(), view);
        Self { guard: guard.clone(), id, text }
    }

    /// The key as a request carries it.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

impl Drop for MintedKey {
    fn drop(&mut self) {
        self.guard.keys.unmint(self.id);
    }
}

impl fmt::Debug for MintedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::key_table::KeyCheck;
    use crate::types::policy::SecurityPolicy;

    fn drawn(seed: u8) -> (KeyId, Secret) {
        let mut next = seed;
        key_text::write(&mut || {
            next = next.wrapping_mul(5).wrapping_add(17);
            next
        })
    }

    #[test]
    fn a_minted_key_works_at_once_and_only_until_it_is_dropped() {
        let guard = Arc::new(Guard::new(SecurityPolicy::default(), [7; 32]));
        let now = UnixMillis(1);
        let minted = MintedKey::new(&guard, drawn(1), "flm chat", now);
        let other = MintedKey::new(&guard, drawn(2), "flm bench", now);
        let text = minted.text().clone();
        let KeyCheck::Known(entry) = guard.check_key(text.expose(), now) else { panic!("known without a hash") };
        assert_eq!((&*entry.label, entry.record.view.id), ("flm chat", KeyId::OWN));
        // A reload replaces what is stored, and nothing else.
        guard.load_keys(Vec::new());
        assert!(matches!(guard.check_key(text.expose(), now), KeyCheck::Known(_)));
        assert_eq!(guard.take_used_keys(), [], "its use is not written to a store that does not know it");
        assert!(!entry.counts.ended.is_cancelled());
        drop(minted);
        assert!(entry.counts.ended.is_cancelled(), "what still ran is ended");
        assert!(matches!(guard.check_key(text.expose(), now), KeyCheck::Wrong));
        assert!(matches!(guard.check_key(other.text().expose(), now), KeyCheck::Known(_)));
    }

    #[test]
    fn the_id_of_a_minted_key_alone_opens_nothing() {
        let guard = Arc::new(Guard::new(SecurityPolicy::default(), [7; 32]));
        let (id, text) = drawn(1);
        let minted = MintedKey::new(&guard, (id, text.clone()), "flm chat", UnixMillis(1));
        // Another secret under the same id, with a right checksum.
        let mut byte = 0_u8;
        let forged = loop {
            byte = byte.wrapping_add(1);
            let (_, candidate) = drawn(byte);
            let body = format!("flm_{id}_{}", &candidate.expose()[13..56]);
            let sum = key_text::write_checksum_for_tests(&body);
            let forged = format!("{body}{sum}");
            if forged != text.expose() {
                break forged;
            }
        };
        assert!(matches!(guard.check_key(&forged, UnixMillis(1)), KeyCheck::Wrong));
        drop(minted);
    }
}
