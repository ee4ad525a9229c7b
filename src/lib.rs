//! FLM: finds the language-model engines on a machine, puts one guarded OpenAI-compatible endpoint in front of
//! them, and shows everything live in a terminal console.
//!
//! One room per folder; imports run downwards only, and `tests/tidy.rs` holds the table.
//!
//! | room | what it is |
//! |---|---|
//! | [`tui`], [`cli`] | the two front ends; they know [`control`] and nothing that does work |
//! | [`daemon`] | owns a home: runtimes, live state, the control server |
//! | [`control`] | the one handle that front ends hold, over a socket or in memory |
//! | [`operations`] | everything the operator can do, one file per noun |
//! | [`proxy`] | listener, pipeline, relay: a request's way to an engine and back |
//! | [`engines`] | adapters, detection, health, balancing |
//! | [`guard`] | pure security decisions: keys, rates, address lists |
//! | [`audit`], [`tls`] | the chained log of security events; how clients reach a listener |
//! | [`storage`], [`net`] | the only SQL; everything that dials out |
//! | [`wire`] | OpenAI, Ollama, SSE, NDJSON: bytes to values and back |
//! | [`config`], [`telemetry`], [`types`] | settings and paths; counters, tasks, live lane; values that rooms share |

rust_i18n::i18n!("i18n", fallback = "en");

pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod engines;
pub mod guard;
pub mod net;
pub mod operations;
pub mod proxy;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod tui;
pub mod types;
pub mod wire;
