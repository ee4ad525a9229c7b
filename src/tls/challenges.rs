//! [`Challenges`]: what a certificate authority that checks a name over HTTP is answered (RFC 8555 §8.3).
//!
//! Filled while a certificate is being obtained, asked by the plain port for each request below [`PATH`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where challenges are asked for (RFC 8555 §8.3).
pub const PATH: &str = "/.well-known/acme-challenge/";

/// Challenges that are being answered.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Key authorization by token. Locked for a look-up, only on requests to [`PATH`].
    open: Mutex<HashMap<String, Arc<str>>>,
}

/// Answers one challenge until dropped.
#[derive(Debug)]
pub struct OpenChallenge {
    challenges: Arc<Challenges>,
    token: String,
}

impl Challenges {
    /// The key authorization of a token.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Answers a token until what is returned is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>, token: &str, key_authorization: &str) -> OpenChallenge {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(token.to_owned(), key_authorization.into());
        OpenChallenge { challenges: self.clone(), token: token.to_owned() }
    }
}

impl Drop for OpenChallenge {
    fn drop(&mut self) {
        self.challenges.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_until_it_is_over() {
        let challenges = Arc::new(Challenges::default());
        let open = challenges.open("token", "token.thumb");
        assert_eq!(challenges.answer("token").as_deref(), Some("token.thumb"));
        assert_eq!(challenges.answer("other"), None);
        drop(open);
        assert_eq!(challenges.answer("token"), None);
    }
}
