//! The console: event → action → update → view.
//!
//! Called by `bin` with a way to reach the home's owner. Draws only when something visible changed, waits for
//! nothing but its own terminal, and knows the home only through `control::Operator`.
//!
//! ```text
//! terminal, signals, answers, live lane ─► event ─► Action ─► update(&mut State) ─► Effect ─► courier ─► Operator
//!                                                                   │
//!                                                    dirty? ─► view(&State) ─► one write to the terminal
//! ```
//!
//! Must never run an operation itself, hold a lock across a frame, or block on the owner.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::{fmt, io};

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::Operator;
use crate::telemetry::tasks::Tasks;
use crate::tui::action::{Action, WindowFocus};
use crate::tui::effect::{Courier, Effect, MouseUse};
use crate::tui::keymap::KeyMap;
use crate::tui::overlays::toasts::Level;
use crate::tui::pace::Pace;
use crate::tui::state::{Dirty, State};
use crate::tui::terminal::{Guard, Keyboard, Multiplexer, Screen};
use crate::tui::text::Words;
use crate::tui::theme::{Depth, Theme, ThemeShelf};
use crate::tui::widgets::symbols::{CharacterSet, Motion};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::SshSession;
use crate::types::language;

pub mod action;
pub mod answers;
mod cells;
pub mod effect;
pub mod event;
pub mod geometry;
pub mod keymap;
pub mod launch;
pub mod overlays;
pub mod pace;
pub mod signs;
pub mod state;
pub mod tab_blocklist;
pub mod tab_engines;
pub mod tab_models;
pub mod tab_prompts;
pub mod tab_proxy;
pub mod tab_security;
pub mod tabs;
pub mod terminal;
pub mod text;
pub mod theme;
mod theme_watch;
pub mod update;
pub mod view;
pub mod widgets;
pub mod window;
pub mod world;

/// Frames per second for data, unless set otherwise (TUI.md §2).
pub const DEFAULT_REFRESH: u8 = 4;

/// Time of one frame of a spinner: 8 a second while something is pending, and only then.
pub const SPINNER_STEP: Duration = Duration::from_millis(125);

/// Actions of the live lane that wait for the loop; the owner's ring holds what does not fit.
const LIVE_CHANNEL: usize = 1024;

/// Answers of calls that wait for the loop.
const ANSWER_CHANNEL: usize = 64;

/// How long calls on their way get to end when the console leaves.
const LAST_CALLS: Duration = Duration::from_millis(200);

/// Whether the console may change anything (`--read-only`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleAccess {
    /// It may.
    Full,
    /// It shows everything and changes nothing (SPEC §9.7).
    ReadOnly,
}

/// How the owner of the home came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerOrigin {
    /// A daemon that was started for this console.
    StartedHere,
    /// A daemon that ran before.
    AlreadyRan,
    /// A task of this process (`--in-process`, demo).
    InProcess,
}

/// The owner, reached.
#[derive(Debug)]
pub struct Attached {
    /// Where calls go.
    pub operator: Operator,
    /// How the owner came to run.
    pub origin: OwnerOrigin,
}

/// Reaches the owner, starting it where that is allowed. Called at the start, after the first frame, and again with
/// back-off whenever the owner was lost; every call is a fresh attempt.
pub type Connect = dyn Fn() -> Pin<Box<dyn Future<Output = Outcome<Attached>> + Send>> + Send + Sync;

/// What SIGHUP does to the proxy (`console.on_hangup`, SPEC §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHangup {
    /// The daemon stays.
    Background,
    /// It ends.
    Stop,
}

/// Whether the console looks for engines when it started the owner (`engine.detect_at_start`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartDetection {
    /// It does.
    On,
    /// Only when the person asks for it.
    Off,
}

