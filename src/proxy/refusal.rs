//! The only map from a refusal or an engine's fault to what the client is told (SPEC §4.4).

use std::borrow::Cow;
use std::ops::Deref;

use bytes::Bytes;
use http::StatusCode;

use super::sanity::cut;
use crate::engines::adapter::{EngineFault, PrepareError};
use crate::types::ids::RequestId;
use crate::wire::chat_images::ImageFault;
use crate::wire::client::{ErrorShape, ToldError};
use crate::wire::form::FormFault;
use crate::wire::json_body::BodyFault;
use crate::wire::translate::TranslateFault;

/// A request that gets an error instead of an answer. Boxed: it stands in every stage's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(Box<Details>);

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) status: StatusCode,
    /// Code of SPEC §4.4, or an engine's own code.
    pub(super) code: Cow<'static, str>,
    /// OpenAI's `type`.
    pub(super) kind: Cow<'static, str>,
    pub(super) message: String,
    pub(super) param: Option<String>,
    /// Seconds for `retry-after`.
    pub(super) retry_after: Option<u32>,
    /// Whether client libraries are told not to try again (`x-should-retry: false`).
    pub(super) retrying: Retrying,
    /// `allow` header of a 405.
    pub(super) allow: Option<&'static str>,
    /// Who refused.
    pub(super) by: RefusedBy,
}

/// Whether a retry can heal it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retrying {
    /// The client library decides by the status.
    AsUsual,
    /// It cannot: say so.
    Useless,
}

/// For accounts: whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedBy {
    /// Block list or allow list.
    AddressList,
    /// Any other stage.
    Stage,
    /// The engine failed.
    Engine,
}

impl Deref for Refusal {
    type Target = Details;
    fn deref(&self) -> &Details {
        &self.0
    }
}

