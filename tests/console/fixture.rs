//! A home as a console sees it, always the same, and a console to show it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use flm::config::settings::Settings;
use flm::tui::action::{Action, Command};
use flm::tui::effect::{Answer, Effect, Reply, Request, Ticket};
use flm::tui::keymap::Chord;
use flm::tui::state::State;
use flm::tui::text::{self, Words};
use flm::tui::theme::{Depth, ThemeShelf};
use flm::tui::update::update;
use flm::tui::{OwnerOrigin, event, view};
use flm::types::address::{BlockEntry, BlockSource, ListedNetwork, parse_network};
use flm::types::alert::Inbox;
use flm::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use flm::types::calls::addresses::{BlockPage, NetworkList};
use flm::types::calls::engines::EngineKindInfo;
use flm::types::calls::replay::{SecurityCounts, SecurityStats};
use flm::types::calls::requests::{NumberedRequest, RequestPage};
use flm::types::calls::settings::{SettingSource, SettingView};
use flm::types::clock::UnixMillis;
use flm::types::engine::{
    Capability, DetectedEngine, DetectionReport, EngineKind, EngineOrigin, EngineRecord, EngineState, EngineView,
    HealthPoint, ModelView,
};
use flm::types::gpu::GpuView;
use flm::types::ids::{CanonicalModel, EngineId, KeyId, RequestId};
use flm::types::key::{CreatedKey, KeyLimits, KeyView};
use flm::types::listener::{ListenerConfig, ListenerPhase, ListenerStatus, OwnerKind, ProxyStatus};
use flm::types::live::{LiveEvent, LiveLine, LiveSnapshot, NumberedEvent, Traffic};
use flm::types::order::Place;
use flm::types::profile::{Parameter, ProfileView};
use flm::types::prompt::PromptView;
use flm::types::request::{Progress, RequestEnd, RequestRow, StageTimes, TokenSource, TokenUsage};
use flm::types::secret::Secret;
use flm::types::usage::{UsageBy, UsageReport, UsageRow, UsageSums};
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// 2026-11-23 14:03:20 UTC.
pub(crate) const NOW: UnixMillis = UnixMillis(1_795_442_600_000);

/// A console in a terminal of this size that has drawn its first frame.
pub(crate) fn console(language: &str, size: (u16, u16)) -> State {
    let theme = ThemeShelf::default().load("dark", Depth::True).expect("loads");
    let mut state = State::new(Words::new(language, TimeZone::UTC), theme, size, NOW);
    draw(&mut state);
    state
}

/// A console that is attached to a busy home, with every page read.
pub(crate) fn busy(language: &str, size: (u16, u16)) -> State {
    let mut state = console(language, size);
    attach(&mut state, snapshot());
    answer_all(&mut state, full_page);
    end_lists(&mut state);
    answer(&mut state, Ticket(0), Reply::SecurityStats(SecurityStats::default(), Ok(security_counts())));
    state.toasts.clear();
    state
}

/// A console that is attached to a home where nothing is.
pub(crate) fn empty(language: &str, size: (u16, u16)) -> State {
    let mut state = console(language, size);
    attach(&mut state, nothing());
    answer_all(&mut state, empty_page);
    end_lists(&mut state);
    answer(&mut state, Ticket(0), Reply::SecurityStats(SecurityStats::default(), Ok(SecurityCounts::default())));
    state.toasts.clear();
    state
}

/// A home where nothing is.
pub(crate) fn nothing() -> LiveSnapshot {
    LiveSnapshot {
        engines: Vec::new(),
        load: Vec::new(),
        gpus: Vec::new(),
        models: Vec::new(),
        traffic: Traffic::default(),
        requests: Vec::new(),
        audit: Vec::new(),
        ..snapshot()
    }
}

/// Attaches to a daemon that ran before.
pub(crate) fn attach(state: &mut State, snapshot: LiveSnapshot) -> Vec<Effect> {
    update(state, Action::Attached(OwnerOrigin::AlreadyRan));
    update(state, Action::Live(Box::new(LiveLine::Snapshot { snapshot: Box::new(snapshot), dropped: 0 })))
}

