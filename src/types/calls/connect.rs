//! How a client program is set up for the own endpoint (SPEC §2 `flm connect`).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::ids::KeyId;

/// Tells the settings of a client program, and tries them when asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Which program, such as `claude`.
    pub client: String,
    /// Whose key the program is to use; it must be in force.
    pub key: Option<KeyId>,
    /// Which model; `None` is the first one that chats.
    pub model: Option<String>,
    /// Whether the request that the program would send is sent.
    pub trial: Trial,
}
call!(Connect, "connect/show", Changes, ConnectGuide);

/// Whether the request that a program would send is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// It is not.
    #[default]
    None,
    /// It is, with a key that dies with the call: keys are stored as hashes, so FLM does not have the client's.
    Sent,
}

/// Settings of a client program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ConnectGuide {
    /// Its name on the command line.
    pub client: String,
    /// Its name for people.
    pub title: String,
    /// The version that was tried with FLM; `None` is untested.
    pub tried: Option<String>,
    /// What it takes as the base URL.
    pub base_url: String,
    /// The model in the settings; outside text.
    pub model: String,
    /// What to put where.
    pub steps: Vec<ConnectStep>,
    /// How the request went that such a client sends, when it was sent.
    pub trial: Option<TrialReport>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ConnectStep {
    /// Where it goes, for people.
    pub place: String,
    /// What goes there, exactly.
    pub text: String,
}

/// How a request went that a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrialReport {
    /// Method and path.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The id under which the Proxy tab and the logs know the request.
    pub request_id: Option<String>,
    /// From the request to the end of the answer, milliseconds.
    pub took_ms: f64,
}
