//! How clients reach a listener: TLS modes, and the certificates behind them (SPEC §6).
//!
//! Called by `proxy` ([`resolver::Resolver`] per connection, [`challenges::Challenges`] per request to the plain port),
//! `operations` (which modes there are, the certificate authority) and `daemon` (which certificate a listener uses
//! now, and its renewal). Private keys live in `security.db` and in memory. Must never hand a listener a certificate
//! that is expired or does not fit its key, and never fall back to plain HTTP.

pub mod acme;
pub mod authority;
pub mod certificate;
pub mod challenges;
pub mod error;
pub mod issuing;
pub mod machine;
pub mod modes;
pub mod resolver;
pub mod supply;
pub mod trust_store;
