//! Argon2id over the secret of a key (SPEC §5.1). Costs about 15 ms and 19 MiB: run it on telemetry's hashing
//! threads, never on a runtime.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use super::HashOutcome;

/// The floor that OWASP's password storage sheet gives for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Blocks of 1 KiB that a run's memory has room for; what is beyond its need is never touched. Above 32 MiB glibc takes memory
/// from the system for this run alone and gives it back with its end (mallopt(3), `M_MMAP_THRESHOLD`). Below, it keeps it, and
/// aligned memory of that size leaves a hole of the same size behind with every run: some twenty wrong keys made 330 MiB. The
/// programs' own allocator (ADR 23) keeps no hole, and gives a run's memory back within some six seconds.
const ROOM: usize = 33 * 1024;

/// Hashing failed: only for lack of memory or a damaged stored hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id failed: {0}")]
pub struct HashError(String);

impl HashError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Hashes the written key (the whole text) with a fresh salt; answers a PHC string.
pub fn hash(key: &str) -> Result<String, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(HashError::of)?;
    let salt = Salt::generate();
    let output = run(key, &salt, params.clone(), Params::DEFAULT_OUTPUT_LEN)?;
    let written = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: (&params).try_into().map_err(HashError::of)?,
        salt: Some(salt),
        hash: Some(output),
    };
    Ok(written.to_string())
}

/// Compares a presented key with a stored PHC string, in constant time.
pub fn verify(key: &str, phc: &str) -> Result<HashOutcome, HashError> {
    let stored = PasswordHash::new(phc).map_err(HashError::of)?;
    let (Some(salt), Some(output)) = (&stored.salt, &stored.hash) else {
        return Err(HashError("the stored hash has no salt or no output".to_owned()));
    };
    if stored.algorithm != Algorithm::Argon2id.ident() || stored.version != Some(Version::V0x13.into()) {
        return Err(HashError("the stored hash is none of Argon2id".to_owned()));
    }
    let params = Params::try_from(&stored).map_err(HashError::of)?;
    // Outputs are compared in constant time (phc `Output`).
    let matches = run(key, salt, params, output.len())? == *output;
    Ok(if matches { HashOutcome::Matches } else { HashOutcome::Differs })
}

fn run(key: &str, salt: &Salt, params: Params, length: usize) -> Result<Output, HashError> {
    let count = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(count.max(ROOM)).map_err(HashError::of)?;
    memory.resize(count, Block::new());
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..length).ok_or_else(|| HashError("the output is too long".to_owned()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(key.as_bytes(), salt, output, &mut memory)
        .map_err(HashError::of)?;
    Output::new(output).map_err(HashError::of)
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

    #[test]
    fn a_hash_that_an_earlier_version_stored_still_fits() {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("parameters");
        let earlier = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let stored = argon2::PasswordHasher::hash_password(&earlier, b"flm_one").expect("hashes").to_string();
        assert_eq!(verify("flm_one", &stored), Ok(HashOutcome::Matches));
        assert_eq!(verify("flm_two", &stored), Ok(HashOutcome::Differs));
        let other = stored.replace("argon2id", "argon2i");
        assert!(verify("flm_one", &other).is_err());
    }
}
