//! [`Message`]: what a channel is told, and its JSON form. Everything from outside in it is escaped, and what looks like
//! a key has lost its secret (SPEC §5.13).

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::grouping::Group;
use crate::types::alert::ChannelId;
use crate::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use crate::types::clock::UnixMillis;
use crate::types::text::{escape, hex, redact_keys};

/// Version of the JSON form.
const FORM: &str = "1.0";

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Something happened.
    Event,
    /// The operator tries the channel.
    Test,
}

/// What a channel is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The same for every try: receivers tell a second delivery by it.
    pub id: String,
    /// The channel.
    pub channel: ChannelId,
    /// When it was put together.
    pub at: UnixMillis,
    /// What it is for.
    pub occasion: Occasion,
    /// Worst first; never empty.
    pub groups: Vec<Group>,
    /// Rows that were lost on the way and may have been worth telling.
    pub missed: u64,
}

impl Message {
    /// A message about groups of events.
    pub(super) fn new(channel: &ChannelId, groups: Vec<Group>, missed: u64, at: UnixMillis) -> Self {
        Self::of(channel, groups, missed, at, Occasion::Event)
    }

    /// A message that only tries a channel.
    #[must_use]
    pub fn test(channel: &ChannelId, at: UnixMillis) -> Self {
        let details = format!("this tests the alert channel {channel}: nothing has happened");
        let event = AuditEvent::new(at, AuditKind::Maintenance, Severity::Low, details);
        let groups = vec![Group::of(AuditRow { sequence: 0, event })];
        Self::of(channel, groups, 0, at, Occasion::Test)
    }

    fn of(channel: &ChannelId, groups: Vec<Group>, missed: u64, at: UnixMillis, occasion: Occasion) -> Self {
        let mut hash = Sha256::new();
        hash.update(channel.as_str());
        for number in groups.iter().flat_map(|group| [group.first, group.last]) {
            hash.update(number.to_be_bytes());
        }
        hash.update(at.0.to_be_bytes());
        let code: [u8; 32] = hash.finalize().into();
        let mut id = format!("alr_{}", hex(&code));
        // 80 bits tell messages of one channel apart.
        id.truncate(24);
        Self { id, channel: channel.clone(), at, occasion, groups, missed }
    }

    /// How bad the worst of it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.groups.iter().map(|group| group.severity).max().unwrap_or(Severity::Low)
    }

    /// How many events it tells.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.groups.iter().map(|group| group.events).sum()
    }

    /// The first and the last row of the audit log that it is about; 0 when it is about none.
    #[must_use]
    pub fn rows(&self) -> (u64, u64) {
        let first = self.groups.iter().map(|group| group.first).filter(|first| *first != 0).min().unwrap_or(0);
        (first, self.groups.iter().map(|group| group.last).max().unwrap_or(0))
    }

    /// One line for people, of words and numbers of FLM's own: it holds nothing from outside, so no receiver can be made
    /// to read markup or mentions out of it.
    #[must_use]
    pub fn text(&self) -> String {
        match self.occasion {
            Occasion::Test => format!("FLM on {}: a test of the alert channel {}", host(), self.channel),
            Occasion::Event => format!("FLM on {}: {}", host(), summary(&self.groups)),
        }
    }

    /// The line for people of the newest event of its worst group; outside text in it is made safe.
    #[must_use]
    pub fn details(&self) -> String {
        let newest = self.groups.first().and_then(|group| group.quoted.last());
        newest.map_or_else(String::new, |row| safe(&row.event.details))
    }

    /// The JSON form, as docs/alerts.md has it.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let document = Document {
            version: FORM,
            id: &self.id,
            channel: &self.channel,
            host: host(),
            test: self.occasion == Occasion::Test,
            at: self.at,
            time: time(self.at),
            severity: self.severity(),
            events: self.events(),
            missed: self.missed,
            text: self.text(),
            groups: self.groups.iter().map(GroupForm::of).collect(),
        };
        // Values of these types always serialise.
        serde_json::to_vec(&document).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    id: &'a str,
    channel: &'a ChannelId,
    host: String,
    test: bool,
    at: UnixMillis,
    time: String,
    severity: Severity,
    events: u64,
    missed: u64,
    text: String,
    groups: Vec<GroupForm>,
}

