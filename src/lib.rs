//! FLM: finds the language-model engines on a machine, puts one guarded OpenAI-compatible endpoint in front of
//! them, and shows everything live in a terminal console.
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
pub mod tui;
pub mod types;
pub mod wire;
