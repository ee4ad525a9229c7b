//! The console without a terminal: journeys of actions, screens as text, keys and words.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod alerts;
mod captures;
mod chat;
mod commands;
mod compare;
mod firewall;
mod fixture;
mod journeys;
mod keys;
mod leak;
mod long_lists;
mod monkey;
mod picture;
mod policy;
mod screens;
mod states;
mod wizard;
mod words;
mod work;