/// Says that something happened.
pub(crate) fn happen(state: &mut State, event: LiveEvent) -> Vec<Effect> {
    let sequence = state.world.sequence + 1;
    update(state, Action::Live(Box::new(LiveLine::Event(NumberedEvent { sequence, event: Arc::new(event) }))))
}

/// Answers a call.
pub(crate) fn answer(state: &mut State, ticket: Ticket, reply: Reply) -> Vec<Effect> {
    update(state, Action::Answered(Box::new(Answer { ticket, reply })))
}

/// Presses keys, written as in a key map with spaces between them, and answers the effects.
pub(crate) fn press(state: &mut State, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys.split(' ') {
        effects.extend(press_key(state, key_event(key)));
    }
    effects
}

/// Types text, letter by letter.
pub(crate) fn type_text(state: &mut State, text: &str) {
    for letter in text.chars() {
        press_key(state, KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE));
    }
}

pub(crate) fn press_key(state: &mut State, key: KeyEvent) -> Vec<Effect> {
    let Some(action) = event::translate(state, Event::Key(key)) else { return Vec::new() };
    let effects = update(state, action);
    draw(state);
    effects
}

fn key_event(written: &str) -> KeyEvent {
    assert!(Chord::parse(written).is_some(), "{written} is a key");
    let (modifiers, name) = match written.split_once('-') {
        Some(("ctrl", name)) => (KeyModifiers::CONTROL, name),
        Some(("shift", name)) => (KeyModifiers::SHIFT, name),
        _ => (KeyModifiers::NONE, written),
    };
    let code = match name {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" if modifiers == KeyModifiers::SHIFT => KeyCode::BackTab,
        "tab" => KeyCode::Tab,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "pageup" => KeyCode::PageUp,
        "pagedown" => KeyCode::PageDown,
        "space" => KeyCode::Char(' '),
        _ if name.len() > 1 && name.starts_with('f') => KeyCode::F(name[1..].parse().expect("a function key")),
        "delete" => KeyCode::Delete,
        _ => KeyCode::Char(name.chars().next().expect("a letter")),
    };
    KeyEvent::new(code, modifiers)
}

/// Draws and keeps the geometry, as the loop does.
pub(crate) fn draw(state: &mut State) -> Buffer {
    let area = Rect::new(0, 0, state.size.0, state.size.1);
    let mut buffer = Buffer::empty(area);
    let geometry = view::draw(state, &mut buffer, area);
    state.drawn(geometry);
    buffer
}

/// The screen as text: cells behind a wide character are left out, and spaces at the end of a row.
pub(crate) fn screen_text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut skip = 0;
        for x in buffer.area.left()..buffer.area.right() {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            skip = text::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The calls among effects.
pub(crate) fn calls(effects: Vec<Effect>) -> Vec<(Ticket, Request)> {
    effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Call { ticket, request } => Some((ticket, request)),
            _ => None,
        })
        .collect()
}

fn answer_all(state: &mut State, page: fn(Request) -> Option<Reply>) {
    // Attaching asked for every page; asking again gives the same requests with tickets of their own.
    let effects = update(state, Action::Run(Command::Refresh));
    for (ticket, request) in calls(effects) {
        if let Some(reply) = page(request) {
            answer(state, ticket, reply);
        }
    }
    state.pending.clear();
    draw(state);
}

/// Answers what the long lists ask for when they come into view, as stores that hold nothing else do.
fn end_lists(state: &mut State) {
    for tab in [Command::Tab3, Command::Tab4] {
        for (ticket, request) in calls(update(state, Action::Run(tab))) {
            match request {
                Request::PageRequests(call) => {
                    answer(state, ticket, Reply::PageRequests(call, Ok(RequestPage::default())));
                }
                Request::ListAudit(call) => {
                    answer(state, ticket, Reply::ListAudit(call, Ok(Vec::new())));
                }
                _ => {}
            }
        }
    }
    update(state, Action::Run(Command::Tab1));
    state.pending.clear();
}

