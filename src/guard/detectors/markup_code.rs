//! Script and markup: tags that run code, attributes that do, calls of a page's script, XML entities, server-side includes.

use super::head::Place;

/// Tags that no value of this API holds; others need an attribute that runs code.
const TAGS: &[&str] = &[
    "script",
    "iframe",
    "object",
    "embed",
    "svg",
    "math",
    "base",
    "meta",
    "link",
    "applet",
    "frameset",
    "frame",
    "xss",
    "isindex",
    "marquee",
    "bgsound",
    "layer",
    "ilayer",
    "body",
    "style",
    "form",
    "img",
    "image",
    "video",
    "audio",
    "details",
    "noscript",
    "template",
    "html",
    "head",
    "input",
    "textarea",
    "button",
    "select",
    "keygen",
    "table",
    "xml",
    "title",
    "foreignobject",
    "animate",
    "set",
    "portal",
    "dialog",
    "slot",
    "noembed",
];

/// Calls that show or carry off what a page knows.
const CALLS: &[&str] = &[
    "alert",
    "confirm",
    "prompt",
    "eval",
    "settimeout",
    "setinterval",
    "execscript",
    "importscripts",
    "string.fromcharcode",
    "document.write",
    "document.createelement",
    "console.log",
    "atob",
    "unescape",
    "function",
    "print",
    "fetch",
    "$.get",
    "$.getscript",
    "xmlhttprequest",
    "require",
    "navigator.sendbeacon",
    "window.open",
    "import",
];

/// Properties with the same use.
const PROPERTIES: &[&str] = &[
    "document.cookie",
    "document.location",
    "document.domain",
    "document.body",
    "document[",
    "window.location",
    "window[",
    "location.href",
    "location=",
    "localstorage",
    "innerhtml",
    "outerhtml",
    "constructor.constructor",
    "top[",
    "self[",
    "this[",
    "parent[",
    "frames[",
    "globalthis",
    "srcdoc=",
    "formaction=",
    "process.mainmodule",
    "child_process",
];

/// The first shape that a text holds.
pub(super) fn look(text: &str, place: Place<'_>) -> Option<&'static str> {
    entity(text)
        .or_else(|| tag(text))
        .or_else(|| attribute(text))
        .or_else(|| scheme(text))
        .or_else(|| call(text, place))
}

fn entity(text: &str) -> Option<&'static str> {
    let marks =
        ["<!doctype", "<!entity", "<?xml", "<xi:include", "<xsl:", "<!element", "<!attlist", "<soap", "xmlns:xi"];
    if marks.iter().any(|mark| text.contains(mark))
        || text.contains("<!") && (text.contains(" system ") || text.contains(" public "))
    {
        return Some("XML entity");
    }
    let include = ["<!--#", "<esi:", "<?php", "<?=", "<%", "<jsp:", "<cf"];
    if include.iter().any(|mark| text.contains(mark)) || text.contains("<![cdata[") {
        return Some("server-side code");
    }
    None
}

fn tag(text: &str) -> Option<&'static str> {
    for (at, _) in text.match_indices('<') {
        let rest = text[at + 1..].trim_start_matches(['/', ' ', '\u{0}', '\t', '\n', '<', '\\', '?', '!']);
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        let name = name.rsplit(':').next().unwrap_or(name);
        if TAGS.contains(&name) || after.len() < text.len() && name.starts_with("script") {
            return Some("tag");
        }
        if !name.is_empty()
            && (handler(after) || after.contains("javascript:") || after.contains("style=") && after.contains('('))
        {
            return Some("tag");
        }
    }
    None
}

/// Whether an attribute like `onload=` stands in a text.
fn handler(text: &str) -> bool {
    text.match_indices("on").any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let rest = &text[at + 2..];
        let name = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        (3..=24).contains(&name)
            && rest[name..].trim_start_matches([' ', '\t', '\n', '\r', '\u{c}', '\u{0}']).starts_with('=')
            && before.is_none_or(|c| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '/' | '`' | ';' | '<' | '\u{c}' | '\u{b}' | ',' | '>')
            })
    })
}

