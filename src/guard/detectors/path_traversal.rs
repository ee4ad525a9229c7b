//! Paths that climb out of their folder, files of the system on Unix and Windows, and wrappers that read files where a
//! name is expected (SPEC §5.4). In path, query, cookies and headers.

use super::head::{Piece, Place};

/// The first shape that a piece holds.
pub(super) fn look(piece: &Piece<'_>) -> Option<&'static str> {
    piece.views.each().find_map(|text| in_text(text, piece.place))
}

fn in_text(text: &str, place: Place<'_>) -> Option<&'static str> {
    let text = text.replace("0x2e", ".").replace("0x2f", "/").replace("0x5c", "\\");
    // Programs that show pages of their own send `Origin: file://`.
    let own_page =
        matches!(place, Place::Header(name) if name == http::header::ORIGIN || name == http::header::REFERER);
    if let Some(shape) = wrapper(&text).filter(|_| !(own_page && text.starts_with("file:"))) {
        return Some(shape);
    }
    let slashes = text.replace('\\', "/");
    let climbs = climbs(&slashes, place);
    climbs.then_some("climbs").or_else(|| system_file(&slashes, &text, place))
}

/// Whether the path leaves the folder that it begins in. In the request's own path any `..` does: a client writes none.
fn climbs(text: &str, place: Place<'_>) -> bool {
    if !text.contains("..") {
        return false;
    }
    // What stands before the path: `file=`, `http://host`.
    let start = text.find("://").map_or(0, |at| text[at + 3..].find('/').map_or(text.len(), |slash| at + 3 + slash));
    let mut depth = 0_i32;
    for segment in text[start..].split('/') {
        // `..;/` is a path parameter for servlet containers; `....//` is `../` once a filter took out the inner one.
        let name = segment.split(';').next().unwrap_or_default();
        let bare = name.trim_matches(|c: char| c == '"' || c == '\'' || c.is_whitespace() || c == '=');
        let up = bare == ".." || bare.len() > 2 && bare.len() < 8 && bare.bytes().all(|byte| byte == b'.');
        if up || name.ends_with("=..") || name.ends_with(" ..") || name.ends_with(":..") {
            if matches!(place, Place::Path) {
                return text.contains('/');
            }
            depth -= 1;
            if depth < 0 && (text.contains("../") || text.contains("/..")) {
                return true;
            }
        } else if !segment.is_empty() && segment != "." {
            depth += 1;
        }
    }
    false
}

/// Schemes that open files or other services where a name is expected.
const WRAPPERS: &[&str] = &[
    "php://",
    "file:/",
    "zip://",
    "phar://",
    "glob://",
    "expect://",
    "data://",
    "compress.zlib://",
    "compress.bzip2://",
    "ogg://",
    "rar://",
    "ssh2://",
    "gopher://",
    "dict://",
    "netdoc:",
    "jar:http",
    "jar:file",
    "tftp://",
    "ldap://",
    "ldaps://",
    "sftp://",
    "view-source:",
    "local_file:",
    "\\\\?\\",
    "\\\\.\\",
];

fn wrapper(text: &str) -> Option<&'static str> {
    let begins = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric())
    };
    // A look-up (`${jndi:ldap://…}`) is another rule's.
    let look_up = text.contains("${");
    let opens = |wrapper: &&str| !(look_up && wrapper.starts_with("ldap")) && text.find(*wrapper).is_some_and(begins);
    if WRAPPERS.iter().any(opens) {
        return Some("wrapper");
    }
    // A share of another machine, and addresses where clouds keep their secrets.
    let share = text
        .strip_prefix("\\\\")
        .is_some_and(|rest| rest.contains('\\') && rest.starts_with(|c: char| c.is_alphanumeric()));
    let cloud = [
        "169.254.169.254",
        "metadata.google.internal",
        "100.100.100.200",
        "[fd00:ec2::254]",
        "/computemetadata/v1",
        "169.254.170.2",
    ];
    let in_url = text.contains("://") || text.starts_with("169.254.169.254");
    if share {
        Some("share")
    } else if in_url && cloud.iter().any(|address| text.contains(address)) {
        Some("metadata address")
    } else {
        None
    }
}

