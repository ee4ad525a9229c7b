//! Models side by side: chosen, asked at once, measured, saved, opened, exported, left.

use std::path::PathBuf;
use std::time::Duration;

use flm::tui::action::Action;
use flm::tui::effect::{Effect, Progressed, Reply, Request, Ticket, Told};
use flm::tui::state::State;
use flm::tui::tab_models::compare::{LanesState, Stage};
use flm::tui::update::update;
use flm::types::calls::comparisons::{CompareModels, Keeping, ListComparisons, SaveComparison, ShowComparison};
use flm::types::chat::Sampling;
use flm::types::comparison::{CompareProgress, CompareTold, ComparedModel, ComparedRun, Comparison, ComparisonEntry};
use flm::types::engine::{Capability, ModelView};
use flm::types::failure::{ErrorCode, Failure};

use crate::chat::whole;
use crate::fixture::{NOW, answer, busy, calls, draw, press, screen_text, type_text};
use crate::screens::{LANGUAGES, SIZES, check};

const PROMPT: &str = "Why is the sky blue?";

/// A console with two models marked and a prompt typed.
fn ready(language: &str, size: (u16, u16)) -> State {
    let mut state = busy(language, size);
    state.export_folder = PathBuf::from("/home/me");
    press(&mut state, "2 space j j j space m");
    type_text(&mut state, PROMPT);
    state
}

#[test]
fn models_that_cannot_chat_are_neither_offered_nor_marked() {
    let mut state = busy("en", (100, 30));
    // Engines of OpenAI's kind do not tell what a model can do: its name does.
    let like = state.world.models[0].clone();
    for name in ["demo-embed", "bge-m3", "text-embedding-3-small", "jina-reranker-v2", "whisper-1"] {
        let capabilities = std::collections::BTreeSet::new();
        state.world.models.push(ModelView { listed_as: name.into(), capabilities, ..like.clone() });
    }
    // Or they tell of each what the engine may do.
    let everything = [Capability::Chat, Capability::Embeddings, Capability::Rerank].into();
    state.world.models.push(ModelView { listed_as: "nomic-embed".into(), capabilities: everything, ..like.clone() });
    let capabilities = std::collections::BTreeSet::new();
    state.world.models.push(ModelView { listed_as: "gpt-oss-20b".into(), capabilities, ..like.clone() });
    let offered = flm::tui::tab_models::chatting(&state);
    assert!(offered.contains(&"gpt-oss-20b".to_owned()), "{offered:?}");
    assert!(
        !offered.iter().any(|name| name.contains("embed") || name.contains("rerank") || name == "bge-m3"),
        "{offered:?}"
    );
    press(&mut state, "2 /");
    type_text(&mut state, "demo-embed");
    press(&mut state, "enter space");
    assert!(state.models.compare.models.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("demo-embed does not chat"));
}

fn run(state: &mut State) -> (Ticket, CompareModels) {
    let asked = calls(press(state, "enter")).pop();
    let Some((ticket, Request::CompareModels(call))) = asked else { panic!("{asked:?}") };
    (ticket, call)
}

fn tell(state: &mut State, ticket: Ticket, model: usize, run: u32, told: CompareTold) {
    let told = Told::Compare(CompareProgress { model, run, told });
    update(state, Action::Progressed(Box::new(Progressed { ticket, told })));
    draw(state);
}

fn stream(state: &mut State, ticket: Ticket) {
    for model in 0..2 {
        tell(state, ticket, model, 1, CompareTold::Begun);
    }
    state.now = state.now.plus(Duration::from_millis(90));
    tell(state, ticket, 1, 1, CompareTold::Text("Short waves scatter ".to_owned()));
    state.now = state.now.plus(Duration::from_millis(60));
    tell(state, ticket, 0, 1, CompareTold::Reasoning("Rayleigh…".to_owned()));
    tell(state, ticket, 0, 1, CompareTold::Text("光の散乱です。".to_owned()));
}

fn comparison(models: &[&str], runs: u32) -> Comparison {
    let answers = |number: u32| {
        (0..runs).map(move |run| {
            let total = 1000.0 * f64::from(number + 1) + 250.0 * f64::from(run);
            ComparedRun::Answer(Box::new(whole("m", "Blue light is scattered more than red.", 80.0, total, 41)))
        })
    };
    let mut compared: Vec<_> = (0..)
        .zip(models)
        .map(|(number, model)| ComparedModel::new((*model).to_owned(), answers(number).collect()))
        .collect();
    if models.len() > 2 {
        let failed = ComparedRun::Failed(Failure::new(ErrorCode::EngineApiError, "the endpoint answered 503: busy"));
        compared[2] = ComparedModel::new(models[2].to_owned(), vec![failed; usize::try_from(runs).expect("few")]);
    }
    let sampling = Sampling { temperature: Some(0.2), ..Sampling::default() };
    Comparison { id: None, created: NOW, prompt: PROMPT.to_owned(), sampling, runs, models: compared }
}

