//! Code where a value is expected: script and markup, shell commands, templates and look-ups, XML entities, serialised
//! objects. Each kind is a file of its own; this one asks them in turn.

use super::head::{Piece, Place};
use super::{markup_code, shell_code, template_code};

/// The first shape that a piece holds.
pub(super) fn look(piece: &Piece<'_>) -> Option<&'static str> {
    let reaches = |text: &str| PROTOTYPES.iter().any(|name| text.contains(name));
    if reaches(&piece.name) || piece.name.contains("__proto__") {
        return Some("object's prototype");
    }
    piece.views.each().find_map(|text| {
        if reaches(text) {
            return Some("object's prototype");
        }
        markup_code::look(text, piece.place)
            .or_else(|| template_code::look(text))
            .or_else(|| serialised(text))
            .or_else(|| response_split(text, piece.place))
            .or_else(|| shell_code::look(text, piece))
    })
}

/// Names that reach from a value to what all objects share: JavaScript's prototype, Java's class loader.
const PROTOTYPES: &[&str] = &[
    "__proto__[",
    "__proto__.",
    "\"__proto__\"",
    "constructor[prototype]",
    "constructor.prototype",
    "class.module.",
    "class.classloader",
    "class[classloader",
    ".classloader.",
];

/// Objects that rebuild themselves, and code with them, where they are read: Java, .NET, PHP, Python, Ruby, Node, YAML.
fn serialised(text: &str) -> Option<&'static str> {
    let begins = [
        "ro0ab",
        "aaeaaad/////",
        "gasv",
        "kaaaaa",
        "\u{fffd}\u{fffd}\u{0}\u{5}sr",
        "aced0005",
        "_$$nd_func$$_",
        "bah7",
        "baho:",
    ];
    let value = text.trim_start_matches(['"', '\'', '=', ' ']);
    let value = value.rsplit_once("/ro0ab").map_or(value, |(before, _)| &value[before.len() + 1..]);
    let long = value.len() >= 14;
    let php = value.as_bytes();
    let object = |bytes: &[u8]| {
        matches!(bytes, [b'o' | b'a' | b'c', b':', digits @ ..] if {
            let digits = digits.strip_prefix(b"+").unwrap_or(digits);
            let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            length > 0 && digits[length..].starts_with(b":") && matches!(digits.get(length + 1), Some(b'"' | b'{'))
        })
    };
    let inside = text
        .match_indices(['o', 'a'])
        .any(|(at, _)| object(&text.as_bytes()[at..]) && (at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric()));
    let marks = [
        "!!python/",
        "!!javax.",
        "!!com.sun",
        "!ruby/object",
        "!!ruby/",
        "_$$nd_func$$_",
        "java.lang.runtime",
        "java.lang.processbuilder",
        "javax.script",
        "com.sun.rowset",
        "org.apache.commons.collections",
        "objectdataprovider",
        "system.diagnostics.process",
        "__reduce__",
        "$type\":\"system.",
        "\"@type\":",
        "csubprocess\n",
        "cos\nsystem",
        "cposix\nsystem",
    ];
    let found = long && begins.iter().any(|begin| value.starts_with(begin))
        || object(php)
        || inside
        || marks.iter().any(|mark| text.contains(mark));
    found.then_some("serialised object")
}

/// Line ends that would begin a header of the answer (RFC 9112 §11.1).
fn response_split(text: &str, place: Place<'_>) -> Option<&'static str> {
    if matches!(place, Place::Header(_)) && !text.contains(['\r', '\n']) {
        return None;
    }
    text.split(['\r', '\n'])
        .skip(1)
        .any(|line| {
            let line = line.trim_start();
            line.starts_with("http/1.")
                || line.starts_with("<html")
                || line.split_once(':').is_some_and(|(name, _)| {
                    [
                        "set-cookie",
                        "location",
                        "content-type",
                        "content-length",
                        "x-",
                        "host",
                        "transfer-encoding",
                        "refresh",
                        "header-",
                        "access-control-",
                        "link",
                        "cc",
                        "bcc",
                        "to",
                        "subject",
                    ]
                    .iter()
                    .any(|known| name.starts_with(known) && name.len() < 40 && !name.contains(' '))
                })
        })
        .then_some("header of an answer")
}