/// Folders at the root whose files are nobody's business.
const ROOTS: &[&str] = &["etc", "proc", "root", "boot", "winnt", "windows", "sys"];
/// Folders and files that are private wherever they lie.
const PRIVATE: &[&str] = &[
    ".ssh",
    ".aws",
    ".gnupg",
    ".kube",
    ".docker",
    ".git",
    ".svn",
    ".hg",
    ".bzr",
    ".htaccess",
    ".htpasswd",
    ".bash_history",
    ".bashrc",
    ".mysql_history",
    ".psql_history",
    ".zsh_history",
    ".netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".ds_store",
    ".idea",
    ".vscode",
    ".dockerenv",
    ".my.cnf",
    ".profile",
    ".dockercfg",
    ".git-credentials",
    ".gitconfig",
    ".env",
    ".subversion",
    ".history",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "authorized_keys",
    "web-inf",
    "meta-inf",
    "boot.ini",
    "win.ini",
    "system.ini",
    "ntuser.dat",
    "web.config",
    "wp-config.php",
    "system32",
    "inetpub",
    "passwd",
    "shadow",
    "config.inc.php",
    "settings.php",
    "localsettings.php",
    "php.ini",
    "my.ini",
    "httpd.conf",
    "apache2.conf",
    "nginx.conf",
    "sam",
    "unattend.xml",
    "sysprep.inf",
    "applicationhost.config",
    "appsettings.json",
    "database.yml",
    "secrets.yml",
    "credentials.json",
    "tomcat-users.xml",
    "global.asa",
];

fn system_file(slashes: &str, text: &str, place: Place<'_>) -> Option<&'static str> {
    let mut segments = slashes
        .split(['/', '?', '=', ',', ' ', '"', '\'', '|', ';', '(', ')', '<', '>', '{', '}'])
        .filter(|s| !s.is_empty())
        .peekable();
    let names_path = slashes.contains('/');
    let rooted = slashes.starts_with('/')
        || text.contains(":\\")
        || text.contains(":/")
        || text.contains("=/")
        || text.contains("'/")
        || text.contains("\"/")
        || text.contains(" /");
    let mut first = true;
    while let Some(segment) = segments.next() {
        let name = segment.trim_end_matches(|c: char| c == '.' || c == ':' || c.is_whitespace());
        let drive = name.len() == 1 && segment.ends_with(':');
        let followed = segments.peek().is_some();
        let known_leaf = LEAVES.contains(&name);
        if ROOTS.contains(&name) && followed && (first && rooted || known_root_file(name, segments.peek())) {
            return Some("system file");
        }
        let in_path = matches!(place, Place::Path);
        let private = PRIVATE.contains(&name)
            && (in_path || names_path && !PLAIN.contains(&name) || text == name && !PLAIN.contains(&name));
        if private || known_leaf && (names_path || in_path) {
            return Some("private file");
        }
        if name.starts_with(".env.") && (in_path || names_path)
            || name == "var" && segments.peek().is_some_and(|next| matches!(*next, "log" | "www")) && rooted
        {
            return Some("private file");
        }
        first = first && (drive || is_host(segment, text));
    }
    None
}

/// The host of a URL, or its scheme, before the path's first folder.
fn is_host(segment: &str, text: &str) -> bool {
    segment.ends_with(':') || text.contains(&format!("://{segment}"))
}

/// Words that are ordinary outside of a request's own path.
const PLAIN: &[&str] = &[
    "sam",
    "shadow",
    "passwd",
    "settings.php",
    "credentials.json",
    "appsettings.json",
    "nginx.conf",
    ".git",
    ".env",
    ".vscode",
    ".idea",
    ".profile",
    ".bashrc",
    ".gitconfig",
    ".history",
    "php.ini",
];
/// Files that give a path away whatever the folder.
const LEAVES: &[&str] = &[
    "win.ini",
    "boot.ini",
    "system.ini",
    "id_rsa",
    "id_dsa",
    "id_ed25519",
    "wp-config.php",
    "web.config",
    "cmd.exe",
    "ntuser.dat",
    "hosts.deny",
    "master.passwd",
    "sudoers",
];

fn known_root_file(root: &str, next: Option<&&str>) -> bool {
    let Some(next) = next else { return false };
    match root {
        "etc" => [
            "passwd",
            "shadow",
            "hosts",
            "group",
            "issue",
            "hostname",
            "motd",
            "fstab",
            "sudoers",
            "crontab",
            "ssh",
            "apache2",
            "nginx",
            "mysql",
            "resolv.conf",
            "os-release",
            "profile",
            "gshadow",
            "master.passwd",
            "init.d",
            "httpd",
            "redhat-release",
            "environment",
            "network",
        ]
        .contains(next),
        "proc" => {
            *next == "self"
                || ["version", "cmdline", "cpuinfo", "mounts", "environ", "net", "sched_debug", "meminfo"]
                    .contains(next)
                || next.bytes().all(|b| b.is_ascii_digit())
        }
        "windows" | "winnt" => {
            ["win.ini", "system32", "system.ini", "repair", "debug", "panther", "sysnative", "php.ini"].contains(next)
        }
        _ => false,
    }
}
