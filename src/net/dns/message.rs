//! DNS messages (RFC 1035 §4, RFC 2136 §2): as little of them as asking for a few record types and changing TXT records
//! takes. Pure: bytes and values, no I/O.
//!
//! Called by [`super`] and [`super::tsig`]. What comes from a server is hostile until it is parsed: lengths are checked, and
//! compression pointers may only point backwards, so that no message makes the parser run in circles.

use std::fmt;

/// Longest name in wire form (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;
/// Longest label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;
/// Longest string of a TXT record (RFC 1035 §3.3).
const STRING_MAX: usize = 255;
/// Length of a head.
pub(super) const HEAD: usize = 12;

const CLASS_IN: u16 = 1;
/// Class NONE: "delete exactly this record" (RFC 2136 §2.5.4).
const CLASS_NONE: u16 = 254;
/// Opcode UPDATE (RFC 2136 §2.2), where it stands in the flags.
const UPDATE: u16 = 5 << 11;
/// "Recursion desired" in the flags (RFC 1035 §4.1.1).
const RECURSION_DESIRED: u16 = 1 << 8;
/// "This is an answer" in the flags.
const ANSWER: u16 = 1 << 15;

/// A domain name in wire form, in lower case: RFC 1035 §2.3.3 compares without case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

/// A text that is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no domain name")]
pub struct NotAName(pub String);

impl Name {
    /// Reads a name as a person writes it, with or without a dot at its end.
    ///
    /// # Errors
    /// When a label is empty, longer than 63 bytes or not ASCII, or the whole is longer than 255.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let wrong = || NotAName(text.chars().take(NAME_MAX).collect());
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            let length = u8::try_from(label.len()).map_err(|_| wrong())?;
            if !(1..=LABEL_MAX).contains(&label.len()) || !label.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong());
            }
            wire.push(length);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        if wire.len() > NAME_MAX { Err(wrong()) } else { Ok(Self(wire)) }
    }

    /// The name without its first label; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let first = usize::from(*self.0.first()?);
        (first > 0).then(|| Self(self.0[first + 1..].to_vec()))
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() <= 1
    }

    /// In wire form, without compression, as it is signed too (RFC 8945 §4.2).
    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut first = true;
        while let Some((length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, after) = after.split_at(usize::from(*length).min(after.len()));
            if !first {
                f.write_str(".")?;
            }
            first = false;
            for byte in label {
                // RFC 1035 §5.1: what would be read as something else is written as a number.
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte))?,
                    byte => write!(f, "\\{byte:03}")?,
                }
            }
            rest = after;
        }
        if first { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Kinds of records that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Name servers of a zone.
    Ns,
    /// Another name that stands for this one.
    Cname,
    /// Head of a zone.
    Soa,
    /// Text.
    Txt,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Txt => 16,
        }
    }

    fn of(number: u16) -> Option<Self> {
        [Self::Ns, Self::Cname, Self::Soa, Self::Txt].into_iter().find(|kind| kind.number() == number)
    }
}

/// Whether the server is to ask others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// It is.
    Desired,
    /// Only what it knows itself.
    Unwanted,
}

/// What becomes of a TXT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is added beside others of its name.
    Add {
        /// How long others may keep it, seconds.
        ttl: u32,
    },
    /// It goes; others of its name stay.
    Remove,
}

/// What a record says, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Of a TXT record: its strings, joined.
    Text(Vec<u8>),
    /// Of an NS or CNAME record.
    Name(Name),
    /// Of a SOA record, whose owner is all that is of use.
    Zone,
}

/// A record of one of the [`Kind`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Name,
    /// Of which kind.
    pub kind: Kind,
    /// What it says.
    pub data: Data,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 0 is fine (RFC 1035 §4.1.1, RFC 2136 §2.2).
    pub code: u8,
    /// Records that answer.
    pub answers: Vec<Record>,
    /// Records about the zone.
    pub authority: Vec<Record>,
    /// Where the last record begins, and whether it is a TSIG: what signs comes last (RFC 8945 §5.1).
    pub(super) signature: Option<usize>,
}

