//! Templates and look-ups: what an engine of templates or a logger would evaluate (`{{7*7}}`, `${jndi:…}`, `%{…}`), and
//! expression languages that reach classes.

/// Brackets that engines of templates evaluate.
const BRACKETS: &[(&str, &str)] = &[
    ("{{", "}}"),
    ("${", "}"),
    ("#{", "}"),
    ("*{", "}"),
    ("@{", "}"),
    ("%{", "}"),
    ("~{", "}"),
    ("{%", "%}"),
    ("<%", "%>"),
    ("[[", "]]"),
    ("{php}", "{/php}"),
    ("{#", "#}"),
    ("{@", "}"),
    ("$(", ")"),
    ("@(", ")"),
    ("{$", "}"),
    ("{=", "}"),
    ("{", "}"),
];

/// What only code of a template says.
const REACHES: &[&str] = &[
    "__class__",
    "__mro__",
    "__subclasses__",
    "__globals__",
    "__builtins__",
    "__init__",
    "__import__",
    "getclass(",
    "forname(",
    "getruntime(",
    ".exec(",
    "t(java",
    "java.lang",
    "java.util",
    "java.io",
    "processbuilder",
    "freemarker",
    "?new()",
    "_self.env",
    "registerundefinedfiltercallback",
    "self.env",
    "@ognl",
    "ognl.",
    "#_memberaccess",
    "#context",
    "#request",
    "#session",
    "#cmd",
    "#rt",
    "class.classloader",
    "classloader",
    "systemproperties",
    "system.getenv",
    "system.getproperty",
    "request.application",
    "config.items",
    "self._templatereference",
    "lipsum",
    "cycler",
    "joiner",
    "get_flashed_messages",
    "url_for.",
    "popen(",
    "os.system",
    "subprocess",
    "open('/etc",
    "file.open",
    "file.read",
    "dir.entries",
    "io.popen",
    "scriptengine",
    "#set(",
    "#set ($",
    "<#assign",
    "<#list",
    "{php}",
    "$smarty",
    "smarty.",
    "twig",
    "{{constructor",
    "constructor.constructor",
    "$eval",
    "$on.constructor",
    "{{config",
    "{{self",
    "{{request",
    "{{settings",
    "{{app",
    "{{dump",
    "{%debug",
    "{% debug",
    "{%import",
    "{% import",
    "{%include",
    "{% include",
    "{% for",
    "{%for",
    "{%if",
    "{% if",
    "|attr(",
    "|filter(",
    "|map(",
    "|system",
    "|e('",
    "__proto__",
    "@system.",
    "${applicationscope",
    "${pagecontext",
    "${sessionscope",
    "${param",
    "${header",
    "${facescontext",
    "${request",
    "${script:",
    "${dns:",
    "${url:",
    "${class",
    "${env",
    "${self",
    "${product",
    "global.process",
    "root.process",
    "mainmodule",
];

/// The first shape that a text holds.
pub(super) fn look(text: &str) -> Option<&'static str> {
    if look_up(text) {
        return Some("look-up");
    }
    let bracketed = BRACKETS.iter().any(|(open, close)| text.contains(open) && text.contains(close));
    let directive = text.contains("#set") || text.contains("<#") || text.contains("{php}") || text.contains("t(java");
    if (bracketed || directive) && REACHES.iter().any(|reach| text.contains(reach)) {
        return Some("template");
    }
    BRACKETS
        .iter()
        .filter(|(open, _)| *open != "{")
        .any(|(open, close)| evaluates(text, open, close))
        .then_some("template")
}

/// Whether between brackets a calculation or a text that is repeated stands: how an engine is found out.
fn evaluates(text: &str, open: &str, close: &str) -> bool {
    text.match_indices(open).any(|(at, _)| {
        let rest = &text[at + open.len()..];
        let Some(end) = rest.find(close) else { return false };
        let inner: String = rest[..end].chars().filter(|c| !c.is_whitespace() && *c != '=' && *c != '-').collect();
        let Some(operator) = inner.find(['*', '+', '^', '%']) else {
            return open == "{%" && inner.contains('\'') && inner.contains('(');
        };
        let (left, right) = (&inner[..operator], &inner[operator + 1..]);
        let operand = |text: &str| {
            let bare = text.trim_matches(|c: char| matches!(c, '\'' | '"' | '(' | ')' | '*'));
            !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                || text.len() > 1 && text.starts_with(['\'', '"'])
        };
        operand(left) && operand(right)
    })
}

/// Look-ups of Log4j (CVE-2021-44228), however they are nested: `${jndi:`, `${${lower:j}ndi:`, `${${::-j}…`.
fn look_up(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let Some(at) = compact.find("${").or_else(|| compact.find("$%7b")) else {
        return compact.contains("jndi:ldap") || compact.contains("jndi:rmi") || compact.contains("jndi:dns");
    };
    let rest = &compact[at + 2..];
    let nested = rest.contains("${") && rest.contains(':');
    let kinds = [
        "jndi:", "lower:", "upper:", "env:", "sys:", "java:", "ctx:", "date:", "main:", "map:", "bundle:", "k8s:",
        "docker:", "log4j:", "marker:", "event:", "web:", "base64:", "spring:", "::-", "const:", "sd:",
    ];
    nested
        || kinds.iter().any(|kind| rest.starts_with(kind))
        || rest.contains("jndi:")
        || rest.contains("://") && rest.contains(':')
}