impl Refusal {
    fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        kind: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Details {
            status,
            code: code.into(),
            kind: kind.into(),
            message: message.into(),
            param: None,
            retry_after: None,
            retrying: Retrying::AsUsual,
            allow: None,
            by: RefusedBy::Stage,
        }))
    }

    fn invalid(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, code, "invalid_request_error", message)
    }

    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    fn useless(mut self) -> Self {
        self.0.retrying = Retrying::Useless;
        self
    }

    fn after(mut self, seconds: u32) -> Self {
        // SPEC §4.4: retry-after never asks for more than 120 s.
        self.0.retry_after = Some(seconds.clamp(1, 120));
        self
    }

    fn by(mut self, by: RefusedBy) -> Self {
        self.0.by = by;
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn missing_key() -> Self {
        Self::invalid(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "No API key was sent. Send it as 'Authorization: Bearer flm_…' or as 'x-api-key'.",
        )
    }

    /// The same words for a wrong, an unknown, an expired and a revoked key (SECURITY.md, attack case 4).
    pub(super) fn wrong_key() -> Self {
        Self::invalid(StatusCode::UNAUTHORIZED, "invalid_api_key", "The API key is not valid.")
    }

    pub(super) fn ip_blocked() -> Self {
        Self::new(StatusCode::FORBIDDEN, "ip_blocked", "permission_error", "Your address is blocked.")
            .useless()
            .by(RefusedBy::AddressList)
    }

    pub(super) fn ip_not_allowed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "ip_not_allowed", "permission_error", "Your address is not allowed here.")
            .useless()
            .by(RefusedBy::AddressList)
    }

    pub(super) fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_denied", "permission_error", message)
    }

    pub(super) fn model_not_allowed(model: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "model_not_allowed",
            "permission_error",
            format!("This API key may not use the model '{model}'."),
        )
        .param("model")
    }

    pub(super) fn not_found(method: &str, path: &str) -> Self {
        Self::invalid(StatusCode::NOT_FOUND, "not_found", format!("There is no route {method} {path}."))
    }

    /// A route that exists, but not for clients.
    pub(super) fn route_disabled(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::NOT_FOUND, "route_disabled", message)
    }

    pub(super) fn no_engine(id: &str) -> Self {
        Self::invalid(StatusCode::NOT_FOUND, "not_found", format!("There is no engine '{id}'."))
    }

    /// A URL that an engine would fetch (SPEC §4.11).
    pub(super) fn remote_reference(param: impl Into<String>) -> Self {
        Self::bad_request(
            "FLM never passes a URL or a foreign host on for an engine to fetch. Send the data inline, as a data: URL or \
             base64; with the setting media.fetch_remote on, FLM fetches images of /v1 requests itself.",
        )
        .param(param)
    }

    /// The same for a request that FLM could answer with another setting: media are fetched by FLM or by nobody.
    pub(super) fn remote_media_off(param: impl Into<String>) -> Self {
        Self::bad_request(
            "FLM does not fetch what a request only names, and no engine gets to: send it inline, as a data: URL or base64, \
             or have the operator set media.fetch_remote, which lets FLM fetch images.",
        )
        .param(param)
    }

    /// An image that could not be fetched.
    pub(super) fn not_fetched(param: impl Into<String>, reason: &str) -> Self {
        let param = param.into();
        Self::bad_request(format!("The image in '{param}' was not fetched: {reason}.")).param(param)
    }

    pub(super) fn method_not_allowed(method: &str, path: &str, allow: &'static str) -> Self {
        let mut refusal = Self::invalid(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{path} does not take {method}; it takes {allow}."),
        );
        refusal.0.allow = Some(allow);
        refusal
    }

    pub(super) fn model_not_found(model: &str, near: &[String]) -> Self {
        let hint = match near {
            [] => "GET /v1/models lists what there is.".to_owned(),
            near => {
                format!("Did you mean {}?", near.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "))
            }
        };
        Self::invalid(StatusCode::NOT_FOUND, "model_not_found", format!("The model '{model}' does not exist. {hint}"))
            .param("model")
    }

    pub(super) fn invalid_model(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, "invalid_model", message).param("model")
    }

    pub(super) fn unsupported_modalities(model: &str, what: &str) -> Self {
        Self::invalid(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unsupported_modalities",
            format!("The model '{model}' does not offer {what}."),
        )
        .param("model")
    }

    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn host_not_allowed(host: &str) -> Self {
        Self::invalid(
            StatusCode::MISDIRECTED_REQUEST,
            "host_not_allowed",
            format!("This server does not answer to the name '{host}'; the setting proxy.allowed_hosts adds names."),
        )
        .useless()
    }

    /// RFC 9110 §15.5.22: the request would do over the other protocol.
    pub(super) fn https_required(base: &str) -> Self {
        Self::invalid(
            StatusCode::UPGRADE_REQUIRED,
            "https_required",
            format!(
                "This port speaks plain HTTP only to show the way: send API requests to {base}, such as {base}/v1."
            ),
        )
        .useless()
    }

    pub(super) fn uri_too_long(limit: usize) -> Self {
        Self::invalid(StatusCode::URI_TOO_LONG, "uri_too_long", format!("The path is longer than {limit} bytes."))
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self::invalid(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            format!("The body is larger than the limit of {limit} bytes."),
        )
    }

    pub(super) fn body_timeout() -> Self {
        Self::invalid(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body did not come in time.")
    }

    pub(super) fn rate_limited(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "rate_limit_error", message).after(seconds)
    }

    pub(super) fn budget_exceeded(limit: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "budget_exceeded",
            "insufficient_quota",
            format!("This API key has used its {limit} tokens of today; the count starts again at midnight."),
        )
        .after(120)
        .useless()
    }

    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "server_error", message).after(1)
    }

    pub(super) fn engine_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_unavailable", "server_error", message)
            .after(5)
            .by(RefusedBy::Engine)
    }

    /// The engine is there, but gets no requests for now.
    pub(super) fn engine_resting(message: impl Into<String>, seconds: u32) -> Self {
        Self::engine_unavailable(message).after(seconds)
    }

    pub(super) fn engine_error(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "engine_error", "server_error", message).by(RefusedBy::Engine)
    }

    pub(super) fn engine_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "engine_timeout", "server_error", message).by(RefusedBy::Engine)
    }

    pub(super) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", "server_error", message).useless()
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "server_error", message)
    }

    /// The document, in the shape that the client's API gives to errors.
    pub(super) fn document(&self, shape: ErrorShape, id: &RequestId) -> Bytes {
        Bytes::from(shape.document(&self.told(id)))
    }

    /// The error as dialects write it.
    pub(super) fn told<'a>(&'a self, id: &'a RequestId) -> ToldError<'a> {
        ToldError {
            status: self.status.as_u16(),
            code: &self.code,
            kind: &self.kind,
            message: &self.message,
            param: self.param.as_deref(),
            request_id: id.as_str(),
        }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        let param = match &fault {
            BodyFault::Duplicate(field) | BodyFault::WrongType(field, _) => Some(field.clone()),
            BodyFault::Malformed(_) | BodyFault::NotAnObject | BodyFault::TooDeep | BodyFault::TooManyFields => None,
        };
        let mut refusal = Self::bad_request(sentence(&fault.to_string()));
        refusal.0.param = param;
        refusal
    }
}

