//! The console without a terminal: journeys of actions, screens as text, keys and words.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod fixture;
mod journeys;
mod keys;
mod leak;
mod picture;
mod screens;
mod words;
mod work;
