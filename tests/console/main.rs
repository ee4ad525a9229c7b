//! The console without a terminal: journeys of actions, screens as text, keys and words.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod alerts;
mod fixture;
mod journeys;
mod keys;
mod picture;
mod screens;
mod words;
mod work;
