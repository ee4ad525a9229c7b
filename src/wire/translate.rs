//! What all translators of requests share: why a request cannot be translated.
//!
//! Called by the request translators of this room. Must never drop a field silently: what has no word in the other
//! dialect is named.

/// Why a request cannot be put into another dialect's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranslateFault {
    /// A field has the wrong type; the second part completes "must be …".
    #[error("the field {0:?} must be {1}")]
    WrongType(String, &'static str),
    /// The field asks for something that cannot be done.
    #[error("{message}")]
    Unsupported {
        /// The field.
        param: String,
        /// Why, and what to do.
        message: String,
    },
}

impl TranslateFault {
    /// A field that asks for what cannot be done.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }
}
