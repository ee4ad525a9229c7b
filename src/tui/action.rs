//! What can happen in the console, and the one table of commands.
//!
//! Key map, `?` help, the palette, the line of hints and the documentation are made from [`COMMANDS`]: adding a
//! command is adding a variant, a row, its text in `i18n/`, and the arm that carries it out. Must never hold
//! behaviour.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossterm::event::KeyEvent;

use crate::tui::effect::{Answer, Progressed, Ticket};
use crate::tui::tabs::Tab;
use crate::types::clock::UnixMillis;
use crate::types::failure::{Failure, Outcome};
use crate::types::live::LiveLine;

/// Where a key is valid. A focus has a chain of contexts, the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Context {
    /// Everywhere.
    Global,
    /// Every list.
    List,
    /// The Engines tab.
    Engines,
    /// The list of the Models tab.
    Models,
    /// Its chat tester.
    Chat,
    /// Its comparison.
    Compare,
    /// The Proxy tab, all views.
    Proxy,
    /// Its live requests.
    Requests,
    /// Its API keys.
    Keys,
    /// Its sums of what was used.
    Usage,
    /// The Security tab.
    Security,
    /// The Blocklist tab, all three lists.
    Lists,
    /// Its block list.
    Blocks,
    /// Its allow list and trusted list.
    Networks,
    /// The list of the Prompts tab.
    Prompts,
    /// The editor of the Prompts tab.
    Editor,
}

impl Context {
    /// Its name in `keymap.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::List => "list",
            Self::Engines => "engines",
            Self::Models => "models",
            Self::Chat => "chat",
            Self::Compare => "compare",
            Self::Proxy => "proxy",
            Self::Requests => "requests",
            Self::Keys => "keys",
            Self::Usage => "usage",
            Self::Security => "security",
            Self::Lists => "lists",
            Self::Blocks => "blocks",
            Self::Networks => "networks",
            Self::Prompts => "prompts",
            Self::Editor => "editor",
        }
    }

    /// The key of its title in help.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Global => "context.global",
            Self::List => "context.list",
            Self::Engines => "tab.engines",
            Self::Models => "tab.models",
            Self::Chat => "models.chat",
            Self::Compare => "models.compare",
            Self::Proxy => "tab.proxy",
            Self::Requests => "proxy.requests",
            Self::Keys => "proxy.keys",
            Self::Usage => "proxy.usage",
            Self::Security => "tab.security",
            Self::Lists => "tab.blocklist",
            Self::Blocks => "blocklist.blocked",
            Self::Networks => "context.networks",
            Self::Prompts => "tab.prompts",
            Self::Editor => "context.editor",
        }
    }
}

/// What a command does to the home. A read-only console offers only [`Safety::Looks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// Changes nothing but the view.
    Looks,
    /// Changes something that can be changed back.
    Changes,
    /// Removes something or ends work: asks first.
    Dangerous,
}

/// One row of the table.
#[derive(Debug)]
pub struct CommandRow {
    /// Which command.
    pub command: Command,
    /// Its name in `keymap.toml` and in the palette's search.
    pub name: &'static str,
    /// Its default keys.
    pub keys: &'static [&'static str],
    /// The key of its text.
    pub text: &'static str,
    /// Where it is valid.
    pub context: Context,
    /// What it does to the home.
    pub safety: Safety,
    /// Its rank among the hints at the bottom; 0 is never shown there.
    pub hint: u8,
}

macro_rules! commands {
    ($($variant:ident $name:literal $keys:tt $text:literal $context:ident $safety:ident $hint:literal;)*) => {
        /// Everything that a key or the palette can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Command { $(#[doc = concat!("`", $name, "`")] $variant),* }

        /// The one table of commands.
        pub static COMMANDS: &[CommandRow] = &[$(CommandRow {
            command: Command::$variant,
            name: $name,
            keys: &$keys,
            text: $text,
            context: Context::$context,
            safety: Safety::$safety,
            hint: $hint,
        }),*];
    };
}

