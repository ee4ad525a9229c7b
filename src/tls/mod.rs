//! How clients reach a listener: TLS modes, and later the certificates behind them (SPEC §6).
//!
//! Called by `operations` (which modes there are, whether one may be used on an address). Must never be asked per
//! request: a listener has its mode for life.

pub mod modes;