fn empty_page(request: Request) -> Option<Reply> {
    Some(match request {
        Request::ListKeys(call) => Reply::ListKeys(call, Ok(Vec::new())),
        Request::ListBlocks(call) => Reply::ListBlocks(call, Ok(BlockPage { total: 0, entries: Vec::new() })),
        Request::ListNetworks(call) => Reply::ListNetworks(call, Ok(Vec::new())),
        Request::ListPrompts(call) => Reply::ListPrompts(call, Ok(Vec::new())),
        Request::ListEngineKinds(call) => Reply::ListEngineKinds(call, Ok(kinds())),
        Request::ListInbox(call) => Reply::ListInbox(call, Ok(Inbox::default())),
        Request::ListAlertChannels(call) => Reply::ListAlertChannels(call, Ok(Vec::new())),
        _ => return None,
    })
}

pub(crate) fn full_page(request: Request) -> Option<Reply> {
    Some(match request {
        Request::ListKeys(call) => Reply::ListKeys(call, Ok(keys())),
        Request::ListBlocks(call) => Reply::ListBlocks(call, Ok(BlockPage { total: 3, entries: blocks() })),
        Request::ListNetworks(call) => {
            let list =
                if call.list == NetworkList::Trusted { vec![network("192.168.0.0/16", "自宅 LAN")] } else { vec![] };
            Reply::ListNetworks(call, Ok(list))
        }
        Request::ListPrompts(call) => Reply::ListPrompts(call, Ok(prompts())),
        Request::ListInbox(_) | Request::ListAlertChannels(_) => return empty_page(request),
        Request::ListProfiles(call) => Reply::ListProfiles(call, Ok(profiles())),
        Request::ListSettings(call) => Reply::ListSettings(call, Ok(settings())),
        Request::ListPromptRoutes(call) => {
            Reply::ListPromptRoutes(call, Ok(vec!["chat.completions".to_owned(), "completions".to_owned()]))
        }
        Request::ListEngineKinds(call) => Reply::ListEngineKinds(call, Ok(kinds())),
        Request::ListAudit(call) => {
            let rows = match call.place {
                Place::Behind(row) => row.saturating_sub(u64::from(call.limit)).max(1)..row,
                _ => 1..u64::from(call.limit),
            };
            let rows = rows.rev().map(|n| audit_row(n, AuditKind::RuleHit, Severity::Low, "older")).collect();
            Reply::ListAudit(call, Ok(rows))
        }
        Request::PageRequests(call) => {
            let row = |number| NumberedRequest { number, row: self::request(0x00ff_0000 + u128::from(number), 3_600) };
            let rows = (1..=u64::from(call.limit)).rev().map(row).collect();
            Reply::PageRequests(call, Ok(RequestPage { rows, oldest: 1, newest: 200 }))
        }
        _ => return None,
    })
}

pub(crate) fn kinds() -> Vec<EngineKindInfo> {
    [
        ("ollama", "Ollama", 11434),
        ("vllm", "vLLM", 8000),
        ("lmstudio", "LM Studio", 1234),
        ("llamacpp", "llama.cpp", 8080),
    ]
    .map(|(kind, title, default_port)| EngineKindInfo {
        kind: EngineKind::named(kind),
        title: title.to_owned(),
        default_port,
    })
    .to_vec()
}

fn network(text: &str, note: &str) -> ListedNetwork {
    ListedNetwork { network: parse_network(text).expect("parses"), note: note.to_owned(), created: ago(86_400) }
}

fn ago(seconds: u64) -> UnixMillis {
    NOW.minus(Duration::from_secs(seconds))
}

fn block(text: &str, source: BlockSource, failures: u32, reason: &str, left: Option<u64>) -> BlockEntry {
    BlockEntry {
        network: parse_network(text).expect("parses"),
        reason: reason.to_owned(),
        source,
        failures,
        created: ago(600),
        expires: left.map(|left| NOW.plus(Duration::from_secs(left))),
    }
}

fn blocks() -> Vec<BlockEntry> {
    vec![
        block("203.0.113.77", BlockSource::FailedAuthentication, 12, "5 wrong keys in 15 minutes", Some(872)),
        block("2001:db8:bad::/64", BlockSource::Score, 0, "path traversal: /v1/../../etc/passwd", Some(85_000)),
        block("198.51.100.0/24", BlockSource::Manual, 0, "スキャナー", None),
    ]
}

