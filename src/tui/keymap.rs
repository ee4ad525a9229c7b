//! Keys: how they are written, what they do where, and the user's own `keymap.toml`.
//!
//! Called by `event` for every key press and by help, palette and hints for what to show. A key map file is
//! `[context]` tables of `command-name = "key"` or `["key", …]`; an empty list frees the keys of a command. Must
//! never do I/O: the file is handed in as text.

use std::collections::BTreeMap;
use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::Deserialize;

use crate::config::settings::toml_fault;
use crate::tui::action::{COMMANDS, Command, Context};

/// A key with its modifiers, in one spelling: letters carry their shift in the letter itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    code: KeyCode,
    modifiers: KeyModifiers,
}

/// Why a key map file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyMapError {
    /// The file is no TOML of the right form.
    #[error("keymap.toml: {0}")]
    Syntax(String),
    /// A key is not known.
    #[error("keymap.toml: {command} = {key:?}: no such key; examples: \"a\", \"ctrl-a\", \"alt-enter\", \"f5\"")]
    Key {
        /// In whose row.
        command: String,
        /// What is written there.
        key: String,
    },
    /// A command is not known in that context.
    #[error("keymap.toml: [{context}] has no command {command:?}")]
    Command {
        /// Which table.
        context: String,
        /// Which name.
        command: String,
    },
    /// Two commands want the same key in the same place.
    #[error("keymap.toml: {key} in [{context}] is both {first} and {second}")]
    Twice {
        /// Which key.
        key: String,
        /// Where.
        context: &'static str,
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
}

impl Chord {
    /// Takes a key press apart.
    #[must_use]
    pub fn of(key: KeyEvent) -> Self {
        let mut modifiers = key.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let code = match key.code {
            // Terminals disagree on whether shift is told for letters and symbols; the symbol itself says enough.
            KeyCode::Char(letter) if modifiers.contains(KeyModifiers::CONTROL) => {
                modifiers -= KeyModifiers::SHIFT;
                KeyCode::Char(letter.to_ascii_lowercase())
            }
            KeyCode::Char(letter) => {
                let shifted = modifiers.contains(KeyModifiers::SHIFT);
                modifiers -= KeyModifiers::SHIFT;
                KeyCode::Char(if shifted { letter.to_ascii_uppercase() } else { letter })
            }
            KeyCode::BackTab => {
                modifiers |= KeyModifiers::SHIFT;
                KeyCode::Tab
            }
            other => other,
        };
        Self { code, modifiers }
    }

    /// Reads `a`, `G`, `?`, `ctrl-p`, `alt-enter`, `shift-tab`, `f5`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = text;
        loop {
            let (flag, after) = if let Some(after) = rest.strip_prefix("ctrl-") {
                (KeyModifiers::CONTROL, after)
            } else if let Some(after) = rest.strip_prefix("alt-") {
                (KeyModifiers::ALT, after)
            } else if let Some(after) = rest.strip_prefix("shift-") {
                (KeyModifiers::SHIFT, after)
            } else {
                break;
            };
            modifiers |= flag;
            rest = after;
        }
        let code = match rest {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "space" => KeyCode::Char(' '),
            "backspace" => KeyCode::Backspace,
            "delete" => KeyCode::Delete,
            "insert" => KeyCode::Insert,
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "left" => KeyCode::Left,
            "right" => KeyCode::Right,
            "home" => KeyCode::Home,
            "end" => KeyCode::End,
            "pageup" => KeyCode::PageUp,
            "pagedown" => KeyCode::PageDown,
            _ => {
                let mut letters = rest.chars();
                match (letters.next(), letters.as_str()) {
                    (Some(letter), "") => KeyCode::Char(letter),
                    (Some('f'), number) => KeyCode::F(number.parse().ok().filter(|number| (1..=24).contains(number))?),
                    _ => return None,
                }
            }
        };
        Some(Self::of(KeyEvent::new(code, modifiers)))
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.modifiers.contains(KeyModifiers::CONTROL) {
            f.write_str("Ctrl-")?;
        }
        if self.modifiers.contains(KeyModifiers::ALT) {
            f.write_str("Alt-")?;
        }
        if self.modifiers.contains(KeyModifiers::SHIFT) {
            f.write_str("Shift-")?;
        }
        let control = self.modifiers.contains(KeyModifiers::CONTROL);
        match self.code {
            KeyCode::Char(' ') => f.write_str("Space"),
            KeyCode::Char(letter) if control => write!(f, "{}", letter.to_ascii_uppercase()),
            KeyCode::Char(letter) => write!(f, "{letter}"),
            KeyCode::F(number) => write!(f, "F{number}"),
            KeyCode::Enter => f.write_str("Enter"),
            KeyCode::Esc => f.write_str("Esc"),
            KeyCode::Tab => f.write_str("Tab"),
            KeyCode::Backspace => f.write_str("Backspace"),
            KeyCode::Delete => f.write_str("Del"),
            KeyCode::Insert => f.write_str("Ins"),
            KeyCode::Up => f.write_str("Up"),
            KeyCode::Down => f.write_str("Down"),
            KeyCode::Left => f.write_str("Left"),
            KeyCode::Right => f.write_str("Right"),
            KeyCode::Home => f.write_str("Home"),
            KeyCode::End => f.write_str("End"),
            KeyCode::PageUp => f.write_str("PgUp"),
            KeyCode::PageDown => f.write_str("PgDn"),
            _ => f.write_str("?"),
        }
    }
}

