//! Shell commands behind a sign that begins a new command, or in a call or a quotation that runs one; blanks, quotes and
//! backslashes that only hide a word from filters are taken away first.

use super::head::{Piece, Place, is_command_name};

/// Commands that tell something by themselves.
const ALONE: &[&str] = &[
    "id",
    "whoami",
    "ls",
    "dir",
    "uname",
    "ps",
    "pwd",
    "ifconfig",
    "ipconfig",
    "env",
    "printenv",
    "set",
    "netstat",
    "hostname",
    "w",
    "who",
    "last",
    "ver",
    "systeminfo",
    "tasklist",
    "arp",
    "route",
    "df",
    "mount",
    "lsb_release",
    "reboot",
    "shutdown",
    "halt",
    "history",
    "uptime",
    "groups",
    "users",
    "getent",
    "sh",
    "bash",
    "zsh",
    "ksh",
    "dash",
    "cmd",
    "cmd.exe",
    "powershell",
    "pwsh",
    "phpinfo",
    "sleep",
    "true",
    "busybox",
    "ss",
    "lsof",
];

/// Commands that matter with what follows them.
const WITH_ARGUMENT: &[&str] = &[
    "cat",
    "tac",
    "more",
    "less",
    "head",
    "tail",
    "nl",
    "od",
    "xxd",
    "hexdump",
    "strings",
    "base64",
    "rev",
    "sort",
    "uniq",
    "cut",
    "awk",
    "gawk",
    "sed",
    "grep",
    "egrep",
    "find",
    "locate",
    "type",
    "wget",
    "curl",
    "fetch",
    "lynx",
    "lwp-download",
    "ftp",
    "tftp",
    "scp",
    "rsync",
    "ping",
    "ping6",
    "nslookup",
    "dig",
    "host",
    "traceroute",
    "nc",
    "ncat",
    "netcat",
    "telnet",
    "socat",
    "ssh",
    "python",
    "python2",
    "python3",
    "perl",
    "ruby",
    "php",
    "node",
    "lua",
    "gcc",
    "echo",
    "printf",
    "rm",
    "rmdir",
    "mkdir",
    "cp",
    "mv",
    "touch",
    "chmod",
    "chown",
    "kill",
    "killall",
    "pkill",
    "crontab",
    "useradd",
    "adduser",
    "passwd",
    "sudo",
    "su",
    "dd",
    "tar",
    "gzip",
    "unzip",
    "export",
    "source",
    "exec",
    "eval",
    "nohup",
    "setsid",
    "timeout",
    "xargs",
    "tee",
    "vi",
    "vim",
    "ed",
    "net",
    "reg",
    "wmic",
    "sc",
    "certutil",
    "bitsadmin",
    "mshta",
    "rundll32",
    "regsvr32",
    "cscript",
    "wscript",
    "copy",
    "del",
    "attrib",
    "icacls",
    "findstr",
    "start",
    "iex",
    "invoke-expression",
    "iwr",
    "invoke-webrequest",
    "stat",
    "file",
    "readlink",
    "expr",
    "test",
    "cd",
    "apt",
    "apt-get",
    "yum",
    "systemctl",
    "service",
    "iptables",
    "docker",
    "kubectl",
    "openssl",
];

/// Calls of programming languages that run or read.
const CALLS: &[&str] = &[
    "system",
    "exec",
    "shell_exec",
    "passthru",
    "popen",
    "proc_open",
    "pcntl_exec",
    "phpinfo",
    "base64_decode",
    "assert",
    "preg_replace",
    "call_user_func",
    "call_user_func_array",
    "create_function",
    "file_get_contents",
    "file_put_contents",
    "fopen",
    "readfile",
    "include",
    "include_once",
    "require_once",
    "highlight_file",
    "show_source",
    "os.system",
    "os.popen",
    "subprocess.call",
    "subprocess.popen",
    "subprocess.run",
    "subprocess.check_output",
    "commands.getoutput",
    "__import__",
    "execfile",
    "kernel.exec",
    "io.popen",
    "runtime.exec",
    "getruntime",
    "str_rot13",
    "gzinflate",
    "var_dump",
    "print_r",
    "md5",
    "die",
    "sleep",
    "syscall",
    "exec_shell",
    "process.start",
    "wscript.shell",
    "createobject",
    "file_exists",
    "scandir",
    "opendir",
    "unlink",
    "ini_set",
    "extract",
    "putenv",
    "mail",
    "chr",
    "eval",
];

