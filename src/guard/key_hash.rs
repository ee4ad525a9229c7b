//! Argon2id over the secret of a key (SPEC §5.1). Costs about 15 ms and 19 MiB: run it on telemetry's hashing
//! threads, never on a runtime.

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use super::HashOutcome;

/// The floor that OWASP's password storage sheet gives for Argon2id: 19 MiB, two passes, one lane.
fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|error| HashError(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashing failed: only for lack of memory or a damaged stored hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id failed: {0}")]
pub struct HashError(String);

/// Hashes the written key (the whole text) with a fresh salt; answers a PHC string.
pub fn hash(key: &str) -> Result<String, HashError> {
    let hash = argon2()?.hash_password(key.as_bytes()).map_err(|error| HashError(error.to_string()))?;
    Ok(hash.to_string())
}

/// Compares a presented key with a stored PHC string, in constant time.
pub fn verify(key: &str, phc: &str) -> Result<HashOutcome, HashError> {
    match argon2()?.verify_password(key.as_bytes(), phc) {
        Ok(()) => Ok(HashOutcome::Matches),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(HashOutcome::Differs),
        Err(error) => Err(HashError(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_matches_and_every_hash_has_its_own_salt() {
        let first = hash("flm_one").expect("hashes");
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, hash("flm_one").expect("hashes"));
        assert_eq!(verify("flm_one", &first), Ok(HashOutcome::Matches));
        assert_eq!(verify("flm_two", &first), Ok(HashOutcome::Differs));
        assert!(verify("flm_one", "garbage").is_err());
    }
}