#[test]
fn marked_models_are_asked_at_once_and_each_word_shows_in_its_column() {
    let mut state = ready("en", (120, 40));
    let (ticket, call) = run(&mut state);
    assert_eq!(call.models, ["llama3.1:8b", "qwen3:14b"]);
    assert_eq!((call.prompt.as_str(), call.runs, call.keeping), (PROMPT, 1, Keeping::Told));
    stream(&mut state, ticket);
    let text = screen_text(&draw(&mut state));
    for wanted in ["Short waves scatter", "光の散乱です。", "90 ms", "150 ms", "run 1 of 1"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    let ended = ComparedRun::Answer(Box::new(whole("qwen3:14b", "Short waves scatter more.", 88.0, 1088.0, 41)));
    tell(&mut state, ticket, 1, 1, CompareTold::Ended(ended));
    assert!(screen_text(&draw(&mut state)).contains("40.0"), "its speed shows while the other goes on");
    answer(&mut state, ticket, Reply::CompareModels(call, Ok(comparison(&["llama3.1:8b", "qwen3:14b"], 3))));
    assert!(screen_text(&draw(&mut state)).contains("median of 3 runs"));
    assert!(state.next_change().is_none(), "nothing moves any more");
}

#[test]
fn esc_leaves_the_comparison_and_keeps_what_came() {
    let mut state = ready("en", (80, 24));
    let (ticket, _) = run(&mut state);
    stream(&mut state, ticket);
    let effects = press(&mut state, "esc");
    assert!(matches!(effects.as_slice(), [Effect::Leave(left)] if *left == ticket), "{effects:?}");
    tell(&mut state, ticket, 0, 1, CompareTold::Text("late".to_owned()));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("Short waves") && !text.contains("late") && text.contains("stopped"), "{text}");
    assert_eq!(state.models.compare.input.text(), PROMPT, "the prompt stays");
}

#[test]
fn one_model_is_too_few_and_a_fifth_is_too_many() {
    let mut state = busy("en", (80, 24));
    press(&mut state, "2 space m");
    type_text(&mut state, PROMPT);
    assert!(calls(press(&mut state, "enter")).is_empty());
    assert!(screen_text(&draw(&mut state)).contains("Choose 2 to 4 models"));
    press(&mut state, "f3");
    for name in ["b", "c", "d", "e"] {
        type_text(&mut state, &format!("zz-{name}"));
        press(&mut state, "enter");
    }
    assert_eq!(state.models.compare.models, ["llama3.1:8b", "zz-b", "zz-c", "zz-d"]);
    press(&mut state, "enter");
    assert!(state.overlays.is_empty(), "Enter without a search is done");
}

#[test]
fn runs_and_parameters_are_checked_and_used() {
    let mut state = ready("en", (80, 24));
    press(&mut state, "f4 ctrl-u");
    type_text(&mut state, "0");
    press(&mut state, "enter");
    assert!(screen_text(&draw(&mut state)).contains("a whole number from 1 to 100"));
    press(&mut state, "ctrl-u");
    type_text(&mut state, "5");
    press(&mut state, "tab tab tab");
    type_text(&mut state, "42");
    press(&mut state, "enter");
    let (_, call) = run(&mut state);
    assert_eq!((call.runs, call.sampling.seed), (5, Some(42)));
}

#[test]
fn a_whole_comparison_is_saved_once_and_shows_its_number() {
    let mut state = ready("en", (80, 24));
    let (ticket, call) = run(&mut state);
    let whole = comparison(&["llama3.1:8b", "qwen3:14b"], 1);
    answer(&mut state, ticket, Reply::CompareModels(call, Ok(whole.clone())));
    let asked = calls(press(&mut state, "ctrl-s"));
    let [(ticket, Request::SaveComparison(call))] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(calls(press(&mut state, "ctrl-s")).is_empty(), "one saving at a time");
    let saved = Comparison { id: Some(7), ..whole };
    let reply = Reply::SaveComparison(SaveComparison { comparison: call.comparison.clone() }, Ok(saved));
    answer(&mut state, *ticket, reply);
    assert!(screen_text(&draw(&mut state)).contains("comparison 7"));
    assert!(calls(press(&mut state, "ctrl-s")).is_empty(), "it is saved already");
}

pub(crate) fn entries() -> Vec<ComparisonEntry> {
    let entry = |id, models: &[&str], prompt: &str, runs| ComparisonEntry {
        id,
        created: NOW.minus(Duration::from_secs(3600 * u64::try_from(10 - id).expect("small"))),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        prompt: prompt.to_owned(),
        runs,
    };
    vec![
        entry(7, &["llama3.1:8b", "qwen3:14b"], PROMPT, 3),
        entry(4, &["llama3.1:8b", "日本語モデル-7b.gguf", "qwen3:14b"], "俳句を一つ", 1),
    ]
}

