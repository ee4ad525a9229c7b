//! Hashing threads: Argon2 runs off the runtime, bounded (ARCHITECTURE.md, Guard).
