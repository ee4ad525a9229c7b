//! The chat tester: a conversation through the own proxy, as a client would have it (SPEC §9.2).
//!
//! Questions go the whole way through the listener with a key that lives as long as the call. The conversation stays
//! whatever tab is in front; nothing of it is stored.

use std::time::Duration;

use crate::tui::action::Command;
use crate::tui::effect::{Request, Ticket};
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::picker::{Picker, Purpose};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, asking_forms};
use crate::tui::state::{Dirty, State};
use crate::tui::tab_models::{View, chat_view, chatting};
use crate::tui::tabs::Tab;
use crate::tui::update::show_tab;
use crate::tui::widgets::text_area::TextBox;
use crate::types::calls::captures::ReplayCapture;
use crate::types::calls::chat::{Chat, ChatProgress};
use crate::types::chat::{ChatAnswer, ChatDelivery, ChatRoute, Said, Sampling, Speaker};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::RequestId;

/// Turns that are kept; older ones are forgotten, here and for the model.
pub const MOST_TURNS: usize = 100;
/// Longest question in bytes: far below what a request's body may have (SPEC §4.4).
const LONGEST: usize = 1024 * 1024;

/// How questions are asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatSettings {
    /// What the model is told before everything else; may be empty.
    pub system: String,
    /// How it picks its words.
    pub sampling: Sampling,
    /// Which route carries it.
    pub route: ChatRoute,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEnd {
    /// The answer is on its way.
    Asking,
    /// It came whole.
    Whole(Box<ChatAnswer>),
    /// The person left it.
    Stopped,
    /// It failed.
    Failed(Failure),
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who was asked; outside text.
    pub model: String,
    /// What was asked.
    pub question: String,
    /// When.
    pub asked: UnixMillis,
    /// The HTTP status, once the endpoint answered.
    pub status: Option<u16>,
    /// The id under which the Proxy tab and the logs know the request.
    pub request_id: Option<String>,
    /// What the model thought; outside text.
    pub reasoning: String,
    /// What it said; outside text.
    pub text: String,
    /// From the question to the first word, as it was seen here.
    pub first: Option<Duration>,
    /// How it ended.
    pub end: TurnEnd,
}

/// A captured request that another model is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Which one.
    pub id: RequestId,
    /// What it asked last, for people; outside text.
    pub question: String,
}

/// What the chat tester remembers.
#[derive(Debug, Default)]
pub struct ChatTester {
    /// Who is asked; the first that can chat when nobody was chosen.
    pub model: Option<String>,
    /// How.
    pub settings: ChatSettings,
    /// What is being typed.
    pub input: TextBox,
    /// What was said, oldest first.
    pub turns: Vec<Turn>,
    /// The answer on its way.
    pub asking: Option<Ticket>,
    /// First line in view; `None` follows the newest.
    pub top: Option<usize>,
    /// What is asked as soon as a model is chosen.
    pub replay: Option<Replay>,
}

impl ChatTester {
    /// The last turn, while its answer is on its way under this ticket.
    fn asked(&mut self, ticket: Ticket) -> Option<&mut Turn> {
        if self.asking == Some(ticket) { self.turns.last_mut() } else { None }
    }

    /// What was said so far, as the next question carries it. Turns without an answer are left out.
    fn earlier(&self) -> Vec<Said> {
        let mut said = Vec::with_capacity(2 * self.turns.len() + 1);
        let system = self.settings.system.trim();
        if !system.is_empty() {
            said.push(Said { by: Speaker::System, text: system.to_owned() });
        }
        for turn in self.turns.iter().filter(|turn| !turn.text.is_empty()) {
            said.push(Said { by: Speaker::User, text: turn.question.clone() });
            said.push(Said { by: Speaker::Assistant, text: turn.text.clone() });
        }
        said
    }
}

/// Shows the chat tester.
pub fn open(state: &mut State) {
    state.models.view = View::Chat;
    if state.models.chat.model.is_none() {
        state.models.chat.model = chatting(state).into_iter().next();
    }
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::SendChat => send(state),
        Command::BreakChatLine => state.models.chat.input.break_line(),
        Command::LeaveChat if state.models.chat.asking.is_some() => stop(state),
        Command::LeaveChat => state.models.view = View::List,
        Command::ChatModel => {
            let chosen = state.models.chat.model.clone().into_iter().collect();
            overlays::open(state, Overlay::Picker(Picker::new(Purpose::ChatModel, chosen)));
        }
        Command::ChatSettings => {
            let form = asking_forms::chat_settings(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::NewChat if state.models.chat.turns.is_empty() => {}
        Command::NewChat => {
            let body = state.words.say("ask.new_body").into_owned();
            overlays::open(state, Overlay::Confirm(Confirm::new("ask.new_title", body, "button.begin", Then::NewChat)));
        }
        Command::CopyChatAnswer => {
            let text = state.models.chat.turns.iter().rev().map(|turn| &turn.text).find(|text| !text.is_empty());
            match text.cloned() {
                Some(text) => {
                    let what = state.words.say("ask.the_answer");
                    state.copy(text, &what);
                }
                None => state.toast(Level::Info, state.words.say("ask.nothing_to_copy").into_owned()),
            }
        }
        Command::ChatUp | Command::ChatDown => {
            let step = chat_view::page(state).saturating_sub(1).max(1);
            let towards = if command == Command::ChatUp { Towards::Oldest } else { Towards::Newest };
            scroll(state, towards, step);
        }
        _ => {}
    }
}

/// Which way a text is scrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// What was said first.
    Oldest,
    /// What was said last.
    Newest,
}

