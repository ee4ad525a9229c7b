//! User agents and headers by which scanners name themselves (SPEC §5.4). curl and HTTP libraries are none: they are what
//! clients of an API are written with.

use http::header::USER_AGENT;

use super::head::slot;
use super::{Sight, quoted};

/// Programs whose purpose is to look for weaknesses, by the name that they send unless told otherwise. Words of the agent
/// are compared whole, so that `nmap` is not found in a word that holds it.
const NAMES: &[&str] = &[
    "sqlmap",
    "nikto",
    "nmap",
    "masscan",
    "zgrab",
    "zmap",
    "nessus",
    "openvas",
    "acunetix",
    "netsparker",
    "invicti",
    "wpscan",
    "dirbuster",
    "gobuster",
    "feroxbuster",
    "ffuf",
    "wfuzz",
    "nuclei",
    "arachni",
    "w3af",
    "burp",
    "burpsuite",
    "burpcollaborator",
    "zaproxy",
    "hydra",
    "metasploit",
    "msfconsole",
    "skipfish",
    "whatweb",
    "jaeles",
    "xray",
    "censys",
    "censysinspect",
    "shodan",
    "dirsearch",
    "dirb",
    "commix",
    "joomscan",
    "joomlascan",
    "cmsmap",
    "cmseek",
    "droopescan",
    "havij",
    "pangolin",
    "sqlninja",
    "bsqlbf",
    "sqlsus",
    "fimap",
    "morfeus",
    "zmeu",
    "muieblackcat",
    "l9explore",
    "l9tcpid",
    "leakix",
    "expanse",
    "netsystemsresearch",
    "interactsh",
    "detectify",
    "qualys",
    "insightappsec",
    "appscan",
    "webinspect",
    "paros",
    "webshag",
    "grendel",
    "wapiti",
    "katana",
    "naabu",
    "dalfox",
    "xsser",
    "xsstrike",
    "tplmap",
    "nosqlmap",
    "medusa",
    "patator",
    "brutus",
    "crackmapexec",
    "mirai",
    "mozi",
    "hakai",
    "kinsing",
    "gh0st",
    "sysscan",
    "jorgee",
    "jexboss",
    "gitleaks",
    "trufflehog",
    "fierce",
    "amass",
    "subfinder",
    "httprobe",
    "aquatone",
    "eyewitness",
    "wafw00f",
    "sslyze",
    "testssl",
    "nosey",
    "vega",
    "uniscan",
    "golismero",
    "cgichk",
    "n-stealth",
    "nstealth",
    "whisker",
    "proxystrike",
    "ratproxy",
    "webscarab",
    "syhunt",
    "bbscan",
    "pocsuite",
    "pocsuite3",
    "fscan",
    "goby",
    "afrog",
    "kscan",
    "ehole",
    "dirmap",
    "yakit",
    "awvs",
    "absinthe",
    "datacha0s",
    "core-project",
    "toata",
    "wprecon",
    "internetmeasurement",
    "internet-measurement",
    "getodin",
    "paloaltonetworks",
    "stretchoid",
    "project25499",
    "criminalip",
    "onyphe",
    "binaryedge",
    "fofa",
    "zoomeye",
    "ahrefs-scan",
    "securitytrails",
    "rapid7",
    "tenable",
    "probely",
    "intruder",
    "hexstrike",
    "sn1per",
    "osmedeus",
    "rustscan",
    "kiterunner",
    "arjun",
    "crlfuzz",
    "ghauri",
    "sstimap",
    "corsy",
    "smuggler",
    "cariddi",
    "waybackurls",
    "gospider",
    "hakrawler",
    "log4j-scan",
    "struts-pwn",
    "davtest",
    "cadaver",
    "thc-hydra",
    "ncrack",
    "gowitness",
    "blackwidow",
    "vulnx",
    "webslayer",
    "scrawlr",
    "springenwerk",
    "mysqloit",
    "sqlpowerinjector",
    "dotdotpwn",
    "bilbo",
    "brutespray",
    "odin",
    "httpx-toolkit",
    "tlsx",
    "nmap-nse",
    "black",
    "prtg-scan",
    "sitelockspider",
    "nsauditor",
    "advanced-ip-scanner",
    "s3scanner",
    "netcraft",
    "security.txt-scan",
    "masscan-ng",
];