commands! {
    Help "help" ["?", "f1"] "command.help" Global Looks 90;
    Palette "palette" [":", "ctrl-p"] "command.palette" Global Looks 80;
    Quit "quit" ["q", "ctrl-c"] "command.quit" Global Looks 85;
    Settings "settings" ["f2"] "command.settings" Global Looks 20;
    Alerts "alerts" ["!", "f3"] "command.alerts" Global Looks 0;
    Backup "backup" [] "command.backup" Global Changes 0;
    MoveIn "move-in" [] "command.move_in" Global Changes 0;
    ExposeCheck "expose-check" [] "command.expose_check" Global Looks 0;
    Undo "undo" ["z"] "command.undo" Global Changes 0;
    Back "back" ["esc"] "command.back" Global Looks 0;
    Filter "filter" ["/"] "command.filter" List Looks 60;
    Copy "copy" ["y"] "command.copy" List Looks 50;
    NextTab "next-tab" ["tab"] "command.next_tab" Global Looks 0;
    PreviousTab "previous-tab" ["shift-tab"] "command.previous_tab" Global Looks 0;
    Tab1 "tab-1" ["1"] "command.tab_engines" Global Looks 0;
    Tab2 "tab-2" ["2"] "command.tab_models" Global Looks 0;
    Tab3 "tab-3" ["3"] "command.tab_proxy" Global Looks 0;
    Tab4 "tab-4" ["4"] "command.tab_security" Global Looks 0;
    Tab5 "tab-5" ["5"] "command.tab_blocklist" Global Looks 0;
    Tab6 "tab-6" ["6"] "command.tab_prompts" Global Looks 0;
    Refresh "refresh" ["ctrl-r", "f5"] "command.refresh" Global Looks 0;
    Repaint "repaint" ["ctrl-l"] "command.repaint" Global Looks 0;
    Suspend "suspend" ["ctrl-z"] "command.suspend" Global Looks 0;
    ChatTester "chat-tester" ["f6"] "command.chat_tester" Global Looks 0;
    CompareModels "compare-models" ["f7"] "command.compare_models" Global Looks 0;
    GoPublic "go-public" ["f12"] "command.go_public" Global Changes 0;
    Up "up" ["up", "k"] "command.up" List Looks 0;
    Down "down" ["down", "j"] "command.down" List Looks 0;
    Left "left" ["left", "h"] "command.left" List Looks 0;
    Right "right" ["right", "l"] "command.right" List Looks 0;
    First "first" ["g", "home"] "command.first" List Looks 0;
    Last "last" ["G", "end"] "command.last" List Looks 0;
    PageUp "page-up" ["pageup", "ctrl-u"] "command.page_up" List Looks 0;
    PageDown "page-down" ["pagedown", "ctrl-d"] "command.page_down" List Looks 0;
    Open "open" ["enter"] "command.open" List Looks 55;

    DetectEngines "detect-engines" ["d"] "command.detect_engines" Engines Changes 100;
    AddEngine "add-engine" ["a"] "command.add_engine" Engines Changes 99;
    EditEngine "edit-engine" ["e"] "command.edit_engine" Engines Changes 80;
    CheckEngine "check-engine" ["c"] "command.check_engine" Engines Looks 70;
    RemoveEngine "remove-engine" ["x", "delete"] "command.remove_engine" Engines Dangerous 65;
    ChartSpan "chart-span" ["t"] "command.chart_span" Engines Looks 0;

    ChatWithModel "chat-with-model" ["c"] "command.chat_with_model" Models Looks 99;
    MarkModel "mark-model" ["space"] "command.mark_model" Models Looks 60;
    CompareMarked "compare-marked" ["m"] "command.compare_models" Models Looks 98;
    NextModelsView "next-models-view" ["v", "]"] "command.next_view" Models Looks 50;
    PreviousModelsView "previous-models-view" ["["] "command.previous_view" Models Looks 0;
    SortModels "sort-models" ["s"] "command.sort" Models Looks 100;
    ReverseModels "reverse-models" ["S"] "command.reverse" Models Looks 0;
    RefreshModels "refresh-models" ["r"] "command.refresh_models" Models Changes 95;
    LoadModel "load-model" ["L"] "command.load_model" Models Changes 80;
    UnloadModel "unload-model" ["U"] "command.unload_model" Models Changes 79;
    PullModel "pull-model" ["p"] "command.pull_model" Models Changes 85;
    DeleteModel "delete-model" ["x", "delete"] "command.delete_model" Models Dangerous 40;
    EditProfile "edit-profile" ["e"] "command.edit_profile" Models Changes 90;
    DeleteProfile "delete-profile" ["D"] "command.delete_profile" Models Dangerous 0;

    SendChat "send-chat" ["enter"] "command.send_chat" Chat Changes 100;
    BreakChatLine "break-chat-line" ["ctrl-j", "alt-enter"] "command.break_line" Chat Looks 40;
    LeaveChat "leave-chat" ["esc"] "command.leave_chat" Chat Looks 95;
    ChatModel "chat-model" ["f3"] "command.pick_model" Chat Looks 90;
    ChatSettings "chat-settings" ["f4"] "command.parameters" Chat Looks 85;
    NewChat "new-chat" ["f8"] "command.new_chat" Chat Looks 70;
    CopyChatAnswer "copy-answer" ["f9"] "command.copy_answer" Chat Looks 75;
    ChatUp "chat-up" ["pageup"] "command.scroll_up" Chat Looks 0;
    ChatDown "chat-down" ["pagedown"] "command.scroll_down" Chat Looks 0;

    RunComparison "run-comparison" ["enter"] "command.run_comparison" Compare Changes 100;
    BreakCompareLine "break-compare-line" ["ctrl-j", "alt-enter"] "command.break_line" Compare Looks 40;
    LeaveComparison "leave-comparison" ["esc"] "command.leave_chat" Compare Looks 95;
    PickCompared "pick-compared" ["f3"] "command.pick_models" Compare Looks 90;
    CompareSettings "compare-settings" ["f4"] "command.parameters" Compare Looks 85;
    SavedComparisons "saved-comparisons" ["f8"] "command.saved_comparisons" Compare Looks 70;
    ExportComparison "export-comparison" ["f9"] "command.export" Compare Looks 75;
    SaveComparison "save-comparison" ["ctrl-s", "f10"] "command.save_prompt" Compare Changes 80;
    CompareUp "compare-up" ["pageup"] "command.scroll_up" Compare Looks 0;
    CompareDown "compare-down" ["pagedown"] "command.scroll_down" Compare Looks 0;

    NextView "next-view" ["v", "]"] "command.next_view" Proxy Looks 96;
    PreviousView "previous-view" ["["] "command.previous_view" Proxy Looks 0;
    SetUp "set-up" ["w"] "command.go_public" Proxy Changes 60;
    EditPolicy "edit-policy" ["P"] "command.edit_policy" Proxy Looks 50;
    StartProxy "start-proxy" ["s"] "command.start_proxy" Proxy Changes 100;
    StopProxy "stop-proxy" ["S"] "command.stop_proxy" Proxy Dangerous 70;
    ReloadProxy "reload-proxy" ["r"] "command.reload_proxy" Proxy Changes 40;
    Firewall "firewall" ["F"] "command.firewall" Proxy Looks 0;
    CopyAddress "copy-address" ["u"] "command.copy_address" Proxy Looks 58;
    PauseRequests "pause-requests" ["p"] "command.pause" Requests Looks 95;
    FollowRequests "follow-requests" ["f"] "command.follow" Requests Looks 0;
    SortRequests "sort-requests" ["o"] "command.sort" Requests Looks 46;
    ReverseRequests "reverse-requests" ["O"] "command.reverse" Requests Looks 0;
    CopyCurl "copy-curl" ["Y"] "command.copy_curl" Requests Looks 45;
    ReplayRequest "replay-request" ["R"] "command.replay_request" Requests Looks 44;
    ShowBodies "show-bodies" ["b"] "command.show_bodies" Requests Looks 43;
    ClearCaptures "clear-captures" [] "command.clear_captures" Requests Dangerous 0;
    CreateKey "create-key" ["a"] "command.create_key" Keys Changes 99;
    RotateKey "rotate-key" ["o"] "command.rotate_key" Keys Dangerous 66;
    RevokeKey "revoke-key" ["x", "delete"] "command.revoke_key" Keys Dangerous 65;
    RevokeLeaked "revoke-leaked" ["b"] "command.revoke_leaked" Keys Dangerous 64;
    CaptureKey "capture-key" ["c"] "command.capture_key" Keys Changes 63;
    UsageSpan "usage-span" ["t"] "command.usage_span" Usage Looks 97;

    PauseAudit "pause-events" ["p"] "command.pause" Security Looks 95;
    FollowAudit "follow-events" ["f"] "command.follow" Security Looks 0;
    SeverityFilter "severity" ["v"] "command.severity" Security Looks 90;
    EventSpan "event-span" ["t"] "command.event_span" Security Looks 60;
    SortEvents "sort-events" ["s", "o"] "command.sort" Security Looks 59;
    ReverseEvents "reverse-events" ["S", "O"] "command.reverse" Security Looks 0;
    BlockSource "block-source" ["b"] "command.block_source" Security Changes 99;
    UnblockSource "unblock-source" ["u"] "command.unblock_source" Security Dangerous 45;
    AllowSource "allow-source" ["a"] "command.allow_source" Security Changes 44;

    NextList "next-list" ["v", "]"] "command.next_view" Lists Looks 96;
    PreviousList "previous-list" ["["] "command.previous_view" Lists Looks 0;
    AddBlock "add-block" ["a"] "command.add_block" Blocks Changes 100;
    Unblock "unblock" ["x", "delete"] "command.unblock" Blocks Dangerous 95;
    ImportBlocks "import-blocks" ["i"] "command.import_blocks" Blocks Changes 60;
    ExportBlocks "export-blocks" ["E"] "command.export_blocks" Blocks Looks 55;
    MakePermanent "make-permanent" ["m"] "command.make_permanent" Blocks Changes 70;
    ClearBlocks "clear-blocks" ["C"] "command.clear_blocks" Blocks Dangerous 45;
    AddNetwork "add-network" ["a"] "command.add_network" Networks Changes 100;
    RemoveNetwork "remove-network" ["x", "delete"] "command.remove_network" Networks Dangerous 95;

    NewPrompt "new-prompt" ["a"] "command.new_prompt" Prompts Changes 100;
    EditPrompt "edit-prompt" ["e"] "command.edit_prompt" Prompts Changes 99;
    PromptHistory "prompt-history" ["v"] "command.prompt_history" Prompts Looks 70;
    ComparePrompt "compare-prompt" ["d"] "command.compare_prompt" Prompts Looks 68;
    RestorePrompt "restore-prompt" ["R"] "command.restore_prompt" Prompts Changes 67;
    DeletePrompt "delete-prompt" ["x", "delete"] "command.delete_prompt" Prompts Dangerous 65;
    SavePrompt "save-prompt" ["ctrl-s", "f10"] "command.save_prompt" Editor Changes 100;
    PreviewPrompt "preview-prompt" ["f9"] "command.preview_prompt" Editor Looks 80;
    DiscardDraft "discard-draft" ["f8"] "command.discard_draft" Editor Looks 70;
    LeaveEditor "leave-editor" ["esc"] "command.leave_editor" Editor Looks 99;
}

