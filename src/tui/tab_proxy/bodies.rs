//! Captured bodies of a request: looked at, copied with a curl command, and asked of another model (SPEC §9.3).
//!
//! What was captured is known by a list without bodies; a body is fetched when somebody wants it, and dropped after that.

use serde_json::Value;

use crate::tui::effect::Ticket;
use crate::tui::overlays::bodies::Bodies;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::picker::{Picker, Purpose};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::State;
use crate::tui::tab_models::chat::Replay;
use crate::tui::tab_proxy::{key_rows, list, requests, selected_key, selected_request};
use crate::types::calls::captures::{ClearCaptures, ShowCapture};
use crate::types::capture::{Capture, CaptureEntry, Kept};
use crate::types::failure::Outcome;
use crate::types::ids::RequestId;

/// What a captured exchange is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Somebody looks at it.
    Look,
    /// Its request is copied as curl.
    Curl,
    /// Another model is asked the same.
    Replay,
}

/// What was captured of a request, as far as the list goes back.
#[must_use]
pub fn entry(state: &State, id: RequestId) -> Option<&CaptureEntry> {
    state.world.captures.value.as_ref()?.captures.iter().find(|entry| entry.id == id)
}

/// Whether the request can be sent again as it was.
#[must_use]
pub fn can_be_sent(state: &State, id: RequestId) -> bool {
    entry(state, id).is_some_and(|entry| entry.request.kept == Kept::Whole && entry.request.bytes > 0)
}

/// Shows the bodies of the selected request, or says why there are none.
pub fn look(state: &mut State) {
    let rows = list::rows(state);
    let Some(id) = selected_request(state, &rows).map(|at| rows[at].id) else { return };
    if entry(state, id).is_some() {
        fetch(state, id, Wanted::Look);
    } else {
        let note = state.words.fill("bodies.none", &[("id", id.as_str())]);
        state.toast(Level::Info, note);
    }
}

/// Fetches a captured exchange.
pub fn fetch(state: &mut State, id: RequestId, wanted: Wanted) {
    let ticket = state.call(ShowCapture { id });
    state.proxy.wanted = Some((ticket, wanted));
}

/// Takes a captured exchange; one that nobody wants any more is dropped.
pub fn take(state: &mut State, ticket: Ticket, outcome: Outcome<Capture>) {
    let Some((_, wanted)) = state.proxy.wanted.take_if(|(known, _)| *known == ticket) else { return };
    let capture = match outcome {
        Ok(capture) => capture,
        Err(failure) => return state.complain(&failure),
    };
    match wanted {
        Wanted::Look => {
            let bodies = Bodies::new(state, capture);
            overlays::open(state, Overlay::Bodies(Box::new(bodies)));
        }
        Wanted::Curl => requests::copy_captured(state, &capture),
        Wanted::Replay => {
            let id = capture.entry.id;
            let question = question(&capture.request_text)
                .unwrap_or_else(|| state.words.fill("replay.captured", &[("id", id.as_str())]));
            state.models.chat.replay = Some(Replay { id, question });
            let before = capture.entry.model.into_iter().collect();
            overlays::open(state, Overlay::Picker(Picker::new(Purpose::Replay, before)));
        }
    }
}

/// What the person asked last, for the conversation of the chat tester; the whole request is what is sent.
fn question(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let text = |content: &Value| match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    };
    let said = ["messages", "input"].iter().find_map(|field| {
        let messages = body[*field].as_array()?;
        messages.iter().rev().find(|message| message["role"] == "user").map(|message| text(&message["content"]))
    });
    let said = said.or_else(|| body["prompt"].as_str().or(body["input"].as_str()).map(str::to_owned));
    said.filter(|text| !text.trim().is_empty())
}

/// Asks for how long the selected key is to be captured, or whether that is to end.
pub fn ask_how_long(state: &mut State) {
    let rows = key_rows(state);
    let Some(key) = selected_key(state, &rows).map(|at| rows[at]) else { return };
    if key.revoked.is_some() {
        state.toast(Level::Warn, state.words.say("keys.already_revoked").into_owned());
        return;
    }
    let form = forms::capture(key.id, key.captures_at(state.now).is_some());
    overlays::open(state, Overlay::Form(form));
}

/// Asks whether everything that was captured is to be deleted.
pub fn ask_to_clear(state: &mut State) {
    let count = state.world.captures.value.as_ref().map_or(0, |page| page.total);
    let body = state.words.fill("bodies.clear_body", &[("count", &count.to_string())]);
    let then = Then::call(ClearCaptures { key: None });
    overlays::open(state, Overlay::Confirm(Confirm::new("bodies.clear_title", body, "button.delete", then)));
}

#[cfg(test)]
mod tests {
    use super::question;

    #[test]
    fn the_last_question_is_found_in_every_dialect() {
        for (body, said) in [
            (r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#, Some("a")),
            (r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image"}]}]}"#, Some("a")),
            (r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]}]}"#, Some("a")),
            (r#"{"input":"a"}"#, Some("a")),
            (r#"{"prompt":"a"}"#, Some("a")),
            (r#"{"messages":[{"role":"system","content":"a"}]}"#, None),
            (r#"{"prompt":["a"]}"#, None),
            ("{\"prompt\":", None),
        ] {
            assert_eq!(question(body).as_deref(), said, "{body}");
        }
    }
}