/// Beginnings or phrases where the name is no single word.
const PHRASES: &[&str] = &[
    "nmap scripting engine",
    "owasp zap",
    "projectdiscovery",
    "open-source project (github.com/",
    "fuzz faster u fool",
    "mozilla/5.00 (nikto",
    "(hydra)",
    "w3af.org",
    "sqlmap.org",
    "security scan",
    "vulnerability scan",
    "port scan",
    "web scan",
    "zgrab/",
    "python-nmap",
    "hello, world",
    "mozilla/4.0 (hydra",
    "evilscan",
    "\u{2014}scan",
    "burp collaborator",
    "httpx - open",
    "palo alto networks",
    "internet wide scan",
    "research scan",
    "scan.lol",
    "research.scan",
    "nuclei - open",
    "user-agent: ",
    "openvas",
    "nessus",
    "acunetix",
    "sqlmap",
    "dirbuster",
    "nikto",
    "masscan",
    "webinspect",
    "netsparker",
    "wpscan",
];

/// Words that say what the program is for, whatever its name.
const PURPOSES: &[&str] = &[
    "scanner",
    "vulnscan",
    "vuln-scanner",
    "exploit",
    "pentest",
    "pentester",
    "fuzzer",
    "bruteforce",
    "bruteforcer",
    "dirbrute",
    "webshell",
    "sqli",
    "xss-scanner",
    "botnet",
    "portscanner",
    "vulnerability",
];

/// Beginnings of every name, phrase and purpose: an agent that holds none of them is no scanner's, and most hold none.
const FILTER: [u64; 1024] = {
    let mut filter = [0; 1024];
    let lists = [NAMES, PHRASES, PURPOSES, ENDINGS];
    let mut list = 0;
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            let slot = slot(beginning(lists[list][at].as_bytes()));
            filter[slot / 64] |= 1 << (slot % 64);
            at += 1;
        }
        list += 1;
    }
    filter
};

/// How a name ends that says what its program is for.
const ENDINGS: &[&str] = &["-scan", "-scanner", "l9scan"];

const fn beginning(text: &[u8]) -> u32 {
    u32::from_be_bytes([text[0], text[1], text[2], text[3]])
}

/// Headers that scanners put into their requests.
fn is_mark(name: &str) -> bool {
    name.starts_with("acunetix-")
        || matches!(
            name,
            "x-scanner"
                | "x-scan-memo"
                | "x-wipp"
                | "x-wvs-id"
                | "x-ratproxy-loop"
                | "x-nikto"
                | "x-sqlmap"
                | "x-nuclei"
                | "x-burp"
                | "x-request-memo"
                | "x-netsparker"
                | "x-qualys-scan"
                | "x-arachni-scan-seed"
        )
}

pub(super) fn look(sight: &Sight<'_>) -> Option<String> {
    if let Some(name) = sight.head.headers.keys().find(|name| is_mark(name.as_str())) {
        return Some(format!("header {name}"));
    }
    let agent = sight.head.headers.get(USER_AGENT)?;
    is_scanner(agent.as_bytes())
        .then(|| format!("user agent \"{}\"", quoted(&String::from_utf8_lossy(agent.as_bytes()))))
}

/// Whether some name may begin in an agent.
fn may_hold_a_name(agent: &[u8]) -> bool {
    let mut gram = 0_u32;
    agent.iter().any(|byte| {
        gram = gram << 8 | u32::from(byte.to_ascii_lowercase());
        let slot = slot(gram);
        FILTER[slot / 64] >> (slot % 64) & 1 == 1
            && [NAMES, PHRASES, PURPOSES, ENDINGS].into_iter().flatten().any(|name| beginning(name.as_bytes()) == gram)
    })
}

fn is_scanner(agent: &[u8]) -> bool {
    // An agent of ordinary length; the rest of a longer one is what was injected into it, which other rules see.
    let agent = &agent[..agent.len().min(512)];
    if !may_hold_a_name(agent) {
        return false;
    }
    let agent = String::from_utf8_lossy(agent).to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    agent.split(|c: char| !is_name(c)).filter(|word| !word.is_empty()).any(|word| {
        let word = word.trim_matches(['.', '-', '_']);
        NAMES.contains(&word)
            || PURPOSES.contains(&word)
            || word.ends_with("-scan")
            || word.ends_with("-scanner")
            || word == "l9scan"
    }) || PHRASES.iter().any(|phrase| agent.contains(phrase))
}
