//! What pass-through may reach of each engine's own API: a default-deny table of method and path, declared by each adapter
//! (SPEC §4.1).
//!
//! Read by `proxy`. Must never match a path that is not written here: an engine's newer routes are closed until somebody
//! has looked at them. Left out on purpose is whatever shows other clients' prompts (llama.cpp's `/slots`), this machine's
//! folders (its `/props` and `/models`), reads or writes files (`/slots/{id}?action=save`, Ollama's blobs) or runs code
//! (vLLM's `/collective_rpc`).

use http::Method;

/// One route of an engine's own API.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnRoute {
    /// Method.
    pub method: Method,
    /// Path; a segment `{}` stands for one segment of letters, digits and `-_.:`.
    pub path: &'static str,
    /// What it does.
    pub effect: Effect,
    /// Top-level fields of the body that name a model; empty when none does.
    pub names_model: &'static [&'static str],
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tells something.
    Reads,
    /// Lets a model work: counts against budgets.
    Infers,
    /// Creates, deletes, pulls, pushes, copies, loads or unloads models: needs the right `manage`.
    Manages,
}

/// What a table says about a request.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    /// It may pass.
    Route(&'static OwnRoute),
    /// Only with another method.
    OtherMethod(&'static Method),
    /// It is not in the table.
    Nothing,
}

const MODEL: &[&str] = &["model"];

/// A route that tells something.
pub(super) const fn reads(path: &'static str) -> OwnRoute {
    OwnRoute { method: Method::GET, path, effect: Effect::Reads, names_model: &[] }
}

/// A route that lets the model in `model` work.
pub(super) const fn infers(path: &'static str) -> OwnRoute {
    OwnRoute { method: Method::POST, path, effect: Effect::Infers, names_model: MODEL }
}

/// A route that changes which models there are.
pub(super) const fn manages(method: Method, path: &'static str, names_model: &'static [&'static str]) -> OwnRoute {
    OwnRoute { method, path, effect: Effect::Manages, names_model }
}

/// Looks a request up.
#[must_use]
pub fn find(routes: &'static [OwnRoute], method: &Method, path: &str) -> Found {
    let mut other = Found::Nothing;
    // A HEAD is a GET whose body nobody wants.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    for route in routes.iter().filter(|route| fits(route.path, path)) {
        if route.method == *method {
            return Found::Route(route);
        }
        other = Found::OtherMethod(&route.method);
    }
    other
}

fn fits(shape: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (shape.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("{}"), Some(segment)) if is_plain(segment) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn is_plain(segment: &str) -> bool {
    segment.bytes().any(|b| b.is_ascii_alphanumeric())
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    static ROUTES: &[OwnRoute] = &[
        reads("/health"),
        infers("/v1/chat/completions"),
        reads("/jobs/{}"),
        manages(Method::DELETE, "/api/delete", &["model"]),
    ];

    fn told(method: &Method, path: &str) -> String {
        match find(ROUTES, method, path) {
            Found::Route(route) => route.path.to_owned(),
            Found::OtherMethod(method) => format!("use {method}"),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn only_what_is_written_down_passes() {
        for (method, path, answer) in [
            (Method::GET, "/health", "/health"),
            (Method::HEAD, "/health", "/health"),
            (Method::POST, "/health", "use GET"),
            (Method::POST, "/v1/chat/completions", "/v1/chat/completions"),
            (Method::GET, "/jobs/a-1", "/jobs/{}"),
            (Method::GET, "/jobs/a%2fb", "nothing"),
            (Method::GET, "/jobs/..", "nothing"),
            (Method::GET, "/jobs/", "nothing"),
            (Method::GET, "/jobs/a/b", "nothing"),
            (Method::GET, "/health/", "nothing"),
            (Method::GET, "/Health", "nothing"),
            (Method::GET, "health", "nothing"),
            (Method::GET, "/v1", "nothing"),
            (Method::GET, "", "nothing"),
            (Method::DELETE, "/api/delete", "/api/delete"),
        ] {
            assert_eq!(told(&method, path), answer, "{method} {path}");
        }
    }
}