pub(crate) fn key(id: &str, label: &str) -> KeyView {
    KeyView {
        id: KeyId::parse(id).expect("parses"),
        label: label.to_owned(),
        last4: "Xy7Q".to_owned(),
        limits: KeyLimits::default(),
        created: ago(900_000),
        expires: None,
        revoked: None,
        last_used: Some(ago(40)),
        tokens_today: Some(1_234),
        capture_until: None,
    }
}

fn keys() -> Vec<KeyView> {
    let expiring =
        KeyView { expires: Some(NOW.plus(Duration::from_secs(86_400 * 12))), ..key("Qw34Er56", "ノートPC") };
    let revoked = KeyView { revoked: Some(ago(5_000)), last_used: None, ..key("Zz99Yy88", "old laptop") };
    vec![key("Ab12Cd34", "first key"), expiring, revoked]
}

pub(crate) fn created_key() -> CreatedKey {
    let text = "flm_Ab12Cd34_k3JfQ9sV0bTzYw7LmN2pRx5HdGc8EuKa41XoZiXy7Q";
    CreatedKey { key: Secret::new(text.to_owned()), view: key("Ab12Cd34", "first key") }
}

fn profiles() -> Vec<ProfileView> {
    let parameter = |name: &str, value: serde_json::Value, pinned| Parameter { name: name.to_owned(), value, pinned };
    vec![ProfileView {
        id: 1,
        engine: EngineId::parse("ollama").expect("parses"),
        model: "llama3.1:8b".to_owned(),
        label: "careful".to_owned(),
        parameters: vec![
            parameter("temperature", 0.2.into(), false),
            parameter("max_tokens", 512.into(), true),
            parameter("num_gpu", 1.into(), false),
        ],
        updated: ago(3_600),
    }]
}

fn settings() -> Vec<SettingView> {
    let mut settings = Settings::default().list();
    for (key, value, source) in [
        ("console.refresh", "4", SettingSource::Database),
        ("log.level", "warn", SettingSource::File),
        ("preferred_language", "ja", SettingSource::Environment),
    ] {
        let setting = settings.iter_mut().find(|setting| setting.key == key).expect("a setting");
        (setting.value, setting.source) = (value.to_owned(), source);
    }
    settings
}

/// The versions of a prompt, newest first.
pub(crate) fn versions() -> Vec<PromptView> {
    let version = |version: u32, text: &str| PromptView {
        api_id: "chat.completions".to_owned(),
        text: text.to_owned(),
        version,
        updated: ago(7_200 * u64::from(4 - version)),
    };
    vec![
        version(3, "You are a careful assistant.\nToday is {{date}}.\n\n日本語で質問されたら日本語で答えてください。"),
        version(2, "You are a careful assistant.\n\n日本語で質問されたら日本語で答えてください。\nBe brief."),
        version(1, "You are an assistant."),
    ]
}

/// What was used, by model or by key.
pub(crate) fn usage(by: UsageBy) -> UsageReport {
    let sums = |requests: u64, tokens: u64, estimated: u64| UsageSums {
        requests,
        estimated,
        prompt_tokens: tokens * 10,
        completion_tokens: tokens,
        latency_us: requests * 800_000,
        first_token_us: requests * 90_000,
        first_tokens: requests,
        rated_tokens: tokens,
        rated_us: tokens * 12_000,
        ..UsageSums::default()
    };
    let rows = match by {
        UsageBy::Key => vec![
            UsageRow::new("Ab12Cd34".into(), Some("first key".into()), sums(1_204, 210_000, 0)),
            UsageRow::new("Qw34Er56".into(), Some("ノートPC".into()), sums(37, 4_100, 5)),
        ],
        _ => vec![
            UsageRow::new("llama3.1:8b".into(), None, sums(1_200, 209_000, 5)),
            UsageRow::new("nomic-embed-text".into(), None, UsageSums { requests: 41, ..UsageSums::default() }),
        ],
    };
    UsageReport { by, since: ago(86_400), rows, total: sums(1_241, 214_100, 5) }
}

