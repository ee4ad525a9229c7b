//! Paths that only attackers ask for, and what they are told there (SPEC §5.6): something plausible and without value.

use super::{Sight, decode, quoted, says_nothing};
use crate::types::policy::HoneypotPath;

/// What a trap answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Status of the answer.
    pub status: u16,
    /// Its media type.
    pub content_type: &'static str,
    /// Where a redirection leads.
    pub location: Option<&'static str>,
    /// What it says.
    pub body: &'static str,
}

/// A path that is a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// It answers with a page.
    Page(Page),
    /// It scores, and is answered as any unknown path.
    Probe,
}

const HTML: &str = "text/html; charset=UTF-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const fn page(content_type: &'static str, body: &'static str) -> Page {
    Page { status: 200, content_type, location: None, body }
}

const LOGIN: Page = page(
    HTML,
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Sign in</title></head>\n<body>\n\
     <form method=\"post\" action=\"/admin/login\">\n<h1>Administration</h1>\n\
     <p><label>User <input name=\"username\" autocomplete=\"username\"></label></p>\n\
     <p><label>Password <input name=\"password\" type=\"password\"></label></p>\n\
     <p><button type=\"submit\">Sign in</button></p>\n</form>\n</body>\n</html>\n",
);

/// The traps of SPEC §5.6, each with what lies below it.
const TRAPS: &[(&str, Page)] = &[
    ("/admin", LOGIN),
    (
        "/wp-admin",
        Page {
            status: 302,
            content_type: HTML,
            location: Some("/wp-login.php?redirect_to=%2Fwp-admin%2F&reauth=1"),
            body: "",
        },
    ),
    (
        "/wp-login.php",
        page(
            HTML,
            "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><meta charset=\"UTF-8\"><title>Log In &lsaquo; Site &#8212; WordPress</title></head>\n\
         <body class=\"login login-action-login wp-core-ui\">\n<div id=\"login\">\n\
         <form name=\"loginform\" id=\"loginform\" action=\"/wp-login.php\" method=\"post\">\n\
         <p><label for=\"user_login\">Username or Email Address</label><input type=\"text\" name=\"log\" id=\"user_login\"></p>\n\
         <p><label for=\"user_pass\">Password</label><input type=\"password\" name=\"pwd\" id=\"user_pass\"></p>\n\
         <p class=\"submit\"><input type=\"submit\" name=\"wp-submit\" id=\"wp-submit\" value=\"Log In\"></p>\n\
         </form>\n</div>\n</body>\n</html>\n",
        ),
    ),
    (
        "/phpmyadmin",
        page(
            HTML,
            "<!DOCTYPE HTML>\n<html lang=\"en\" dir=\"ltr\">\n<head><meta charset=\"utf-8\"><title>phpMyAdmin</title></head>\n\
         <body id=\"loginform\">\n<h1>Welcome to phpMyAdmin</h1>\n<form method=\"post\" action=\"/phpmyadmin/index.php\" name=\"login_form\">\n\
         <p><label>Username: <input type=\"text\" name=\"pma_username\"></label></p>\n\
         <p><label>Password: <input type=\"password\" name=\"pma_password\"></label></p>\n\
         <p><input type=\"submit\" value=\"Log in\"></p>\n</form>\n</body>\n</html>\n",
        ),
    ),
    (
        "/api/v1/users",
        page(
            JSON,
            "{\"data\":[{\"id\":1,\"username\":\"admin\",\"role\":\"administrator\",\"active\":true}],\"page\":1,\"per_page\":20,\"total\":1}",
        ),
    ),
    (
        "/.env",
        page(
            TEXT,
            "APP_NAME=app\nAPP_ENV=production\nAPP_DEBUG=false\nAPP_URL=http://localhost\n\nLOG_CHANNEL=stack\nLOG_LEVEL=warning\n\n\
         CACHE_DRIVER=file\nQUEUE_CONNECTION=sync\nSESSION_DRIVER=file\nSESSION_LIFETIME=120\n",
        ),
    ),
    (
        "/.git/config",
        page(
            TEXT,
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
         [branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n",
        ),
    ),
];

/// Beginnings of paths that belong to other software and are asked for by those who look for its weaknesses.
const PROBES: &[&str] = &[
    "/xmlrpc.php",
    "/wp-",
    "/wordpress",
    "/actuator",
    "/server-status",
    "/server-info",
    "/cgi-bin",
    "/vendor/phpunit",
    "/solr/",
    "/manager/html",
    "/hnap1",
    "/boaform",
    "/owa/",
    "/autodiscover",
    "/_ignition",
    "/telescope",
    "/jmx-console",
    "/invoker/",
    "/web-console",
    "/axis2",
    "/cfide",
    "/_vti_",
    "/pma",
    "/myadmin",
    "/mysqladmin",
    "/dbadmin",
    "/adminer",
    "/administrator",
    "/jenkins",
    "/struts",
    "/druid/",
    "/nacos",
    "/geoserver",
    "/gponform",
    "/remote/fgt_lang",
    "/remote/login",
    "/dana-na",
    "/+cscoe+",
    "/ecp/",
    "/ews/",
    "/aspnet_client",
    "/phpinfo",
    "/cpanel",
    "/webdav",
    "/tmui/",
    "/mgmt/tm",
    "/nice ports",
    "/nmaplowercheck",
    "/evox/about",
    "/hudson",
    "/.vscode",
    "/.aws",
    "/.ssh",
    "/.docker",
    "/.kube",
    "/.svn",
    "/.hg",
    "/.git",
    "/v2/_catalog",
    "/_cat/",
    "/elasticsearch",
    "/kibana",
    "/adminpanel",
    "/phpmy",
    "/goform",
    "/cgi/",
    "/currentsetting.htm",
    "/device.rsp",
    "/system_api",
    "/api/jsonws",
    "/crossdomain.xml",
    "/clientaccesspolicy.xml",
    "/level/15",
    "/luci",
];

/// Ends of names that this server has no use for: programs of other servers, copies and dumps.
const ENDS: &[&str] = &[
    ".php", ".php3", ".php5", ".phtml", ".asp", ".aspx", ".ashx", ".asmx", ".jsp", ".jspx", ".cgi", ".do", ".action",
    ".cfm", ".pl", ".bak", ".old", ".swp", ".orig", ".sql", ".sql.gz", ".tar.gz", ".tgz", ".rar", ".dump", ".mdb",
    ".sqlite", ".php~", ".pem", ".key", ".pfx", ".axd",
];

/// The trap that a path is.
pub(super) fn trap(path: &str, own: &[HoneypotPath]) -> Option<Trap> {
    // Real routes are never traps, and cost nothing here.
    if ["/v1/", "/engine/"].iter().any(|real| path.starts_with(real)) {
        return None;
    }
    let decoded =
        path.contains('%').then(|| decode::Views::of(path.as_bytes(), decode::Plus::Plus).final_text().to_owned());
    let path = decoded.unwrap_or_else(|| path.to_ascii_lowercase());
    let lies_in = |trap: &str| path.strip_prefix(trap).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some((_, page)) = TRAPS.iter().find(|(trap, _)| lies_in(trap)) {
        return Some(Trap::Page(*page));
    }
    if own.iter().any(|trap| lies_in(&trap.as_str().trim_end_matches('/').to_ascii_lowercase())) {
        return Some(Trap::Page(by_ending(&path)));
    }
    if path.starts_with("/.well-known/") {
        return None;
    }
    let named = PROBES.iter().any(|probe| path.starts_with(probe));
    let ends = ENDS.iter().any(|end| path.ends_with(end));
    (named || ends).then_some(Trap::Probe)
}

/// A page for a path that the operator chose, by what its ending promises.
fn by_ending(path: &str) -> Page {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("json") => page(JSON, "{\"status\":\"ok\",\"data\":[]}"),
        Some("txt" | "log" | "env" | "ini" | "conf" | "cfg" | "yml" | "yaml" | "toml" | "sql" | "bak") => {
            page(TEXT, "# empty\n")
        }
        Some("xml") => page("application/xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<root/>\n"),
        _ if path.starts_with("/api") => page(JSON, "{\"data\":[],\"total\":0}"),
        _ => LOGIN,
    }
}

pub(super) fn look(sight: &Sight<'_>) -> Option<String> {
    let path = sight.head.uri.path();
    if says_nothing(sight.head) {
        return None;
    }
    trap(path, sight.traps).map(|_| format!("path \"{}\"", quoted(path)))
}