impl From<PrepareError> for Refusal {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Body(fault) => fault.into(),
            PrepareError::NotOffered(message) => Self::not_implemented(sentence(&message)),
            PrepareError::Unsupported { param, message } => {
                Self::invalid(StatusCode::BAD_REQUEST, "unsupported_parameter", sentence(&message)).param(param)
            }
        }
    }
}

impl From<FormFault> for Refusal {
    fn from(fault: FormFault) -> Self {
        let message = sentence(&fault.to_string());
        match fault {
            FormFault::Unreadable(_) => Self::bad_request(message),
            FormFault::Duplicate(param) | FormFault::WrongType(param, _) => {
                Self::bad_request(message).param(cut(&param, 80))
            }
            FormFault::Missing(param, _) | FormFault::TooManyFiles(param, _) => Self::bad_request(message).param(param),
            FormFault::TooLarge(param, _) => {
                Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message).param(param)
            }
            FormFault::UnknownFormat(param, _) => Self::unsupported_media_type(message).param(param),
        }
    }
}

impl From<ImageFault> for Refusal {
    fn from(fault: ImageFault) -> Self {
        let message = sentence(&fault.to_string());
        let path = fault.path().to_owned();
        let refusal = match fault {
            ImageFault::WrongType { .. } | ImageFault::NotBase64 { .. } | ImageFault::TooMany { .. } => {
                Self::bad_request(message)
            }
            ImageFault::TooLarge { .. } => Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message),
            ImageFault::UnknownFormat { .. } => Self::unsupported_media_type(message),
        };
        refusal.param(path)
    }
}

impl From<TranslateFault> for Refusal {
    fn from(fault: TranslateFault) -> Self {
        PrepareError::from(fault).into()
    }
}

impl From<EngineFault> for Refusal {
    fn from(fault: EngineFault) -> Self {
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut refusal = Self::new(status, fault.code, fault.kind, fault.message).by(RefusedBy::Engine);
        refusal.0.param = fault.param;
        if let Some(seconds) = fault.retry_after {
            refusal = refusal.after(seconds);
        } else if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            refusal = refusal.after(2);
        }
        if status == StatusCode::NOT_IMPLEMENTED {
            refusal = refusal.useless();
        }
        refusal
    }
}