#[derive(Serialize)]
struct GroupForm {
    #[serde(rename = "type")]
    kind: AuditKind,
    severity: Severity,
    events: u64,
    first_time: String,
    last_time: String,
    first_sequence: u64,
    last_sequence: u64,
    quoted: Vec<AuditRow>,
}

impl GroupForm {
    fn of(group: &Group) -> Self {
        let quoted = group.quoted.iter().map(|row| {
            let event = &row.event;
            let event = AuditEvent {
                endpoint: event.endpoint.as_deref().map(safe),
                details: safe(&event.details),
                ..event.clone()
            };
            AuditRow { sequence: row.sequence, event }
        });
        Self {
            kind: group.kind,
            severity: group.severity,
            events: group.events,
            first_time: time(group.first_at),
            last_time: time(group.last_at),
            first_sequence: group.first,
            last_sequence: group.last,
            quoted: quoted.collect(),
        }
    }
}

fn safe(text: &str) -> String {
    redact_keys(&escape(text)).into_owned()
}

/// Groups of events in one line, of FLM's own words.
#[must_use]
pub fn summary(groups: &[Group]) -> String {
    let one = |group: &Group| {
        let sources: BTreeSet<_> = group.quoted.iter().filter_map(|row| row.event.address).collect();
        let from = match (sources.len(), group.quoted.iter().rev().find_map(|row| row.event.address)) {
            (0, _) | (_, None) => String::new(),
            (1, Some(address)) if group.events <= group.quoted.len() as u64 => format!(", from {address}"),
            (_, Some(address)) => format!(", last from {address}"),
        };
        format!("{} × {} ({}{from})", group.events, word(&group.kind), word(&group.severity))
    };
    groups.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The serialised name of a kind or severity.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name.replace('_', " "),
        _ => String::new(),
    }
}

/// This machine's name, made safe.
fn host() -> String {
    let name = rustix::system::uname();
    escape(&name.nodename().to_string_lossy()).into_owned()
}

fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Message {
        let mut event = AuditEvent::new(
            UnixMillis(1_795_442_600_000),
            AuditKind::RuleHit,
            Severity::High,
            "path \u{1b}]52;c;x\u{7}\u{202e} <!channel> flm_Ab12Cd34_0123456789012345678901234567890123456789abcdef",
        );
        event.endpoint = Some("/\u{1b}[2J".into());
        event.address = "192.0.2.7".parse().ok();
        let group = Group::of(AuditRow { sequence: 9, event });
        Message::new(&ChannelId::parse("ops").expect("a name"), vec![group], 0, UnixMillis(1_795_442_600_500))
    }

    #[test]
    fn outside_text_is_escaped_keys_are_gone_and_the_line_holds_none_of_it() {
        let message = hostile();
        let json = String::from_utf8(message.json().to_vec()).expect("text");
        assert!(!json.contains("\\u001b") && !json.contains('\u{202e}') && !json.contains("0123456789"), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["groups"][0]["quoted"][0]["endpoint"], "/\\x1b[2J");
        assert_eq!(value["groups"][0]["type"], "rule_hit");
        assert_eq!((value["severity"].as_str(), value["test"].as_bool()), (Some("high"), Some(false)));
        assert_eq!(value["time"], "2026-11-23T14:03:20.5Z");
        let line = value["text"].as_str().expect("text");
        assert!(line.ends_with(": 1 × rule hit (high, from 192.0.2.7)") && !line.contains("channel"), "{line}");
        assert!(message.details().contains("\\x1b]52") && !message.details().contains("0123456789"));
    }

    #[test]
    fn a_message_keeps_its_id_and_tells_what_it_is_about() {
        let (one, again) = (hostile(), hostile());
        assert_eq!((one.id.len(), one.rows(), one.events()), (24, (9, 9), 1));
        assert_eq!(one.id, again.id);
        let test = Message::test(&ChannelId::parse("ops").expect("a name"), UnixMillis(5));
        assert!(test.text().ends_with("a test of the alert channel ops"), "{}", test.text());
        assert_eq!((test.rows(), test.severity()), ((0, 0), Severity::Low));
        let value: serde_json::Value = serde_json::from_slice(&test.json()).expect("JSON");
        assert_eq!(value["test"], true);
    }
}
