//! Listener, pipeline, relay: a request's way from socket to engine and back (SPEC §4).
//!
//! Called by `daemon`. Must never touch storage: no disk on the hot path.
//!
//! | file | stage of SPEC §4.2 |
//! |---|---|
//! | `service`, `connection_limits`, `connection` | listener, per-peer limits, HTTP/1.1 and HTTP/2 |
//! | `door` | what is spoken on the port; the plain port beside a TLS port only shows the way |
//! | `client_address`, `proxy_protocol` | whose request it is |
//! | `screen`, `sanity` | allow list, block list, per-address rate and in flight, a head that makes sense |
//! | `rules` | intrusion rules and honeypots, between the lists and the rate |
//! | `cors`, `open` | preflight, routes without a key |
//! | `authenticate` | authentication, per-key rate, parallel limit |
//! | `route` | method, path, media type, rights |
//! | `body`, `media` | capped read and parse; files, images and sounds checked |
//! | `model_list`, `ollama_api` | what there is, in OpenAI's and Ollama's shapes |
//! | `resolve` | model, the key's models, capability |
//! | `budget` | the key's tokens of the day |
//! | `media` | images that are only named, fetched |
//! | `relay`, `prompt`, `profile`, `stream` | injection, engine, translation |
//! | `count_tokens` | the same for a prompt that is only counted |
//! | `passthrough`, `passed` | an engine's own API, as the engine answers it |
//! | `pace` | refusals of strangers wait for their turn in a flood |
//! | `finish`, `refusal`, `account`, `trace` | headers, errors, accounting, traces |

mod account;
mod answer;
mod authenticate;
mod body;
mod budget;
pub mod client_address;
mod connection;
pub mod connection_limits;
mod cors;
mod count_tokens;
mod door;
mod exchange;
mod finish;
mod frames;
mod framing;
pub mod limits;
mod media;
mod metrics_page;
mod model_list;
mod ollama_api;
mod open;
mod pace;
mod passed;
mod passthrough;
mod pipeline;
pub mod profile;
pub mod prompt;
mod proxy_protocol;
mod queue;
mod refusal;
mod relay;
mod resolve;
mod route;
mod rules;
mod sanity;
mod screen;
pub mod service;
pub mod shared;
mod stream;
mod trace;
mod watched;
pub mod worker;

pub use self::route::{inference_of, knows_route};
pub use self::sanity::is_own_name;