/// How the console is opened. Files are read by the caller, who names them in warnings.
#[derive(Debug, Clone)]
pub struct ConsoleOptions {
    /// `preferred_language`, or what the system asks for (`ja_JP.UTF-8`); unknown ones become English.
    pub language: String,
    /// `console.theme`.
    pub theme: String,
    /// The user's theme files: name without `.toml`, and text.
    pub user_themes: BTreeMap<String, String>,
    /// The folder of those files, watched for changes.
    pub theme_folder: Option<PathBuf>,
    /// Text of `keymap.toml`, where there is one.
    pub keymap: Option<String>,
    /// Colours of the terminal; `Depth::detect` reads them from the environment.
    pub depth: Depth,
    /// Characters of the terminal; `CharacterSet::detect` reads them from the environment.
    pub characters: CharacterSet,
    /// `console.motion`.
    pub motion: Motion,
    /// `console.mouse`.
    pub mouse: MouseUse,
    /// How the terminal tells key presses.
    pub keyboard: Keyboard,
    /// What stands between the console and the terminal.
    pub multiplexer: Multiplexer,
    /// `console.refresh`: frames per second for data, 1 to 60.
    pub refresh: u8,
    /// `--read-only`.
    pub access: ConsoleAccess,
    /// The SSH session that the terminal belongs to.
    pub ssh: Option<SshSession>,
    /// `console.on_hangup`.
    pub on_hangup: OnHangup,
    /// `engine.detect_at_start`.
    pub start_detection: StartDetection,
    /// Where a panic writes its report; a file in the log folder.
    pub panic_report: Option<PathBuf>,
    /// Where files are written to when their name has no folder.
    pub export_folder: PathBuf,
    /// Time zone of the times shown.
    pub zone: jiff::tz::TimeZone,
}

impl ConsoleOptions {
    /// Options as the environment suggests them, before settings and flags are laid over.
    #[must_use]
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        // While a program asks for the mouse, GNU screen (4.9) keeps Esc back until the next key and hands both on as one.
        let multiplexer = Multiplexer::detect(&variable);
        Self {
            language: sys_locale::get_locale().unwrap_or_else(|| language::FALLBACK.to_owned()),
            theme: theme::DEFAULT_THEME.to_owned(),
            user_themes: BTreeMap::new(),
            theme_folder: None,
            keymap: None,
            depth: Depth::detect(&variable),
            characters: CharacterSet::detect(&variable),
            motion: Motion::Full,
            mouse: match multiplexer {
                Multiplexer::Screen => MouseUse::Terminal,
                Multiplexer::None | Multiplexer::Tmux => MouseUse::Console,
            },
            keyboard: Keyboard::detect(&variable),
            multiplexer,
            refresh: DEFAULT_REFRESH,
            access: ConsoleAccess::Full,
            ssh: variable("SSH_CONNECTION").as_deref().and_then(SshSession::parse),
            on_hangup: OnHangup::Background,
            start_detection: StartDetection::On,
            panic_report: None,
            export_folder: PathBuf::new(),
            zone: jiff::tz::TimeZone::system(),
        }
    }
}

/// How the console ended; the caller acts. An owner in this process ends with it in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleEnd {
    /// The person wants the proxy to stop: end the owner.
    StopProxy,
    /// The proxy stays as it is.
    LeaveProxyRunning,
    /// The terminal is gone (SIGHUP, a failed write): nobody is there to ask.
    TerminalGone(OnHangup),
}