/// Checks of an hour: calm, an outage of ten minutes, then slower than before.
pub(crate) fn health(engine: &EngineId) -> Vec<HealthPoint> {
    (0..120_u32)
        .map(|number| {
            let down = (60..80).contains(&number) || number % 37 == 0;
            let slow = if number >= 80 { 40 } else { 0 };
            HealthPoint {
                engine: engine.clone(),
                at: ago(u64::from(120 - number) * 30),
                latency_ms: (!down).then_some(4 + number * 7 % 9 + slow),
                reason: down.then(|| "connection refused".to_owned()),
            }
        })
        .collect()
}

/// Security events of a day: a quiet night, an attack in the morning.
pub(crate) fn security_counts() -> SecurityCounts {
    let mut counts = SecurityCounts::default();
    let bursts = [
        (0, 7, Severity::High),
        (1, 2, Severity::Low),
        (2, 1, Severity::Medium),
        (5, 340, Severity::Critical),
        (6, 41, Severity::High),
        (13, 1, Severity::Low),
    ];
    for (hours, events, severity) in bursts {
        for _ in 0..events {
            counts.count(ago(hours * 3_600), AuditKind::RuleHit, severity);
        }
    }
    let source = |address: &str, count| (address.parse().expect("parses"), count);
    counts.sources = vec![source("203.0.113.77", 352), source("2001:db8:bad::", 36), source("198.51.100.9", 4)];
    counts
}

fn prompts() -> Vec<PromptView> {
    let text = "You are a careful assistant.\nToday is {{date}}.\n\n日本語で質問されたら日本語で答えてください。";
    vec![
        PromptView { api_id: "chat.completions".to_owned(), text: text.to_owned(), version: 3, updated: ago(7_200) },
        PromptView {
            api_id: "chat.completions@Ab12Cd34".to_owned(),
            text: "Answer in one line.".to_owned(),
            version: 1,
            updated: ago(90_000),
        },
    ]
}

fn engine(
    id: &str,
    kind: &'static str,
    port: u16,
    state: EngineState,
    version: Option<&str>,
    history: Vec<u32>,
) -> EngineView {
    EngineView {
        record: EngineRecord {
            id: EngineId::parse(id).expect("parses"),
            kind: EngineKind::named(kind),
            url: format!("http://127.0.0.1:{port}"),
            api_key_env: None,
            direct: false,
            slots: None,
            origin: EngineOrigin::Detected,
            created: ago(100_000),
        },
        state,
        version: version.map(str::to_owned),
        models: 4,
        models_loaded: Some(1),
        in_flight: 2,
        queued: 0,
        slots: 4,
        capabilities: BTreeSet::from([Capability::Chat, Capability::Stream, Capability::Embeddings, Capability::Tools]),
        latency_history: history,
        checked: Some(ago(3)),
    }
}

pub(crate) fn engines() -> Vec<EngineView> {
    let calm: Vec<u32> = (0..60).map(|n| 3 + (n * 7) % 9).collect();
    let rough: Vec<u32> = (0..60).map(|n| if n % 17 == 0 { 0 } else { 200 + (n * 53) % 900 }).collect();
    let refused = EngineState::ErrorNetwork { reason: "connection refused (127.0.0.1:8000)".to_owned(), failures: 3 };
    let slow = EngineState::RunningDegraded { latency_ms: 1240, reason: "slower than 1 s".to_owned() };
    vec![
        EngineView { in_flight: 0, ..engine("lmstudio", "lmstudio", 1234, slow, None, rough) },
        engine(
            "llamacpp-8080",
            "llamacpp",
            8080,
            EngineState::RunningHealthy { latency_ms: 4 },
            Some("b6123"),
            calm.clone(),
        ),
        EngineView {
            queued: 3,
            models: 12,
            ..engine("ollama", "ollama", 11434, EngineState::RunningHealthy { latency_ms: 8 }, Some("0.12.6"), calm)
        },
        EngineView {
            in_flight: 0,
            models: 0,
            models_loaded: None,
            ..engine("vllm", "vllm", 8000, refused, Some("0.11.0"), vec![0; 20])
        },
    ]
}