/// The first shape that a piece holds.
pub(super) fn look(text: &str, piece: &Piece<'_>) -> Option<&'static str> {
    if text.contains("(){") && text.contains('}') || text.contains("() {") || text.contains("(){:;}") {
        return Some("function definition");
    }
    if reaches(text) {
        return Some("shell");
    }
    let plain = plain(text);
    if begun(&plain, piece) {
        return Some("command");
    }
    if is_command_name(piece.name.trim()) && (command(plain.trim_start(), Behind::Name)) {
        return Some("command");
    }
    called(&plain).then_some("call")
}

/// Paths and redirections that are a shell's own.
fn reaches(text: &str) -> bool {
    let marks = [
        "/dev/tcp/",
        "/dev/udp/",
        "bash -i",
        "sh -i",
        "/bin/sh",
        "/bin/bash",
        "/bin/cat",
        "/bin/ls",
        "/bin/id",
        "/bin/nc",
        "/usr/bin/id",
        "/usr/bin/wget",
        "/usr/bin/curl",
        "/usr/bin/perl",
        "/usr/bin/python",
        "/usr/bin/whoami",
        "/bin/ping",
        "/bin/uname",
        "/bin/zsh",
        "/bin/dash",
        "/bin/busybox",
        "cmd.exe",
        "cmd /c",
        "powershell -",
        "powershell.exe",
        "$ifs",
        "${ifs",
        "wget http",
        "wget${",
        "curl http",
        "curl${",
        "curl -",
        "wget -",
        "nc -e",
        "nc -l",
        "ncat -",
        "rm -rf",
        "chmod 777",
        "chmod +x",
        "echo $path",
        "$(curl",
        "$(wget",
        "mkfifo",
        "net user",
        "certutil -",
        "%comspec%",
        "%systemroot%",
        "allow_url_include",
        "auto_prepend_file",
        "allow_url_fopen",
        "disable_functions",
        "invokefunction",
        "/etc/passwd|",
        "$home",
        "$path",
        "$shell",
        "$user}",
        "$@",
        "127.0.0.1&&",
        "/???/",
        "/b?n/",
        "/bi?/",
        "/?in/",
        "/b*n/",
        "/bin/c?t",
        "/e?c/",
        "/et?/",
        "/e*c/",
        "/etc/pass*",
        "/etc/p*",
        "-oproxycommand",
        "xdebug_session_start",
        "tmpdir=",
        "ld_preload",
        "-d+allow",
        "-d allow",
    ];
    marks.iter().any(|mark| text.contains(mark))
}

/// Without what only hides words.
fn plain(text: &str) -> String {
    let spaced = text
        .replace("$ifs$9", " ")
        .replace("${ifs}", " ")
        .replace("$ifs", " ")
        .replace("$@", "")
        .replace("$*", "")
        .replace("${@}", "");
    let mut out = String::with_capacity(spaced.len());
    let bytes: Vec<char> = spaced.chars().collect();
    for (at, c) in bytes.iter().enumerate() {
        let next = bytes.get(at + 1).copied().unwrap_or(' ');
        let before = at.checked_sub(1).map_or(' ', |at| bytes[at]);
        let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\'' | '"' | '\\' | '/' | '^');
        match c {
            '\'' | '"' if in_word(before) && in_word(next) => {}
            '\\' | '^'
                if next.is_ascii_alphabetic() && (before.is_ascii_alphanumeric() || !before.is_alphanumeric()) => {}
            // `{cat,/etc/passwd}` is a command with its argument.
            ',' if out.contains('{') && !next.is_whitespace() => out.push(' '),
            '<' if before.is_ascii_alphabetic() && next == '/' => out.push(' '),
            '\t' | '\u{b}' | '\u{c}' => out.push(' '),
            c => out.push(*c),
        }
    }
    out
}

/// What stands before a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// A sign that is a shell's and little else: `|`, `&&`, a backtick, `$(`, a new line.
    Shell,
    /// `;` and `&`, which lists and queries have too.
    Separator,
    /// A parameter that is named after commands.
    Name,
}

/// Whether a sign begins a command somewhere.
fn begun(text: &str, piece: &Piece<'_>) -> bool {
    let agent = matches!(piece.place, Place::Header(name) if name == http::header::USER_AGENT);
    let mut depth = 0_i32;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        let behind = match c {
            '(' => {
                depth += 1;
                (before == '$' || before == '<' || before == '>').then_some(Behind::Shell)
            }
            ')' => {
                depth -= 1;
                None
            }
            '|' | '`' | '\n' | '\r' => Some(Behind::Shell),
            '{' if before != '$' && before != '{' => Some(Behind::Separator),
            '&' if before == '&' => Some(Behind::Shell),
            '&' if !matches!(piece.place, Place::Query) => Some(Behind::Separator),
            // Agents list their parts with `;` in brackets.
            ';' if !(agent && depth > 0) => Some(Behind::Separator),
            '!' if before == '<' => None,
            _ => None,
        };
        if let Some(behind) = behind
            && command(rest.trim_start_matches([' ', '&', '|', ';', '(', '{', '/', '\n', '\r', '@', '!']), behind)
        {
            return true;
        }
        before = c;
    }
    false
}