/// Which key does what where.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyMap {
    /// Keys of each command, in the order of [`COMMANDS`].
    keys: Vec<Vec<Chord>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for KeyMap {
    fn default() -> Self {
        let keys = COMMANDS.iter().map(|row| row.keys.iter().filter_map(|key| Chord::parse(key)).collect());
        Self { keys: keys.collect() }
    }
}

impl KeyMap {
    /// The default keys with those of a `keymap.toml` over them.
    ///
    /// # Errors
    /// On wrong TOML, unknown contexts, commands and keys, and on a key with two commands in one context.
    pub fn with_file(text: &str) -> Result<Self, KeyMapError> {
        let file: BTreeMap<String, BTreeMap<String, OneOrMany>> =
            toml::from_str(text).map_err(|error| KeyMapError::Syntax(toml_fault(text, &error)))?;
        let mut map = Self::default();
        for (context, commands) in file {
            for (command, keys) in commands {
                let row = COMMANDS.iter().find(|row| row.name == command && row.context.name() == context);
                let Some(row) = row else { return Err(KeyMapError::Command { context, command }) };
                let keys = match keys {
                    OneOrMany::One(key) => vec![key],
                    OneOrMany::Many(keys) => keys,
                };
                map.keys[row.command as usize] = keys
                    .into_iter()
                    .map(|key| {
                        Chord::parse(&key)
                            .ok_or_else(|| KeyMapError::Key { command: command.clone(), key: key.clone() })
                    })
                    .collect::<Result<_, _>>()?;
            }
        }
        map.check()?;
        Ok(map)
    }

    fn check(&self) -> Result<(), KeyMapError> {
        for first in COMMANDS {
            for second in &COMMANDS[first.command as usize + 1..] {
                if first.context != second.context {
                    continue;
                }
                let twice = self.keys(first.command).iter().find(|key| self.keys(second.command).contains(key));
                if let Some(key) = twice {
                    return Err(KeyMapError::Twice {
                        key: key.to_string(),
                        context: first.context.name(),
                        first: first.name,
                        second: second.name,
                    });
                }
            }
        }
        Ok(())
    }

    /// The keys of a command.
    #[must_use]
    pub fn keys(&self, command: Command) -> &[Chord] {
        self.keys.get(command as usize).map_or(&[], Vec::as_slice)
    }

    /// The keys of a command as text, such as `x, Del`.
    #[must_use]
    pub fn written(&self, command: Command) -> String {
        self.keys(command).iter().map(Chord::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The first key of a command as text; empty when it has none.
    #[must_use]
    pub fn first(&self, command: Command) -> String {
        self.keys(command).first().map(Chord::to_string).unwrap_or_default()
    }

    /// What a key does for a chain of contexts, the most specific first.
    #[must_use]
    pub fn find(&self, contexts: &[Context], key: KeyEvent) -> Option<Command> {
        let chord = Chord::of(key);
        contexts.iter().find_map(|context| {
            COMMANDS
                .iter()
                .find(|row| row.context == *context && self.keys(row.command).contains(&chord))
                .map(|row| row.command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_key_parses_and_none_is_given_twice_in_a_context() {
        for row in COMMANDS {
            for key in row.keys {
                assert!(Chord::parse(key).is_some(), "{}: {key}", row.name);
            }
        }
        KeyMap::default().check().expect("no chord twice");
    }

    #[test]
    fn a_file_replaces_keys_and_the_old_ones_are_free() {
        let map =
            KeyMap::with_file("[global]\nhelp = \"f9\"\n[engines]\nadd-engine = [\"n\", \"ctrl-n\"]").expect("fits");
        let press = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert_eq!(map.find(&[Context::Global], press(KeyCode::F(9))), Some(Command::Help));
        assert_eq!(map.find(&[Context::Global], press(KeyCode::Char('?'))), None);
        let chain = [Context::Engines, Context::List, Context::Global];
        assert_eq!(map.find(&chain, press(KeyCode::Char('n'))), Some(Command::AddEngine));
        assert_eq!(map.written(Command::AddEngine), "n, Ctrl-N");
    }

    #[test]
    fn a_wrong_file_names_its_fault() {
        for (text, expected) in [
            ("[global]\nhlep = \"a\"", "keymap.toml: [global] has no command \"hlep\""),
            ("[global]\nhelp = \"hyper-a\"", "no such key"),
            ("[engines]\nadd-engine = \"d\"", "d in [engines] is both detect-engines and add-engine"),
            ("[global", "keymap.toml: line 1, column 8: "),
        ] {
            let error = KeyMap::with_file(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn shift_is_told_by_the_letter_whatever_the_terminal_reports() {
        let told = KeyEvent::new(KeyCode::Char('g'), KeyModifiers::SHIFT);
        let plain = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::NONE);
        assert_eq!(Chord::of(told), Chord::of(plain));
        assert_eq!(Chord::parse("shift-tab"), Some(Chord::of(KeyEvent::new(KeyCode::BackTab, KeyModifiers::NONE))));
    }
}