/// What a detection found: the first of these.
pub(crate) fn detection(count: usize) -> DetectionReport {
    let found = |kind: &'static str, url: Option<&str>, state, evidence: &str| DetectedEngine {
        kind: EngineKind::named(kind),
        url: url.map(str::to_owned),
        binary: url.is_none().then(|| "/home/ann/ツール/llama-server".to_owned()),
        version: url.map(|_| "0.12.6".to_owned()),
        state,
        models: 3,
        evidence: evidence.to_owned(),
    };
    let mut engines = vec![
        found("ollama", Some("http://127.0.0.1:11434"), EngineState::RunningHealthy { latency_ms: 8 }, "port 11434"),
        found("vllm", Some("http://127.0.0.1:8000"), EngineState::RunningHealthy { latency_ms: 4 }, "process 4242"),
        found("llamacpp", None, EngineState::InstalledOnly, "program in PATH"),
    ];
    engines.truncate(count);
    DetectionReport { engines, at: NOW, took_ms: 312, cached: false }
}

fn model(engine: &str, name: &str, size: Option<u64>, loaded: Option<bool>) -> ModelView {
    ModelView {
        name: CanonicalModel { engine: EngineId::parse(engine).expect("parses"), model: name.into() },
        listed_as: name.into(),
        kind: EngineKind::named("ollama"),
        capabilities: BTreeSet::from([Capability::Chat, Capability::Tools]),
        context_length: Some(131_072),
        size_bytes: size,
        parameters: Some("8B".to_owned()),
        quantization: Some("Q4_K_M".to_owned()),
        loaded,
        available: engine != "vllm",
    }
}

fn models() -> Vec<ModelView> {
    vec![
        model("ollama", "llama3.1:8b", Some(4_920_753_328), Some(true)),
        model("ollama", "qwen3:14b", Some(9_276_198_565), Some(false)),
        ModelView {
            capabilities: BTreeSet::from([Capability::Embeddings]),
            context_length: Some(2048),
            ..model("ollama", "nomic-embed-text:latest", Some(274_302_450), Some(false))
        },
        model("llamacpp-8080", "日本語モデル-7b.gguf", None, None),
        model("vllm", "mistralai/Mistral-Small-3.2-24B-Instruct-2506", None, None),
    ]
}

pub(crate) fn request(number: u128, seconds: u64) -> RequestRow {
    RequestRow {
        id: RequestId::from_random(number),
        at: ago(seconds),
        client: "192.168.1.20".parse().expect("parses"),
        key: Some(KeyId::parse("Ab12Cd34").expect("parses")),
        key_label: Some("first key".into()),
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        route: Some("chat.completions".into()),
        model: Some("llama3.1:8b".into()),
        engine: Some(EngineId::parse("ollama").expect("parses")),
        status: 200,
        error_code: None,
        stream: true,
        tokens: TokenUsage { prompt: 412, completion: 128, cached: 96, source: TokenSource::Engine },
        bytes_in: 1_832,
        bytes_out: 24_118,
        stages: StageTimes {
            screened: Some(14),
            authenticated: Some(52),
            parsed: Some(190),
            resolved: Some(215),
            sent: Some(12_400),
            first_byte: Some(180_000),
            first_token: Some(184_000),
        },
        progress: Progress::Ended { end: RequestEnd::Completed, took_us: 2_412_000 },
        user_agent: Some("OpenAI/Python 2.6.1".into()),
        trace: None,
    }
}