/// Scrolls the conversation by some lines.
pub fn scroll(state: &mut State, towards: Towards, step: usize) {
    let (lines, page) = (chat_view::lines(state).len(), chat_view::page(state));
    state.models.chat.top = scrolled(state.models.chat.top, towards, step, lines, page);
}

/// Where scrolling leads; `None` is the end, where the newest is followed.
#[must_use]
pub(super) fn scrolled(top: Option<usize>, towards: Towards, step: usize, lines: usize, page: usize) -> Option<usize> {
    let last = lines.saturating_sub(page);
    let at = top.unwrap_or(last).min(last);
    let to = if towards == Towards::Oldest { at.saturating_sub(step) } else { at + step };
    (to < last).then_some(to)
}

/// Forgets the conversation.
pub fn begin_anew(state: &mut State) {
    stop(state);
    state.models.chat.turns.clear();
    state.models.chat.top = None;
}

fn send(state: &mut State) {
    let chat = &state.models.chat;
    if chat.asking.is_some() || chat.input.is_blank() {
        return;
    }
    let Some(model) = chat.model.clone() else {
        state.toast(Level::Warn, state.words.say("ask.no_model").into_owned());
        return;
    };
    if state.world.base_url().is_none() {
        state.toast(Level::Warn, state.words.say("ask.no_proxy").into_owned());
        return;
    }
    let question = chat.input.text().trim().to_owned();
    if question.len() > LONGEST {
        state.toast(Level::Warn, state.words.say("ask.too_long").into_owned());
        return;
    }
    ask(state, model, question);
}

/// Asks; what was typed is taken away only when the question is on its way.
fn ask(state: &mut State, model: String, question: String) {
    let chat = &state.models.chat;
    let call = Chat {
        model: model.clone(),
        prompt: question.clone(),
        earlier: chat.earlier(),
        route: chat.settings.route,
        delivery: ChatDelivery::Streamed,
        sampling: chat.settings.sampling,
        ..Chat::default()
    };
    if begin(state, call, model, question) {
        state.models.chat.input = TextBox::default();
    }
}

/// Asks a model what a captured request asked, exactly as it stood there.
pub fn replay(state: &mut State, model: String) {
    let Some(Replay { id, question }) = state.models.chat.replay.take() else { return };
    if state.models.chat.asking.is_some() {
        state.toast(Level::Warn, state.words.say("ask.wait_hint").into_owned());
        return;
    }
    state.models.chat.model = Some(model.clone());
    show_tab(state, Tab::Models);
    open(state);
    begin(state, ReplayCapture { id, model: model.clone() }, model, question);
}

/// Begins a turn; answers whether the question is on its way.
fn begin(state: &mut State, request: impl Into<Request>, model: String, question: String) -> bool {
    let ticket = state.call(request);
    if !state.pending.contains_key(&ticket) {
        return false;
    }
    let asked = state.now;
    let chat = &mut state.models.chat;
    chat.asking = Some(ticket);
    chat.top = None;
    chat.turns.push(Turn {
        model,
        question,
        asked,
        status: None,
        request_id: None,
        reasoning: String::new(),
        text: String::new(),
        first: None,
        end: TurnEnd::Asking,
    });
    let surplus = chat.turns.len().saturating_sub(MOST_TURNS);
    chat.turns.drain(..surplus);
    true
}

/// Takes what came of an answer.
pub fn told(state: &mut State, ticket: Ticket, progress: ChatProgress) {
    let now = state.now;
    let Some(turn) = state.models.chat.asked(ticket) else { return };
    match progress {
        ChatProgress::Begun { status, request_id } => {
            turn.status = Some(status);
            turn.request_id = request_id;
        }
        ChatProgress::Text(text) => {
            turn.first.get_or_insert_with(|| now.since(turn.asked));
            turn.text.push_str(&text);
        }
        ChatProgress::Reasoning(text) => {
            turn.first.get_or_insert_with(|| now.since(turn.asked));
            turn.reasoning.push_str(&text);
        }
    }
    if state.tab == Tab::Models && state.models.view == View::Chat {
        state.soil(Dirty::Data);
    }
}

/// Takes a whole answer, or why there is none; a question that failed is given back to be asked again.
pub fn answered(state: &mut State, ticket: Ticket, outcome: Outcome<ChatAnswer>) {
    let Some(turn) = state.models.chat.asked(ticket) else { return };
    let mut again = None;
    match outcome {
        Ok(answer) => {
            turn.status = Some(answer.status);
            turn.request_id.clone_from(&answer.request_id);
            turn.text.clone_from(&answer.text);
            turn.reasoning.clone_from(&answer.reasoning);
            turn.end = TurnEnd::Whole(Box::new(answer));
        }
        Err(failure) => {
            if turn.request_id.is_none() {
                turn.request_id.clone_from(&failure.request_id);
            }
            if turn.text.is_empty() {
                again = Some(turn.question.clone());
            }
            turn.end = TurnEnd::Failed(failure);
        }
    }
    let chat = &mut state.models.chat;
    chat.asking = None;
    if let Some(question) = again.filter(|_| chat.input.is_blank()) {
        chat.input = TextBox::with(&question);
    }
}

/// Leaves the answer on its way; what came of it stays.
fn stop(state: &mut State) {
    let Some(ticket) = state.models.chat.asking.take() else { return };
    if let Some(turn) = state.models.chat.turns.last_mut() {
        turn.end = TurnEnd::Stopped;
    }
    state.leave(ticket);
}

/// The owner is gone, and the answer with it.
pub(super) fn forget(state: &mut State) {
    if let Some(ticket) = state.models.chat.asking {
        let why = state.words.say("ask.owner_gone").into_owned();
        answered(state, ticket, Err(Failure::new(ErrorCode::IoError, why)));
    }
}