/// The terminal could not be taken over.
#[derive(Debug, thiserror::Error)]
#[error("the terminal could not be prepared for the console")]
pub struct ConsoleError(#[source] pub io::Error);

/// Runs the console until it is left.
///
/// # Errors
/// When there is no terminal to take over. Once it runs, a terminal that goes away is an ordinary end.
pub async fn run(options: ConsoleOptions, clock: Clock, connect: Arc<Connect>) -> Result<ConsoleEnd, ConsoleError> {
    terminal::install_panic_hook(options.panic_report.clone());
    let size = crossterm::terminal::size().map_err(ConsoleError)?;
    let mut signals = Signals::listen().map_err(ConsoleError)?;
    let (keyboard, multiplexer) = (options.keyboard, options.multiplexer);
    terminal::enter(io::stdout(), options.mouse, keyboard).map_err(ConsoleError)?;
    let _guard = Guard;
    let on_hangup = options.on_hangup;
    let theme_folder = options.theme_folder.clone();
    let mut state = open(options, size, &clock);
    let Ok(screen) = Screen::new(io::stdout(), size) else { return Ok(ConsoleEnd::TerminalGone(on_hangup)) };
    let mut screen = screen.behind(multiplexer);
    // The first frame waits for nobody.
    match screen.draw(&state) {
        Ok(geometry) => state.drawn(geometry),
        Err(_gone) => return Ok(ConsoleEnd::TerminalGone(on_hangup)),
    }
    let tasks = Tasks::new();
    let (answers, answers_in) = mpsc::channel(ANSWER_CHANNEL);
    let (live, live_in) = mpsc::channel(LIVE_CHANNEL);
    if let Some(folder) = theme_folder {
        tasks.spawn_until_end("console themes", theme_watch::watch(folder, live.clone()));
    }
    let courier = Courier::start(tasks.clone(), clock.clone(), connect, answers, live);
    let mut console = Console {
        state,
        screen,
        courier,
        clock,
        answers: answers_in,
        live: live_in,
        keyboard,
        focus: WindowFocus::Focused,
        pace: Pace::new(Instant::now()),
        suspension: Suspension::No,
    };
    let end = console.serve(&mut signals).await;
    drop(console);
    tasks.shutdown(LAST_CALLS).await;
    Ok(end.unwrap_or(ConsoleEnd::TerminalGone(on_hangup)))
}

/// The state before anything is known. What is wrong with the person's own files is told, and the defaults stand in.
fn open(options: ConsoleOptions, size: (u16, u16), clock: &Clock) -> State {
    let words = Words::new(&options.language, options.zone);
    let shelf = ThemeShelf::new(options.user_themes);
    let (theme, theme_fault) = match shelf.load(&options.theme, options.depth) {
        Ok(theme) => (theme, None),
        Err(error) => {
            let fallback = shelf.load(theme::DEFAULT_THEME, options.depth).unwrap_or_else(|_| Theme::plain());
            (fallback, Some(error.to_string()))
        }
    };
    let (keymap, keymap_fault) = match options.keymap.as_deref().map(KeyMap::with_file) {
        None => (KeyMap::default(), None),
        Some(Ok(keymap)) => (keymap, None),
        Some(Err(error)) => (KeyMap::default(), Some(error.to_string())),
    };
    let mut state = State::new(words, theme, size, clock.wall());
    state.shelf = shelf;
    state.depth = options.depth;
    state.characters = options.characters;
    state.keymap = keymap;
    state.access = options.access;
    state.ssh = options.ssh;
    state.export_folder = options.export_folder;
    state.start_detection = options.start_detection;
    state.mouse = options.mouse;
    state.motion = options.motion;
    state.refresh = options.refresh.clamp(1, 60);
    for fault in [theme_fault, keymap_fault].into_iter().flatten() {
        state.complain(&Failure::new(ErrorCode::InvalidArgument, fault));
    }
    state
}

/// The signals that concern a console.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    stop: Signal,
    resume: Signal,
}

#[derive(Debug, Clone, Copy)]
enum Caught {
    Hangup,
    Terminate,
    Interrupt,
    Stop,
    Resume,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // SIGTSTP from outside; the key itself arrives as a key in raw mode.
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            resume: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            biased;
            _ = self.hangup.recv() => Caught::Hangup,
            _ = self.terminate.recv() => Caught::Terminate,
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.stop.recv() => Caught::Stop,
            _ = self.resume.recv() => Caught::Resume,
        }
    }
}

struct Console {
    state: State,
    screen: Screen<io::Stdout>,
    courier: Courier,
    clock: Clock,
    answers: mpsc::Receiver<Action>,
    live: mpsc::Receiver<Action>,
    keyboard: Keyboard,
    focus: WindowFocus,
    pace: Pace,
    suspension: Suspension,
}