fn requests() -> Vec<RequestRow> {
    let running = RequestRow {
        progress: Progress::Running,
        tokens: TokenUsage { completion: 37, source: TokenSource::Estimated, ..TokenUsage::default() },
        ..request(0x11_1111, 1)
    };
    let refused = RequestRow {
        key: None,
        key_label: None,
        model: None,
        engine: None,
        route: None,
        path: "/v1/\u{1b}[31mevil".into(),
        status: 401,
        error_code: Some("INVALID_API_KEY".into()),
        stages: StageTimes { screened: Some(11), ..StageTimes::default() },
        tokens: TokenUsage::default(),
        progress: Progress::Ended { end: RequestEnd::Refused, took_us: 410 },
        ..request(0x33_3333, 20)
    };
    let failed = RequestRow {
        status: 502,
        error_code: Some("ENGINE_FAILED".into()),
        model: Some("日本語モデル-7b.gguf".into()),
        progress: Progress::Ended { end: RequestEnd::EngineFailed, took_us: 31_000 },
        tokens: TokenUsage::default(),
        ..request(0x44_4444, 44)
    };
    let left = RequestRow {
        progress: Progress::Ended { end: RequestEnd::ClientLeft, took_us: 871_000 },
        ..request(0x55_5555, 61)
    };
    let mut rows = vec![running, request(0x22_2222, 9), refused, failed, left];
    rows.extend((0..30).map(|n| request(0x1000 + n, 70 + u64::try_from(n).unwrap_or(0) * 13)));
    rows
}

pub(crate) fn audit_row(sequence: u64, kind: AuditKind, severity: Severity, details: &str) -> AuditRow {
    let mut event = AuditEvent::new(ago((400 - sequence.min(400)) * 7), kind, severity, details);
    event.address = Some("203.0.113.77".parse().expect("parses"));
    event.endpoint = Some("/v1/chat/completions".to_owned());
    event.status = Some(401);
    event.request_id = Some(RequestId::from_random(u128::from(sequence)));
    AuditRow { sequence, event }
}

fn audit() -> Vec<AuditRow> {
    vec![
        audit_row(400, AuditKind::BlockAdded, Severity::High, "blocked for 15 minutes after 5 wrong keys"),
        audit_row(399, AuditKind::AuthenticationFailed, Severity::Medium, "wrong key flm_ZZZZZZZZ"),
        audit_row(398, AuditKind::RuleHit, Severity::Critical, "path traversal: /v1/../../etc/passwd"),
        audit_row(397, AuditKind::KeyChanged, Severity::Low, "key 'first key' created"),
        AuditRow {
            sequence: 396,
            event: AuditEvent::new(ago(900), AuditKind::ListenerChanged, Severity::Low, "listening on 127.0.0.1:8484"),
        },
    ]
}

pub(crate) fn status() -> ProxyStatus {
    ProxyStatus {
        version: "0.1.0".to_owned(),
        pid: 4242,
        owner: OwnerKind::Daemon,
        started: ago(7_384),
        home: "/home/me/.local/share/flm".to_owned(),
        listeners: vec![ListenerStatus {
            tls: None,
            config: ListenerConfig::default(),
            phase: ListenerPhase::Running,
            addresses: vec!["http://127.0.0.1:8484/v1".to_owned()],
            started: Some(ago(7_380)),
        }],
        egress: flm::types::egress::EgressStatus::default(),
        exposure: flm::types::listener::Exposure::Local,
        overload: None,
        demo: false,
        read_only: None,
        reload_fault: None,
        needs_restart: Vec::new(),
        simulating: Vec::new(),
    }
}

pub(crate) fn snapshot() -> LiveSnapshot {
    LiveSnapshot {
        sequence: 100,
        status: status(),
        engines: engines(),
        load: Vec::new(),
        gpus: vec![
            GpuView {
                name: "NVIDIA GeForce RTX 4090".to_owned(),
                busy: Some(37),
                memory_used: Some(18_790_481_920),
                memory_total: Some(25_757_220_864),
                celsius: Some(61),
            },
            GpuView {
                name: "AMD GPU".to_owned(),
                busy: Some(0),
                memory_used: Some(536_870_912),
                memory_total: Some(17_163_091_968),
                celsius: None,
            },
        ],
        models: models(),
        traffic: Traffic {
            at: NOW,
            requests_total: 18_233,
            requests_per_second: 12.4,
            history: (0..60).map(|n| (n * 5) % 17).collect(),
            p95_ms: Some(842.0),
            p50_ms: Some(210.0),
            active_streams: 3,
            in_flight: 5,
            tokens_per_second: 148.2,
            token_history: (0..60).map(|second| 90 + second * 13 % 70).collect(),
            refused_total: 77,
            blocked_last_hour: 6,
            errors_total: 2,
            connections: 9,
            dropped_events: 0,
        },
        requests: requests(),
        audit: audit(),
    }
}