/// Bytes that are no DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no DNS message")]
pub struct Malformed;

/// A question.
#[must_use]
pub fn query(id: u16, name: &Name, kind: Kind, recursion: Recursion) -> Vec<u8> {
    let flags = if recursion == Recursion::Desired { RECURSION_DESIRED } else { 0 };
    let mut message = head(id, flags, [1, 0, 0, 0]);
    message.extend(name.wire());
    message.extend(kind.number().to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

/// A change of one TXT record in a zone (RFC 2136 §2).
#[must_use]
pub fn update(id: u16, zone: &Name, name: &Name, text: &str, change: Change) -> Vec<u8> {
    let mut message = head(id, UPDATE, [1, 0, 1, 0]);
    message.extend(zone.wire());
    message.extend(Kind::Soa.number().to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    let (class, ttl) = match change {
        Change::Add { ttl } => (CLASS_IN, ttl),
        // RFC 2136 §2.5.4: the time to live must be 0.
        Change::Remove => (CLASS_NONE, 0),
    };
    message.extend(name.wire());
    message.extend(Kind::Txt.number().to_be_bytes());
    message.extend(class.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    let mut data = Vec::with_capacity(text.len() + 1);
    for string in text.as_bytes().chunks(STRING_MAX) {
        // At most 255 by the line above.
        data.push(u8::try_from(string.len()).unwrap_or(u8::MAX));
        data.extend(string);
    }
    message.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(data);
    message
}

fn head(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    message.extend(id.to_be_bytes());
    message.extend(flags.to_be_bytes());
    for count in counts {
        message.extend(count.to_be_bytes());
    }
    message
}

/// Reads the answer to the message of that number.
///
/// # Errors
/// When it is none, or answers another message.
pub fn parse(bytes: &[u8], id: u16) -> Result<Answer, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    let (answered, flags) = (reader.short()?, reader.short()?);
    if answered != id || flags & ANSWER == 0 {
        return Err(Malformed);
    }
    let counts = [reader.short()?, reader.short()?, reader.short()?, reader.short()?];
    for _ in 0..counts[0] {
        reader.name()?;
        reader.skip(4)?;
    }
    let mut signature = None;
    let mut sections = [Vec::new(), Vec::new(), Vec::new()];
    for (section, count) in sections.iter_mut().zip(&counts[1..]) {
        for _ in 0..*count {
            let begin = reader.at;
            let (record, is_signature) = reader.record()?;
            section.extend(record);
            signature = is_signature.then_some(begin);
        }
    }
    let [answers, authority, _additional] = sections;
    let code = u8::try_from(flags & 0xf).unwrap_or(u8::MAX);
    Ok(Answer { code, answers, authority, signature })
}

/// Reads a message from its begin.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, length: usize) -> Result<(), Malformed> {
        self.take(length).map(|_| ())
    }

    pub(super) fn short(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn byte_at(&self, at: usize) -> Result<usize, Malformed> {
        self.bytes.get(at).map(|byte| usize::from(*byte)).ok_or(Malformed)
    }

    pub(super) fn name(&mut self) -> Result<Name, Malformed> {
        let mut wire = Vec::new();
        let (mut at, mut resume) = (self.at, None);
        loop {
            let length = self.byte_at(at)?;
            match length >> 6 {
                0 => {
                    let label = self.bytes.get(at..=at + length).ok_or(Malformed)?;
                    wire.extend(label.iter().map(u8::to_ascii_lowercase));
                    if wire.len() > NAME_MAX {
                        return Err(Malformed);
                    }
                    at += length + 1;
                    if length == 0 {
                        self.at = resume.unwrap_or(at);
                        return Ok(Name(wire));
                    }
                }
                0b11 => {
                    let target = (length & 0x3f) << 8 | self.byte_at(at + 1)?;
                    resume.get_or_insert(at + 2);
                    // Only backwards: a name cannot lead to itself.
                    if target >= at {
                        return Err(Malformed);
                    }
                    at = target;
                }
                _ => return Err(Malformed),
            }
        }
    }

    /// A record, where it is of a kind that is of use, and whether it is a signature.
    fn record(&mut self) -> Result<(Option<Record>, bool), Malformed> {
        const TSIG: u16 = 250;
        let owner = self.name()?;
        let (number, class) = (self.short()?, self.short()?);
        self.skip(4)?;
        let length = usize::from(self.short()?);
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(Malformed)?;
        let kind = Kind::of(number).filter(|_| class == CLASS_IN);
        let data = match kind {
            Some(Kind::Txt) => Some(Data::Text(strings(&self.bytes[self.at..end])?)),
            Some(Kind::Ns | Kind::Cname) => Some(Data::Name(self.name()?)),
            Some(Kind::Soa) => Some(Data::Zone),
            None => None,
        };
        self.at = end;
        Ok((kind.zip(data).map(|(kind, data)| Record { owner, kind, data }), number == TSIG))
    }
}

fn strings(mut data: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut text = Vec::with_capacity(data.len());
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Malformed)?;
        text.extend(string);
        data = rest;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn names_are_read_shown_and_lead_to_their_parents() {
        assert_eq!(name("_Acme-Challenge.Example.org.").to_string(), "_acme-challenge.example.org");
        let parents = std::iter::successors(Some(name("a.b.c")), Name::parent);
        assert_eq!(parents.map(|name| name.to_string()).collect::<Vec<_>>(), ["a.b.c", "b.c", "c", "."]);
        for bad in ["", ".", "a..b", "a b", "ä.example", &"x".repeat(64), &["abcdefgh"; 30].join(".")] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_question_is_written_as_rfc_1035_has_it() {
        let message = query(0x1234, &name("a.bc"), Kind::Txt, Recursion::Desired);
        assert_eq!(message, *b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x10\0\x01");
    }

    /// An answer with a compressed CNAME, a TXT record of two strings and a SOA.
    fn answer() -> Vec<u8> {
        let mut message = head(7, ANSWER | 3, [1, 2, 1, 0]);
        message.extend(b"\x01a\x02bc\0\0\x10\0\x01");
        // Owner: pointer to the question at 12; target: `t` and a pointer to `bc` at 14.
        message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01t\xc0\x0e");
        message.extend(b"\x01T\xc0\x0e\0\x10\0\x01\0\0\0\x3c\0\x06\x02ab\x02cd");
        message.extend(b"\xc0\x0e\0\x06\0\x01\0\0\0\x3c\0\x16\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01");
        message
    }

    #[test]
    fn an_answer_is_read_with_its_compressed_names() {
        let read = parse(&answer(), 7).expect("parses");
        assert_eq!(read.code, 3);
        let [alias, text] = read.answers.as_slice() else { panic!("{read:?}") };
        assert_eq!((alias.owner.to_string().as_str(), &alias.data), ("a.bc", &Data::Name(name("t.bc"))));
        assert_eq!((text.owner.to_string().as_str(), &text.data), ("t.bc", &Data::Text(b"abcd".to_vec())));
        assert_eq!(read.authority[0].owner, name("bc"));
        assert_eq!(parse(&answer(), 8), Err(Malformed), "an answer to something else");
    }

    #[test]
    fn names_that_lead_forwards_or_in_circles_are_refused() {
        for pointer in [b"\xc0\x0c", b"\xc0\x1d", b"\xc0\xff"] {
            let mut message = head(7, ANSWER, [1, 0, 0, 0]);
            message.extend(pointer);
            message.extend(b"\0\x10\0\x01");
            assert_eq!(parse(&message, 7), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _read = parse(&bytes, 7);
        }

        #[test]
        fn a_damaged_answer_never_makes_it_panic(at in 0..90usize, byte in any::<u8>(), cut in 0..100usize) {
            let mut message = answer();
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
            message.truncate(message.len().saturating_sub(cut / 2));
            let _read = parse(&message, 7);
        }
    }
}