/// Whether the console is to stop at the end of this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspension {
    /// It goes on.
    No,
    /// Ctrl-Z or SIGTSTP asked for it.
    Asked,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("tab", &self.state.tab).finish_non_exhaustive()
    }
}

/// What woke the loop.
enum Woken {
    Signal(Caught),
    Terminal(Option<io::Result<crossterm::event::Event>>),
    Action(Action),
    FrameDue,
    TickDue,
}

/// The loop ends.
enum Leaving {
    With(ConsoleEnd),
    TerminalGone,
}

impl From<io::Error> for Leaving {
    fn from(_gone: io::Error) -> Self {
        Self::TerminalGone
    }
}

impl Console {
    /// Serves until the person leaves; `None` when the terminal went away.
    async fn serve(&mut self, signals: &mut Signals) -> Option<ConsoleEnd> {
        let mut events = EventStream::new();
        // A window that changed before anybody listened sent no event.
        if let Ok((columns, rows)) = crossterm::terminal::size()
            && (columns, rows) != self.state.size
            && self.act(Action::Resize { columns, rows }).is_err()
        {
            return None;
        }
        loop {
            let woken = self.wait(signals, &mut events).await;
            self.state.now = self.clock.wall();
            match self.handle(woken, &mut events).await {
                Ok(()) if self.suspension == Suspension::Asked => self.suspend(signals).await.ok()?,
                Ok(()) => {}
                Err(Leaving::With(end)) => return Some(end),
                Err(Leaving::TerminalGone) => return None,
            }
        }
    }

    async fn wait(&mut self, signals: &mut Signals, events: &mut EventStream) -> Woken {
        let frame = self.frame_due();
        let tick = self.state.next_change().map(|wait| Instant::now() + wait);
        tokio::select! {
            biased;
            caught = signals.next() => Woken::Signal(caught),
            event = events.next() => Woken::Terminal(event),
            Some(action) = self.answers.recv() => Woken::Action(action),
            Some(action) = self.live.recv() => Woken::Action(action),
            () = at(frame) => Woken::FrameDue,
            () = at(tick) => Woken::TickDue,
        }
    }

    /// When the next frame may be drawn; `None` while nothing visible changed.
    fn frame_due(&self) -> Option<Instant> {
        self.pace.due(self.state.dirty(), self.focus, self.state.refresh)
    }