/// A message with a capital and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let mut out: String =
        characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default();
    if !out.ends_with(['.', '?', '!']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_null_and_the_code_is_a_string() {
        let id = RequestId::from_random(1);
        let document = Refusal::wrong_key().document(ErrorShape::OpenAi, &id);
        let value: serde_json::Value = serde_json::from_slice(&document).expect("json");
        assert_eq!(value["error"]["param"], serde_json::Value::Null);
        assert_eq!(value["error"]["code"], "invalid_api_key");
        assert_eq!(value["error"]["request_id"], id.as_str());
    }

    /// The table of SPEC §4.4: status, whether a retry is said to be useless, seconds of `retry-after`.
    #[test]
    fn every_code_has_its_status_and_says_what_a_retry_is_good_for() {
        let unsupported = PrepareError::Unsupported { param: "n".to_owned(), message: "x".to_owned() };
        for (refusal, status, code, retrying, retry_after) in [
            (Refusal::bad_request("x"), 400, "invalid_request", Retrying::AsUsual, None),
            (Refusal::invalid_model("x"), 400, "invalid_model", Retrying::AsUsual, None),
            (unsupported.into(), 400, "unsupported_parameter", Retrying::AsUsual, None),
            (Refusal::missing_key(), 401, "invalid_api_key", Retrying::AsUsual, None),
            (Refusal::wrong_key(), 401, "invalid_api_key", Retrying::AsUsual, None),
            (Refusal::ip_blocked(), 403, "ip_blocked", Retrying::Useless, None),
            (Refusal::ip_not_allowed(), 403, "ip_not_allowed", Retrying::Useless, None),
            (Refusal::model_not_allowed("x"), 403, "model_not_allowed", Retrying::AsUsual, None),
            (Refusal::permission_denied("x"), 403, "permission_denied", Retrying::AsUsual, None),
            (Refusal::not_found("GET", "/x"), 404, "not_found", Retrying::AsUsual, None),
            (Refusal::model_not_found("x", &[]), 404, "model_not_found", Retrying::AsUsual, None),
            (Refusal::route_disabled("x"), 404, "route_disabled", Retrying::AsUsual, None),
            (Refusal::method_not_allowed("GET", "/x", "POST"), 405, "method_not_allowed", Retrying::AsUsual, None),
            (Refusal::body_timeout(), 408, "request_timeout", Retrying::AsUsual, None),
            (Refusal::too_large(1), 413, "payload_too_large", Retrying::AsUsual, None),
            (Refusal::uri_too_long(1), 414, "uri_too_long", Retrying::AsUsual, None),
            (Refusal::unsupported_media_type("x"), 415, "unsupported_media_type", Retrying::AsUsual, None),
            (Refusal::host_not_allowed("x"), 421, "host_not_allowed", Retrying::Useless, None),
            (Refusal::unsupported_modalities("x", "y"), 422, "unsupported_modalities", Retrying::AsUsual, None),
            (Refusal::rate_limited("x", 7), 429, "rate_limited", Retrying::AsUsual, Some(7)),
            (Refusal::budget_exceeded(1), 429, "budget_exceeded", Retrying::Useless, Some(120)),
            (Refusal::internal("x"), 500, "internal_error", Retrying::AsUsual, None),
            (Refusal::not_implemented("x"), 501, "not_implemented", Retrying::Useless, None),
            (Refusal::engine_error("x"), 502, "engine_error", Retrying::AsUsual, None),
            (Refusal::overloaded("x"), 503, "overloaded", Retrying::AsUsual, Some(1)),
            (Refusal::engine_unavailable("x"), 503, "engine_unavailable", Retrying::AsUsual, Some(5)),
            (Refusal::engine_timeout("x"), 504, "engine_timeout", Retrying::AsUsual, None),
        ] {
            let told = (refusal.status.as_u16(), &*refusal.code, refusal.retrying, refusal.retry_after);
            assert_eq!(told, (status, code, retrying, retry_after));
        }
    }

    #[test]
    fn a_wait_never_exceeds_what_client_libraries_obey() {
        assert_eq!(Refusal::rate_limited("x", 86_400).retry_after, Some(120));
        assert_eq!(Refusal::budget_exceeded(1).retrying, Retrying::Useless);
    }
}