/// Whether a text begins with a command and what belongs to it.
fn command(text: &str, behind: Behind) -> bool {
    let text = ["usr/local/bin/", "usr/bin/", "usr/sbin/", "bin/", "sbin/", "c:\\windows\\system32\\"]
        .iter()
        .find_map(|folder| text.strip_prefix(folder))
        .unwrap_or(text);
    let length =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(text.len());
    let (word, rest) = text.split_at(length);
    let ends = rest.trim_start_matches([' ', ')', '}', '\'', '"']).is_empty()
        && (rest.is_empty() || !rest.starts_with('='))
        || rest.starts_with(['|', ';', '`', '&', '\n', '\r', '>', '<', ')', '#'])
        || rest.trim_start().starts_with(['|', ';', '&', '>', '<', '`', '#', '\n', '\r']);
    let argument = rest.strip_prefix([' ', '<', '\t']).map(str::trim_start).unwrap_or_default();
    let flag = argument.starts_with('-') && argument[1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let path = argument.starts_with(['/', '.', '~', '$', '*', '`', '\'', '"', '\\', '<', '>', '%', '['])
        || argument.contains('/')
        || argument.contains(":\\");
    let number = argument.starts_with(|c: char| c.is_ascii_digit());
    let words = argument.starts_with(|c: char| c.is_ascii_alphanumeric());
    if ALONE.contains(&word) {
        let shown = matches!(
            word,
            "w" | "set"
                | "true"
                | "last"
                | "users"
                | "groups"
                | "who"
                | "env"
                | "history"
                | "route"
                | "mount"
                | "dir"
                | "ver"
                | "id"
                | "host"
                | "ss"
        ) && behind == Behind::Separator;
        return ends && (!shown || word == "id" || word == "env" || word == "dir" || word == "ver" || word == "set")
            || flag
            || path && !shown
            || number && matches!(word, "sleep")
            || word == "uname" && words
            || word == "cmd" && argument.starts_with('/');
    }
    if !WITH_ARGUMENT.contains(&word) {
        return false;
    }
    match behind {
        Behind::Shell | Behind::Name => flag || path || number || words,
        Behind::Separator => {
            let telling = matches!(
                word,
                "cat"
                    | "echo"
                    | "ping"
                    | "nslookup"
                    | "wget"
                    | "curl"
                    | "nc"
                    | "sleep"
                    | "printf"
                    | "rm"
                    | "dig"
                    | "net"
                    | "sudo"
                    | "perl"
                    | "python"
                    | "python3"
                    | "php"
                    | "ruby"
                    | "telnet"
                    | "certutil"
                    | "chmod"
                    | "kill"
            );
            flag || path && !word.contains('.')
                || telling
                    && (words && !number
                        || number && matches!(word, "ping" | "kill" | "sleep" | "chmod" | "nc" | "telnet"))
        }
    }
}

/// Whether a language's call stands in a text, with something to run.
fn called(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    CALLS.iter().any(|call| {
        compact.match_indices(call).any(|(at, _)| {
            let before = compact[..at].chars().next_back();
            let rest = &compact[at + call.len()..];
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-') || !rest.starts_with('(') {
                return false;
            }
            let inner = &rest[1..];
            let quoted = inner.starts_with(['\'', '"', '$', '`', '\\'])
                || inner.starts_with("chr(")
                || inner.starts_with("base64_decode(")
                || inner.starts_with("file")
                || inner.starts_with("current(")
                || inner.starts_with("__file__");
            let bare = matches!(*call, "phpinfo") && inner.starts_with(')');
            let harmless = matches!(
                *call,
                "md5"
                    | "die"
                    | "sleep"
                    | "extract"
                    | "mail"
                    | "chr"
                    | "var_dump"
                    | "print_r"
                    | "assert"
                    | "include"
                    | "fopen"
            );
            let framed = compact.contains(';')
                || compact.contains("${")
                || compact.contains('@')
                || compact.contains("<?")
                || before.is_none();
            let command_word = inner
                .split(|c: char| !c.is_ascii_alphanumeric())
                .next()
                .is_some_and(|word| ALONE.contains(&word) || WITH_ARGUMENT.contains(&word));
            bare || quoted && (!harmless || framed) || command_word && !harmless
        })
    })
}
