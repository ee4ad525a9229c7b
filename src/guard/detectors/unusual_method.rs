//! A method that no client of this API uses (SPEC §5.4). Ollama's clients delete with `DELETE`, browsers ask with `OPTIONS`.

use http::Method;

use super::{Sight, quoted};

pub(super) fn look(sight: &Sight<'_>) -> Option<String> {
    let method = sight.head.method;
    let usual = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE].contains(method);
    (!usual).then(|| format!("method {}", quoted(method.as_str())))
}
