//! [`Affinity`]: which engine has seen the beginning of a conversation, so that its cache is warm (SPEC §3.9).
//!
//! Called by the proxy's resolve stage when several engines could serve a request, and told by the relay which one
//! did. A conversation is known by keyed hashes of the prefixes of its messages: what was the whole of one request is a
//! prefix of the next. A fixed table without locks: an entry that is overwritten costs a cold cache and nothing else.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::ids::EngineId;

/// Places in the table: 128 KiB. A power of two.
const PLACES: usize = 1 << 14;
/// Bits of an entry that tell the engine.
const ENGINE_BITS: u32 = 20;
/// Longest conversation that is looked at, in messages from its end: agents send hundreds.
const MESSAGES: usize = 64;

/// Conversations and the engines that served them.
#[derive(Debug)]
pub struct Affinity {
    /// Keyed: nobody outside can choose what collides.
    hashing: RandomState,
    /// Upper bits: the rest of the conversation's hash; lower bits: of the engine's id. 0 is empty.
    table: Box<[AtomicU64]>,
}

/// A conversation as one request shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Hashes of its prefixes, the whole first; at most [`MESSAGES`].
    prefixes: Vec<u64>,
}

impl Default for Affinity {
    fn default() -> Self {
        Self { hashing: RandomState::new(), table: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Affinity {
    /// Reads a conversation: whose it is (key and model, so that two clients with one system prompt are two), and its
    /// messages in order.
    #[must_use]
    pub fn conversation<'a>(&self, owner: &[&[u8]], messages: impl Iterator<Item = &'a [u8]>) -> Conversation {
        let mut hasher = self.hashing.build_hasher();
        for part in owner {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        let mut prefixes: Vec<u64> = messages
            .map(|message| {
                hasher.write_usize(message.len());
                hasher.write(message);
                hasher.finish()
            })
            .collect();
        prefixes.reverse();
        prefixes.truncate(MESSAGES);
        Conversation { prefixes }
    }

    /// The place of the engine, among those given, that served the longest known beginning.
    #[must_use]
    pub fn preferred<'a>(
        &self,
        conversation: &Conversation,
        mut engines: impl Iterator<Item = &'a EngineId> + Clone,
    ) -> Option<usize> {
        let found = conversation.prefixes.iter().find_map(|prefix| {
            let (place, rest) = split(*prefix);
            let entry = self.table[place].load(Ordering::Relaxed);
            (entry != 0 && entry >> ENGINE_BITS == rest).then_some(entry)
        })?;
        engines.position(|engine| self.tag(engine) == found & ((1 << ENGINE_BITS) - 1))
    }

    /// Remembers who served it.
    pub fn served(&self, conversation: &Conversation, engine: &EngineId) {
        if let Some(whole) = conversation.prefixes.first() {
            let (place, rest) = split(*whole);
            self.table[place].store((rest << ENGINE_BITS) | self.tag(engine), Ordering::Relaxed);
        }
    }

    /// An engine in few bits, never 0.
    fn tag(&self, engine: &EngineId) -> u64 {
        (self.hashing.hash_one(engine.as_str()) & ((1 << ENGINE_BITS) - 1)).max(1)
    }
}

/// Place in the table, and the bits that are compared there.
fn split(hash: u64) -> (usize, u64) {
    let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
    (place, hash >> ENGINE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> EngineId {
        EngineId::parse(name).expect("an id")
    }

    fn talk(affinity: &Affinity, owner: &str, messages: &[&str]) -> Conversation {
        affinity.conversation(&[owner.as_bytes()], messages.iter().map(|message| message.as_bytes()))
    }

    #[test]
    fn a_conversation_that_goes_on_prefers_the_engine_that_served_it() {
        let affinity = Affinity::default();
        let engines = [id("a"), id("b"), id("c")];
        let first = talk(&affinity, "me", &["system", "question"]);
        assert_eq!(affinity.preferred(&first, engines.iter()), None);
        affinity.served(&first, &engines[1]);
        let next = talk(&affinity, "me", &["system", "question", "answer", "another"]);
        assert_eq!(affinity.preferred(&next, engines.iter()), Some(1));
        affinity.served(&next, &engines[2]);
        let third = talk(&affinity, "me", &["system", "question", "answer", "another", "answer", "third"]);
        assert_eq!(affinity.preferred(&third, engines.iter()), Some(2), "the longest beginning counts");
        assert_eq!(affinity.preferred(&third, engines[..2].iter()), None, "that engine cannot serve now");
    }

    #[test]
    fn another_conversation_or_another_owner_prefers_nobody() {
        let affinity = Affinity::default();
        let engines = [id("a")];
        affinity.served(&talk(&affinity, "me", &["system", "question"]), &engines[0]);
        for (owner, messages) in [
            ("you", vec!["system", "question", "answer"]),
            ("me", vec!["system", "other"]),
            ("me", vec!["systemquestion"]),
            ("me", vec![]),
        ] {
            let conversation = talk(&affinity, owner, &messages);
            assert_eq!(affinity.preferred(&conversation, engines.iter()), None, "{owner} {messages:?}");
        }
    }

    #[test]
    fn a_long_conversation_is_known_by_its_end() {
        let affinity = Affinity::default();
        let engines = [id("a")];
        let mut messages = vec!["x"; 1_000];
        affinity.served(&talk(&affinity, "me", &messages), &engines[0]);
        messages.extend(["answer", "question"]);
        let next = talk(&affinity, "me", &messages);
        assert_eq!((next.prefixes.len(), affinity.preferred(&next, engines.iter())), (MESSAGES, Some(0)));
    }
}