    async fn handle(&mut self, woken: Woken, events: &mut EventStream) -> Result<(), Leaving> {
        match woken {
            Woken::Signal(caught) => self.caught(caught)?,
            Woken::Terminal(None | Some(Err(_))) => return Err(Leaving::TerminalGone),
            Woken::Terminal(Some(Ok(event))) => self.terminal_event(event)?,
            Woken::Action(action) => self.act(action)?,
            Woken::FrameDue => {}
            Woken::TickDue => self.act(Action::Tick)?,
        }
        // Everything that is ready goes into one frame.
        while let Some(event) = ready(events).await {
            match event {
                Some(Ok(event)) => self.terminal_event(event)?,
                None | Some(Err(_)) => return Err(Leaving::TerminalGone),
            }
        }
        for _ in 0..LIVE_CHANNEL {
            let Ok(action) = self.answers.try_recv().or_else(|_| self.live.try_recv()) else { break };
            self.act(action)?;
        }
        if self.suspension == Suspension::No && self.frame_due().is_some_and(|due| due <= Instant::now()) {
            self.draw()?;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        let geometry = self.screen.draw(&self.state)?;
        self.state.drawn(geometry);
        self.pace.drew(Instant::now(), self.screen.written(), self.state.size);
        Ok(())
    }

    fn terminal_event(&mut self, event: crossterm::event::Event) -> Result<(), Leaving> {
        use crossterm::event::Event;
        if let Event::Key(key) = event
            && let Some([first, second]) = event::apart(&self.state, self.keyboard, key)
        {
            self.happened(Event::Key(first))?;
            return self.happened(Event::Key(second));
        }
        self.happened(event)
    }

    fn happened(&mut self, event: crossterm::event::Event) -> Result<(), Leaving> {
        match event::translate(&self.state, event) {
            Some(action) => self.act(action),
            None => Ok(()),
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Leaving> {
        match &action {
            Action::Resize { columns, rows } => self.screen.resize(*columns, *rows)?,
            Action::Focus(focus) => self.focus = *focus,
            _ => {}
        }
        for effect in update::update(&mut self.state, action) {
            self.carry_out(effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Leaving> {
        match effect {
            Effect::Call { ticket, request } => self.courier.send(ticket, request),
            Effect::Leave(ticket) => self.courier.leave(ticket),
            Effect::Write { ticket, path, content } => self.courier.write(ticket, path, content),
            Effect::Read { ticket, path } => self.courier.read(ticket, path),
            Effect::Copy(text) => self.screen.copy(&text)?,
            Effect::Notify(notification) => self.screen.notify(&notification)?,
            Effect::Mouse(mouse) => self.screen.use_mouse(mouse)?,
            Effect::Repaint => self.screen.repaint()?,
            Effect::Suspend => self.ask_to_suspend(),
            Effect::End(end) => return Err(Leaving::With(end)),
        }
        Ok(())
    }

    fn caught(&mut self, caught: Caught) -> Result<(), Leaving> {
        match caught {
            Caught::Hangup => Err(Leaving::TerminalGone),
            Caught::Terminate => Err(Leaving::With(ConsoleEnd::LeaveProxyRunning)),
            Caught::Interrupt => self.act(Action::Run(action::Command::Quit)),
            Caught::Stop => {
                self.ask_to_suspend();
                Ok(())
            }
            Caught::Resume => {
                // Whoever stopped the console without asking left the terminal in modes of its own.
                terminal::leave(io::stdout())?;
                Ok(self.resume()?)
            }
        }
    }

    /// An owner inside this process would stop with it, and its requests too.
    fn ask_to_suspend(&mut self) {
        if self.state.origin == Some(OwnerOrigin::InProcess) && self.state.world.traffic.in_flight > 0 {
            let note = self.state.words.say("toast.suspend_refused").into_owned();
            self.state.toast(Level::Warn, note);
        } else {
            self.suspension = Suspension::Asked;
        }
    }

    /// Gives the terminal back and stops until continued. The whole process group stops, so that a shell or a cargo
    /// that started the console sees it; a daemon has a session of its own and goes on. The kernel may stop this
    /// thread a little later than the call returns, so SIGCONT is waited for before the terminal is touched again.
    async fn suspend(&mut self, signals: &mut Signals) -> io::Result<()> {
        self.suspension = Suspension::No;
        terminal::leave(io::stdout())?;
        rustix::process::kill_current_process_group(rustix::process::Signal::STOP)?;
        signals.resume.recv().await;
        self.resume()
    }

    /// Takes the terminal over again, whose size may be another and whose screen is somebody else's.
    fn resume(&mut self) -> io::Result<()> {
        terminal::enter(io::stdout(), self.state.mouse, self.keyboard)?;
        let (columns, rows) = crossterm::terminal::size()?;
        self.screen.resize(columns, rows)?;
        self.state.size = (columns, rows);
        self.state.soil(Dirty::Now);
        Ok(())
    }
}

/// The event that is there already, if one is. Polls with the loop's own waker: the stream keeps the first waker that
/// it is given until the next event, so that a throw-away one would leave the loop asleep.
async fn ready(events: &mut EventStream) -> Option<Option<io::Result<crossterm::event::Event>>> {
    std::future::poll_fn(|context| match events.poll_next_unpin(context) {
        Poll::Ready(event) => Poll::Ready(Some(event)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits until a time, or for ever when there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