impl Command {
    /// Its row in the table.
    #[must_use]
    pub fn row(self) -> &'static CommandRow {
        // The macro writes variants and rows in the same order.
        &COMMANDS[self as usize]
    }

    /// The tab that a `tab-N` command shows.
    #[must_use]
    pub fn tab(self) -> Option<Tab> {
        Some(match self {
            Self::Tab1 => Tab::Engines,
            Self::Tab2 => Tab::Models,
            Self::Tab3 => Tab::Proxy,
            Self::Tab4 => Tab::Security,
            Self::Tab5 => Tab::Blocklist,
            Self::Tab6 => Tab::Prompts,
            _ => return None,
        })
    }
}

/// Whether the wheel turned away from or towards the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wheel {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// Everything that changes the state.
#[derive(Debug)]
pub enum Action {
    /// A command, from a key, the palette or a click.
    Run(Command),
    /// A key press that the key map leaves to whoever takes text.
    Type(KeyEvent),
    /// Pasted text; goes to a focused input and nowhere else.
    Paste(String),
    /// The main button went down.
    Click {
        /// Column from 0.
        column: u16,
        /// Row from 0.
        row: u16,
    },
    /// The wheel turned.
    Turn {
        /// Which way.
        wheel: Wheel,
        /// Column from 0.
        column: u16,
        /// Row from 0.
        row: u16,
    },
    /// The terminal has this size now.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// The terminal window got or lost the focus.
    Focus(WindowFocus),
    /// The owner of the home answers from now on.
    Attached(crate::tui::OwnerOrigin),
    /// The owner of the home is gone or cannot be reached.
    Lost {
        /// Why.
        failure: Failure,
        /// How often it was tried since it last answered.
        attempt: u32,
        /// When it is tried again.
        retry_at: UnixMillis,
    },
    /// The person's own theme files are others now.
    Themes(BTreeMap<String, String>),
    /// A line of the live lane.
    Live(Box<LiveLine>),
    /// An operation that takes long told how far it is.
    Progressed(Box<Progressed>),
    /// An operation ended.
    Answered(Box<Answer>),
    /// A file was written, or could not be.
    Written {
        /// Of the effect.
        ticket: Ticket,
        /// Which file.
        path: PathBuf,
        /// Whether it is there.
        outcome: Outcome<()>,
    },
    /// A file was read, or could not be.
    FileRead {
        /// Of the effect.
        ticket: Ticket,
        /// What is in it.
        outcome: Outcome<String>,
    },
    /// Time has passed; `State::now` is set.
    Tick,
}

/// Whether the terminal window has the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowFocus {
    /// It has.
    Focused,
    /// It has not: data is drawn at most once a second.
    Unfocused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_commands() {
        for (index, row) in COMMANDS.iter().enumerate() {
            assert_eq!(row.command as usize, index, "{}", row.name);
            assert!(COMMANDS.iter().filter(|other| other.name == row.name).count() == 1, "{} twice", row.name);
        }
    }
}