#[test]
fn saved_comparisons_are_listed_opened_and_deleted_after_a_yes() {
    let mut state = busy("en", (120, 40));
    press(&mut state, "f7");
    let asked = calls(press(&mut state, "f8"));
    let [(ticket, Request::ListComparisons(_))] = asked.as_slice() else { panic!("{asked:?}") };
    answer(&mut state, *ticket, Reply::ListComparisons(ListComparisons {}, Ok(entries())));
    assert!(calls(press(&mut state, "x enter")).is_empty(), "the focus is on Cancel");
    let asked = calls(press(&mut state, "j x y"));
    assert!(matches!(asked.as_slice(), [(_, Request::DeleteComparison(call))] if call.id == 4), "{asked:?}");
    let asked = calls(press(&mut state, "k enter"));
    let [(ticket, Request::ShowComparison(ShowComparison { id: 7 }))] = asked.as_slice() else { panic!("{asked:?}") };
    let opened = Comparison { id: Some(7), ..comparison(&["llama3.1:8b", "qwen3:14b"], 3) };
    answer(&mut state, *ticket, Reply::ShowComparison(ShowComparison { id: 7 }, Ok(opened)));
    let text = screen_text(&draw(&mut state));
    assert!(text.contains("median of 3 runs") && text.contains("comparison 7"), "{text}");
    assert_eq!(
        (state.models.compare.input.text().as_str(), state.models.compare.runs),
        (PROMPT, 3),
        "ready to be asked"
    );
}

#[test]
fn an_export_names_its_file_follows_the_kind_and_says_why_it_failed() {
    let mut state = ready("en", (120, 40));
    assert!(press(&mut state, "f9").is_empty(), "there is nothing to export yet");
    let (ticket, call) = run(&mut state);
    answer(&mut state, ticket, Reply::CompareModels(call, Ok(comparison(&["llama3.1:8b", "qwen3:14b"], 1))));
    let effects = press(&mut state, "f9 enter");
    let [Effect::Write { ticket, path, content }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(path, &PathBuf::from("/home/me/flm-comparison-20261123-140320.md"));
    assert!(content.starts_with("# Models compared"), "{content}");
    let failure = Failure::new(ErrorCode::InvalidArgument, "it exists already").hint("choose another name");
    update(&mut state, Action::Written { ticket: *ticket, path: path.clone(), outcome: Err(failure) });
    assert!(screen_text(&draw(&mut state)).contains("it exists already"), "the form stays and says why");
    let effects = press(&mut state, "right enter");
    let [Effect::Write { ticket, path, content }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(path.extension().and_then(|end| end.to_str()), Some("json"));
    let read: Comparison = serde_json::from_str(content).expect("reads");
    assert_eq!(read.prompt, PROMPT);
    update(&mut state, Action::Written { ticket: *ticket, path: path.clone(), outcome: Ok(()) });
    assert!(state.overlays.is_empty());
    assert!(screen_text(&draw(&mut state)).contains("Written to /home/me/flm-comparison-20261123-140320.json"));
}

#[test]
fn a_lost_owner_ends_it_and_a_failure_as_a_whole_is_told() {
    let mut state = ready("en", (80, 24));
    let (ticket, _) = run(&mut state);
    stream(&mut state, ticket);
    let failure = Failure::new(ErrorCode::IoError, "gone");
    update(&mut state, Action::Lost { failure, attempt: 1, retry_at: NOW });
    let Stage::Lanes(lanes) = &state.models.compare.stage else { panic!("lanes") };
    assert!(matches!(lanes.state, LanesState::Failed(_)));
    assert!(screen_text(&draw(&mut state)).contains("connection to the proxy was lost"));
}

/// Four models compared, one of which failed.
pub(crate) fn full(language: &str, size: (u16, u16)) -> State {
    let four = ["llama3.1:8b", "qwen3:14b", "mistralai/Mistral-Small-3.2-24B", "日本語モデル-7b.gguf"];
    let mut state = ready(language, size);
    let (ticket, call) = run(&mut state);
    answer(&mut state, ticket, Reply::CompareModels(call, Ok(comparison(&four, 3))));
    state
}

#[test]
fn the_screens_of_the_comparison() {
    for language in LANGUAGES {
        for size in SIZES {
            let name = |what: &str| format!("{what}_{language}_{}x{}", size.0, size.1);
            let mut state = busy(language, size);
            press(&mut state, "f7");
            check(&name("compare_empty"), &mut state);
            let mut state = ready(language, size);
            let (ticket, _) = run(&mut state);
            stream(&mut state, ticket);
            check(&name("compare_streaming"), &mut state);
            let mut state = full(language, size);
            check(&name("compare_full"), &mut state);
            press(&mut state, "f3");
            check(&name("pick_models"), &mut state);
            press(&mut state, "esc f9");
            check(&name("form_export"), &mut state);
            press(&mut state, "esc");
            for (ticket, request) in calls(press(&mut state, "f8")) {
                let Request::ListComparisons(call) = request else { continue };
                answer(&mut state, ticket, Reply::ListComparisons(call, Ok(entries())));
            }
            check(&name("comparisons_saved"), &mut state);
            press(&mut state, "x");
            check(&name("confirm_comparison"), &mut state);
        }
    }
}