fn attribute(text: &str) -> Option<&'static str> {
    let runs = text.contains('(')
        || text.contains('`')
        || text.contains("javascript")
        || text.contains("alert")
        || text.contains("=\"")
        || text.contains("='");
    let breaks_out = text.contains('"')
        || text.contains('\'')
        || text.contains('>')
        || text.contains('`')
        || text.trim_start().starts_with("on");
    (handler(text) && runs && breaks_out).then_some("attribute")
}

fn scheme(text: &str) -> Option<&'static str> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let schemes = [
        "javascript:",
        "vbscript:",
        "livescript:",
        "data:text/html",
        "data:text/javascript",
        "data:image/svg",
        "data:application/x-javascript",
        "data:application/javascript",
        "data:;base64",
        "data:text/xml",
        "data:application/xhtml",
        "mocha:",
        "feed:javascript",
        "jar:http",
        "url(javascript",
        "-moz-binding",
        "behavior:url",
        "expression(",
    ];
    schemes
        .iter()
        .any(|scheme| {
            compact
                .find(scheme)
                .is_some_and(|at| compact[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '/'))
        })
        .then_some("script address")
}

fn call(text: &str, place: Place<'_>) -> Option<&'static str> {
    let negotiated = matches!(place, Place::Header(name) if name == http::header::USER_AGENT)
        && !text.contains(['<', '\'', '"', '`', '$', '{']);
    if negotiated {
        return None;
    }
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let broken_out = compact.contains(['\'', '"', '`', '<', '>', ';', '{', '\\', '$', '['])
        || compact.starts_with(['-', '+', '(', '!', '~', '/']);
    for name in CALLS {
        for (at, _) in compact.match_indices(name) {
            let before = compact[..at].chars().next_back();
            let after = &compact[at + name.len()..];
            let word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let handed = ["?.call", "?.apply", ".call", ".apply"].iter().find_map(|by| after.strip_prefix(by));
            let called = handed.unwrap_or(after);
            if word || !["(", "`", "?.("].iter().any(|open| called.starts_with(open)) {
                continue;
            }
            let inner = called.trim_start_matches(['(', '`', '?', '.']);
            // The first argument of `call` and `apply` is what `this` is, of no use to most of these.
            let nobody = ["null", "undefined", "void", "self", "top", "globalthis"];
            let shown = handed.is_some() && nobody.iter().any(|one| inner.starts_with(one))
                || inner.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '\'' | '"' | '`' | '/' | ')' | '\\'))
                || inner.starts_with("document")
                || inner.starts_with("window")
                || inner.starts_with("this")
                || inner.starts_with("string.")
                || inner.starts_with("atob")
                || inner.starts_with("location")
                || inner.starts_with("xss")
                || inner.starts_with("origin")
                || inner.starts_with("name");
            let loud = matches!(
                *name,
                "alert"
                    | "confirm"
                    | "prompt"
                    | "eval"
                    | "execscript"
                    | "importscripts"
                    | "string.fromcharcode"
                    | "document.write"
            );
            if shown
                && (loud && (broken_out || at == 0)
                    || broken_out && *name != "print" && *name != "function" && *name != "require" && *name != "import")
                || *name == "require" && after.contains("child_process")
                || *name == "function"
                    && broken_out
                    && (after.contains("alert") || after.contains("returnthis") || after.contains("eval"))
            {
                return Some("script call");
            }
        }
    }
    let property = PROPERTIES.iter().any(|property| compact.contains(property))
        && (compact.contains('=')
            || compact.contains('(')
            || compact.contains("document.cookie")
            || compact.contains('+')
            || compact.contains('['));
    let assembled =
        compact.contains("[]") && (compact.contains("(![]") || compact.contains("[+[]]") || compact.contains("[]["));
    (property && (broken_out || compact.contains("document.cookie")) || assembled).then_some("script")
}
