//! The console without a terminal: journeys of actions, screens as text, keys and words.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod chat;
mod compare;
mod fixture;
mod journeys;
mod keys;
mod monkey;
mod picture;
mod policy;
mod screens;
mod wizard;
mod words;
mod work;
