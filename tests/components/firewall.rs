//! The firewall on real packets: rules applied, confirmed and taken back in network namespaces of their own, over a real SSH
//! session, with every backend that runs there. The rulesets are compared byte for byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::home::{Home, PATIENCE, wait_until};
use crate::namespace::Namespace;

/// Where the operator and the allowed clients come from, and somebody else, in both families.
const ALLOWED: [&str; 2] = ["10.77.0.2", "fd77::2"];
const OTHER: [&str; 2] = ["10.77.0.3", "fd77::3"];
/// The guarded machine.
const MACHINE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const PORT: u16 = 8484;

/// Connects once from an address to another and says whether it was let in.
const PROBE: &str = r"
import socket, sys
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    socket.create_connection((target, port), timeout=1.5, source_address=(source, 0)).close()
    print('open')
except TimeoutError:
    print('dropped')
except OSError as error:
    print(error)
";

/// Connects again and again until stdin ends, and tells how that went.
const KNOCKER: &str = r"
import json, select, socket, sys
source, target = sys.argv[1], sys.argv[2]
tries = failed = 0
print('knocking', flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    tries += 1
    try:
        socket.create_connection((target, 22), timeout=10, source_address=(source, 0)).close()
    except OSError:
        failed += 1
print(json.dumps({'tries': tries, 'failed': failed}))
";

/// Counts the operator's packets to SSH before any firewall's rules see them, and those that all of them let through. Both hooks
/// run in one pass of the kernel, so a packet between them was dropped by a rule, however busy the machine is.
const TURNSTILES: &str = "table inet turnstiles {\n chain before { type filter hook prerouting priority -160; \
    ip saddr 10.77.0.2 tcp dport 22 counter; }\n chain after { type filter hook input priority 300; \
    ip saddr 10.77.0.2 tcp dport 22 counter; }\n}\n";

const PYTHON: &str = "/usr/bin/python3";

/// A machine behind a firewall, and another one that knocks.
struct Stage {
    near: Namespace,
    far: Namespace,
    home: Home,
    folder: TempDir,
    /// What is put over the machine's own files: for these programs only.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Stage {
    fn new() -> Self {
        let (near, far) = Namespace::joined();
        for (namespace, end, addresses) in [
            (&near, "veth-near", &["fd77::1/64"][..]),
            (&far, "veth-far", &["fd77::2/64", "fd77::3/64", "10.77.0.3/24"]),
        ] {
            for address in addresses {
                let words = ["address", "add", address, "dev", end];
                let without_wait: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                namespace.run("ip", &[&words[..], without_wait].concat());
            }
        }
        far.run("ip", &["link", "set", "lo", "up"]);
        // ufw's own folder, for this namespace only, and for whatever starts in it from here on (ip-netns(8)).
        let etc = PathBuf::from(format!("/etc/netns/{}", near.name));
        std::fs::create_dir_all(&etc).expect("a folder");
        let copied = Command::new("cp").args(["-a", "/etc/ufw"]).arg(etc.join("ufw")).status().expect("runs cp");
        assert!(copied.success(), "ufw is missing: run scripts/install-test-components.sh");
        let folder = tempfile::Builder::new().prefix("flm-fw-").tempdir_in("/tmp").expect("a folder");
        let mut stage = Self { near, far, home: Home::new(), folder, mounts: Vec::new() };
        let turnstiles = stage.path("turnstiles.nft");
        std::fs::write(&turnstiles, TURNSTILES).expect("writes");
        stage.near.run("nft", &["-f", turnstiles.to_str().expect("UTF-8")]);
        stage.serve_ssh();
        for network in [format!("{}/32", ALLOWED[0]), format!("{}/128", ALLOWED[1])] {
            stage.home.answer(&["security", "ip-allowlist", "add", &network]);
        }
        stage
    }

    /// Lets FLM listen on every address of the machine.
    fn listen(&self) {
        let port = PORT.to_string();
        let start = ["proxy", "start", "--port", &port, "--bind", "::", "--insecure-plain-http"];
        self.answer(&start);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many of the operator's packets came, and how many of them every rule let through.
    #[track_caller]
    fn turnstiles(&self) -> [u64; 2] {
        // In this order a packet that comes meanwhile makes them differ, and never alike.
        let [passed, came] = ["after", "before"].map(|chain| {
            let told = self.near.run("nft", &["-j", "list", "chain", "inet", "turnstiles", chain]);
            let told: Value = serde_json::from_str(&told).expect("JSON");
            let rule = told["nftables"].as_array().and_then(|listed| listed.last()).expect("a rule");
            let counter = rule["rule"]["expr"].as_array().and_then(|parts| parts.last()).expect("a counter");
            counter["counter"]["packets"].as_u64().unwrap_or_else(|| panic!("{rule}"))
        });
        [came, passed]
    }

    /// OpenSSH's server, which lets in whoever has the key of this test.
    fn serve_ssh(&mut self) {
        let key = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        for name in ["host", "operator"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key(name)]).status();
            assert!(made.expect("ssh-keygen: run scripts/install-test-components.sh").success());
        }
        let config = format!(
            "Port 22\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n\
             PermitUserEnvironment no\nUseDNS no\nMaxStartups 1000\nPerSourceMaxStartups none\n",
            key("host"),
            key("operator")
        );
        std::fs::write(self.path("sshd_config"), config).expect("writes");
        std::fs::create_dir_all("/run/sshd").expect("the folder that sshd wants");
        let config = key("sshd_config");
        self.near.start("/usr/sbin/sshd", &["-D", "-e", "-f", &config]);
        wait_until("sshd listens", PATIENCE, || self.knock(ALLOWED[0], MACHINE[0], 22) == "open");
    }

    /// `ssh` to the machine, from the operator's place.
    fn ssh(&self, options: &[&str], words: &[&str]) -> Command {
        let mut ssh = Command::new("/usr/bin/ssh");
        let key = self.path("operator");
        ssh.args(["-q", "-i", key.to_str().expect("UTF-8"), "-b", ALLOWED[0], "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]);
        ssh.args(options).arg(format!("root@{}", MACHINE[0])).args(words);
        self.far.inside(&ssh)
    }

    /// The words of a command of FLM, for a shell.
    fn words(&self, arguments: &[&str]) -> String {
        let command = self.with_mounts(&self.home.flm(arguments));
        let variables = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
        let variables = variables.map(|(name, value)| format!("{name}={value}"));
        let program = command.get_program().to_str().map(str::to_owned);
        let rest = command.get_args().filter_map(|word| word.to_str()).map(str::to_owned);
        let quoted = |word: String| format!("'{}'", word.replace('\'', r"'\''"));
        ["env".to_owned()]
            .into_iter()
            .chain(variables)
            .chain(program)
            .chain(rest)
            .map(quoted)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The same command with this stage's files over the machine's own.
    fn with_mounts(&self, command: &Command) -> Command {
        if self.mounts.is_empty() {
            let mut same = Command::new(command.get_program());
            same.args(command.get_args());
            same.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            return same;
        }
        let mount =
            |(from, over): &(PathBuf, PathBuf)| format!("mount --bind {} {} && ", from.display(), over.display());
        let mounts = self.mounts.iter().map(mount).collect::<Vec<_>>().concat();
        let mut wrapped = Command::new("/usr/bin/unshare");
        wrapped.args(["--mount", "sh", "-c", &format!("{mounts}exec \"$@\""), "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped
    }

    /// Starts a program on the machine that runs as long as it.
    fn start(&mut self, command: &Command) {
        let command = self.with_mounts(command);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().expect("UTF-8").to_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.near.start(command.get_program().to_str().expect("UTF-8"), &words);
    }

    /// What a program on the machine says; `None` when it fails.
    fn run_if(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = self.near.inside(&self.with_mounts(Command::new(program).args(arguments))).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs FLM on the machine; answers whether it succeeded and its JSON.
    #[track_caller]
    fn flm(&self, arguments: &[&str]) -> (bool, Value) {
        let mut command = self.home.flm(arguments);
        command.args(["--format", "json"]);
        let output = self.near.inside(&self.with_mounts(&command)).output().expect("runs flm");
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = serde_json::from_str(text.trim())
            .unwrap_or_else(|error| panic!("{error} in {text:?} {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), answer)
    }

    #[track_caller]
    fn answer(&self, arguments: &[&str]) -> Value {
        let (succeeded, answer) = self.flm(arguments);
        assert!(succeeded, "flm {arguments:?}: {answer}");
        answer["data"].clone()
    }

    /// Whether a connection is let in.
    fn knock(&self, from: &str, to: &str, port: u16) -> String {
        self.far.run(PYTHON, &["-c", PROBE, from, to, &port.to_string()]).trim().to_owned()
    }

    #[track_caller]
    fn assert_doors(&self, others: &str) {
        for family in [0, 1] {
            assert_eq!(self.knock(ALLOWED[family], MACHINE[family], PORT), "open", "{}", ALLOWED[family]);
            assert_eq!(self.knock(OTHER[family], MACHINE[family], PORT), others, "{}", OTHER[family]);
        }
    }

    fn phase(&self) -> String {
        self.answer(&["firewall", "status"])["last"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// The process that watches over a pending change.
    fn watchdog(&self) -> u32 {
        let here = self.near.run("readlink", &["/proc/self/ns/net"]);
        let processes = std::fs::read_dir("/proc").expect("lists").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let watches = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let network = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains("__firewall-watch") && network.to_str() == Some(here.trim())
        };
        pids.find(watches).expect("a watchdog")
    }

    fn folder_of_records(&self) -> String {
        self.home.path().join("firewall").to_str().expect("UTF-8").to_owned()
    }
}

/// Ends what listens in the namespaces before they go.
impl Drop for Stage {
    fn drop(&mut self) {
        let stop = self.home.flm(&["proxy", "stop", "--all"]);
        drop(self.near.inside(&stop).stdout(Stdio::null()).stderr(Stdio::null()).status());
        let _none = std::fs::remove_dir_all(format!("/etc/netns/{}", self.near.name));
    }
}

/// Something that runs while rules change, and talks over pipes.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn say(&mut self, text: &str) {
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).expect("writes");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("reads");
        line.trim_end().to_owned()
    }

    /// Reads until a text has come.
    fn read_until(&mut self, wanted: &str) -> String {
        let (mut text, mut byte) = (Vec::new(), [0_u8]);
        while !String::from_utf8_lossy(&text).contains(wanted) {
            let count = self.stdout.read(&mut byte).expect("reads");
            assert!(count == 1, "no {wanted:?} in {:?}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Ends its input and answers what it said last.
    fn finish(mut self) -> String {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("reads");
        self.child.wait().expect("ends");
        rest
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An SSH session that echoes, and somebody who opens new ones all the time.
struct Operator {
    session: Talk,
    knocker: Talk,
}

impl Operator {
    fn new(stage: &Stage) -> Self {
        let mut session = Talk::start(stage.ssh(&[], &["cat"]));
        session.say("here\n");
        assert_eq!(session.line(), "here");
        let mut knocker = Command::new(PYTHON);
        knocker.args(["-c", KNOCKER, ALLOWED[0], MACHINE[0]]);
        let mut knocker = Talk::start(stage.far.inside(&knocker));
        assert_eq!(knocker.line(), "knocking");
        Self { session, knocker }
    }

    /// The session still lives, new ones got in at any time, and no rule ever dropped a packet of theirs.
    #[track_caller]
    fn was_never_shut_out(mut self, stage: &Stage) {
        self.session.say("still here\n");
        assert_eq!(self.session.line(), "still here");
        let told: Value = serde_json::from_str(self.knocker.finish().trim()).expect("JSON");
        assert!(told["tries"].as_u64().is_some_and(|tries| tries > 20), "{told}");
        assert_eq!(told["failed"], 0, "{told}");
        // Last words of closed connections may still be on their way; what a rule dropped is missing for good.
        wait_until(&format!("every packet passed, of {told}"), PATIENCE, || {
            let [came, passed] = stage.turnstiles();
            came > 20 && came == passed
        });
    }
}

/// A firewall as somebody has it before FLM comes.
struct Machine {
    backend: &'static str,
    /// Sets it up.
    prepare: fn(&mut Stage),
    /// Its rules, byte for byte, without what counts by itself.
    rules: fn(&Stage) -> String,
}

/// Closed but for SSH and the ports that FLM listens on, with a set and a counter of its own.
const SOMEBODYS_TABLE: &str = "table inet mine {\n set kept { type ipv4_addr; elements = { 192.0.2.1 } }\n chain input {\n \
    type filter hook input priority filter; policy drop;\n iif lo accept\n ct state established,related accept\n \
    meta l4proto { icmp, ipv6-icmp } accept\n tcp dport { 22, 8484 } accept\n ip saddr @kept accept\n }\n}\n";

const NFTABLES: Machine = Machine {
    backend: "nftables",
    prepare: |stage| {
        let file = stage.path("mine.nft");
        std::fs::write(&file, SOMEBODYS_TABLE).expect("writes");
        stage.near.run("nft", &["-f", file.to_str().expect("UTF-8")]);
    },
    rules: |stage| stage.near.run("nft", &["--stateless", "list", "ruleset"]),
};

const IPTABLES: Machine = Machine {
    backend: "iptables",
    prepare: |stage| {
        for (program, icmp) in [("iptables", "icmp"), ("ip6tables", "icmpv6")] {
            for rule in [
                &["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"][..],
                &["-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
                &["-A", "INPUT", "-p", icmp, "-j", "ACCEPT"],
                &["-A", "INPUT", "-p", "tcp", "-m", "multiport", "--dports", "22,8484", "-j", "ACCEPT"],
                &["-P", "INPUT", "DROP"],
            ] {
                stage.run_if(program, rule).unwrap_or_else(|| panic!("{program} {rule:?}"));
            }
        }
    },
    rules: |stage| {
        let saves = ["iptables-save", "ip6tables-save"].map(|program| stage.run_if(program, &[]).expect(program));
        // Its comments hold the time, and policies count packets.
        let lines = saves.iter().flat_map(|save| save.lines()).filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n").collect()
    },
};

/// In place of the programs over nftables, whatever name they are called by: those that speak to the kernel's older interface.
const OLDER_IPTABLES: &str =
    "#!/bin/sh\nname=${0##*/}\nfamily=${name%%-*}\nexec /usr/sbin/$family-legacy${name#$family} \"$@\"\n";

const LEGACY_IPTABLES: Machine = Machine {
    backend: "iptables",
    prepare: |stage| {
        let script = stage.path("older-iptables");
        std::fs::write(&script, OLDER_IPTABLES).expect("writes");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
        stage.mounts.push((script, PathBuf::from("/usr/sbin/xtables-nft-multi")));
        let version = stage.run_if("iptables", &["--version"]).expect("tells its version");
        assert!(version.contains("(legacy)"), "{version}");
        (IPTABLES.prepare)(stage);
    },
    rules: |stage| (IPTABLES.rules)(stage),
};

const UFW: Machine = Machine {
    backend: "ufw",
    prepare: |stage| {
        stage.near.run("ufw", &["allow", "22/tcp"]);
        stage.near.run("ufw", &["allow", "8484/tcp", "comment", "of somebody else"]);
        stage.near.run("ufw", &["--force", "enable"]);
    },
    rules: |stage| {
        let files = ["user.rules", "user6.rules"].map(|name| stage.near.run("cat", &[&format!("/etc/ufw/{name}")]));
        files.concat() + &(IPTABLES.rules)(stage)
    },
};

/// A message bus that lets everybody do everything, for one namespace.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
<allow send_type="method_call"/></policy></busconfig>"#;

const FIREWALLD: Machine = Machine {
    backend: "firewalld",
    prepare: |stage| {
        let (bus, config, etc) = (stage.path("dbus"), stage.path("bus.conf"), stage.path("firewalld"));
        for folder in [&bus, &etc, &PathBuf::from("/run/dbus")] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        std::fs::write(&config, BUS).expect("writes");
        let socket = bus.join("system_bus_socket");
        stage.mounts.push((bus, PathBuf::from("/run/dbus")));
        let config = format!("--config-file={}", config.display());
        stage.start(Command::new("dbus-daemon").args([&config, "--nofork", "--nopidfile"]));
        wait_until("the bus listens", PATIENCE, || socket.exists());
        let etc = etc.to_str().expect("UTF-8");
        stage.start(Command::new("/usr/sbin/firewalld").args(["--nofork", "--nopid", "--system-config", etc]));
        wait_until("firewalld runs", PATIENCE, || stage.run_if("firewall-cmd", &["--state"]).is_some());
        // Its zone lets SSH in by itself.
        stage.run_if("firewall-cmd", &["--add-port=8484/tcp"]).expect("opens the port");
    },
    rules: |stage| {
        let zone = stage.run_if("firewall-cmd", &["--list-all"]).expect("tells the zone");
        zone + &stage.near.run("nft", &["--stateless", "list", "ruleset"])
    },
};

/// What every backend must do: from the first apply over SSH to the last byte of the rollback.
fn applies_confirms_and_takes_back(machine: &Machine) {
    let mut stage = Stage::new();
    (machine.prepare)(&mut stage);
    stage.listen();
    stage.assert_doors("open");
    let before = (machine.rules)(&stage);

    let operator = Operator::new(&stage);
    let apply = ["firewall", "apply", "--backend", machine.backend, "--format", "json"];
    let over_ssh = stage.ssh(&[], &[&stage.words(&apply)]).output().expect("runs ssh");
    let told = String::from_utf8_lossy(&over_ssh.stdout).into_owned();
    assert!(over_ssh.status.success(), "{told}{}", String::from_utf8_lossy(&over_ssh.stderr));
    let status: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error} in {told:?}"));
    let last = &status["data"]["last"];
    assert_eq!(
        (&last["phase"], &last["backend"]),
        (&Value::from("pending"), &Value::from(machine.backend)),
        "{status:#}"
    );
    assert!(last["plan"]["ssh"].to_string().contains(ALLOWED[0]), "the session is named: {status:#}");
    stage.assert_doors("dropped");
    let applied = (machine.rules)(&stage);
    assert_ne!(applied, before);

    // A second apply waits for the first to be answered; another session answers it.
    let (succeeded, refused) = stage.flm(&["firewall", "apply", "--backend", machine.backend]);
    assert!(!succeeded && refused.to_string().contains("flm firewall confirm"), "{refused}");
    let status = stage.answer(&["firewall", "confirm"]);
    assert_eq!(status["last"]["phase"], "in_force", "{status:#}");
    assert_eq!((machine.rules)(&stage), applied, "confirming changes no rule");
    let status = stage.answer(&["firewall", "status"]);
    assert_eq!(status["loaded"], true, "{status:#}");
    // systemd, which would load them again, does not rule a namespace.
    let lasting = if matches!(machine.backend, "ufw" | "firewalld") { "over_restarts" } else { "until_restart" };
    assert_eq!(status["in_force"]["lasting"], lasting, "{status:#}");

    // The same again changes nothing, byte for byte, and waits for nobody.
    let again = stage.answer(&["firewall", "apply", "--backend", machine.backend]);
    assert_eq!(again["last"]["phase"], "in_force", "{again:#}");
    assert_eq!((machine.rules)(&stage), applied);

    let status = stage.answer(&["firewall", "rollback"]);
    assert_eq!(status["last"]["phase"], "taken_back", "{status:#}");
    assert_eq!(status["last"]["exactness"], "exact", "{status:#}");
    assert_eq!((machine.rules)(&stage), before);
    stage.assert_doors("open");
    operator.was_never_shut_out(&stage);

    let log = Path::new(&stage.folder_of_records()).join("log.jsonl");
    assert_eq!(std::fs::metadata(&log).expect("the log").mode() & 0o777, 0o600);
    let audit = stage.answer(&["security", "audit-logs", "list"]).to_string();
    for said in ["wait for their confirmation", "were confirmed", "were taken back"] {
        assert!(audit.contains(said), "{said} is not in {audit}");
    }
    let (_, nothing) = stage.flm(&["firewall", "rollback"]);
    assert_eq!(nothing["data"]["last"]["phase"], "taken_back", "{nothing:#}");
}

#[test]
#[ignore = "needs root, iproute2, nftables and OpenSSH: run scripts/install-test-components.sh"]
fn nftables_lets_in_who_is_listed_and_goes_without_a_trace() {
    applies_confirms_and_takes_back(&NFTABLES);
}

#[test]
#[ignore = "needs root, iproute2, iptables and OpenSSH: run scripts/install-test-components.sh"]
fn iptables_lets_in_who_is_listed_and_goes_without_a_trace() {
    applies_confirms_and_takes_back(&IPTABLES);
}

#[test]
#[ignore = "needs root, iproute2, ufw and OpenSSH: run scripts/install-test-components.sh"]
fn legacy_iptables_lets_in_who_is_listed_and_goes_without_a_trace() {
    applies_confirms_and_takes_back(&LEGACY_IPTABLES);
}

#[test]
#[ignore = "needs root, iproute2, ufw and OpenSSH: run scripts/install-test-components.sh"]
fn ufw_lets_in_who_is_listed_and_goes_without_a_trace() {
    applies_confirms_and_takes_back(&UFW);
}

#[test]
#[ignore = "needs root, iproute2, firewalld, dbus and OpenSSH: run scripts/install-test-components.sh"]
fn firewalld_lets_in_who_is_listed_and_goes_without_a_trace() {
    applies_confirms_and_takes_back(&FIREWALLD);
}

/// Case 45.
#[test]
#[ignore = "needs root, iproute2, firewalld, dbus and OpenSSH: run scripts/install-test-components.sh"]
fn what_was_confirmed_in_firewalld_is_there_when_it_starts_again_and_not_after_a_rollback() {
    let mut stage = Stage::new();
    (FIREWALLD.prepare)(&mut stage);
    stage.listen();
    let permanent = |stage: &Stage| {
        let rules = stage.run_if("firewall-cmd", &["--permanent", "--list-rich-rules"]).expect("tells the rules");
        rules.matches("log prefix=\"flm ").count()
    };
    let apply = ["firewall", "apply", "--backend", "firewalld"];
    stage.answer(&apply);
    assert_eq!(permanent(&stage), 0, "a trial leaves nothing in files");
    stage.answer(&["firewall", "confirm"]);
    assert!(permanent(&stage) > 0);
    // What a restart of firewalld reads.
    stage.run_if("firewall-cmd", &["--reload"]).expect("reads its files again");
    stage.assert_doors("dropped");
    assert_eq!(stage.answer(&["firewall", "status"])["loaded"], true);
    assert_eq!(stage.answer(&["firewall", "rollback"])["last"]["phase"], "taken_back");
    assert_eq!(permanent(&stage), 0);
    stage.run_if("firewall-cmd", &["--reload"]).expect("reads its files again");
    assert_eq!(stage.answer(&["firewall", "status"])["loaded"], Value::Null);
}

#[test]
#[ignore = "needs root, iproute2, nftables, iptables, ufw, firewalld and OpenSSH: run scripts/install-test-components.sh"]
fn unconfirmed_rules_go_by_themselves_although_the_session_that_made_them_died() {
    for machine in [&NFTABLES, &IPTABLES, &UFW, &FIREWALLD] {
        let mut stage = Stage::new();
        (machine.prepare)(&mut stage);
        stage.listen();
        let before = (machine.rules)(&stage);
        let operator = Operator::new(&stage);
        let apply = ["firewall", "apply", "--backend", machine.backend, "--deadline", "5", "--format", "text"];
        let mut session = Talk::start(stage.ssh(&["-tt"], &[&stage.words(&apply)]));
        session.read_until("y and Enter");
        let applied = Instant::now();
        assert_eq!(stage.knock(OTHER[0], MACHINE[0], PORT), "dropped");
        // The terminal, the shell and the command are gone with it.
        drop(session);
        wait_until("the rules of before are back", PATIENCE, || (machine.rules)(&stage) == before);
        assert!(applied.elapsed() > Duration::from_secs(4), "not before the deadline");
        // Nobody asks for it: the daemon looks by itself.
        wait_until("it is in the audit log", PATIENCE, || {
            let audit = stage.answer(&["security", "audit-logs", "list"]).to_string();
            audit.matches("nobody confirmed them in time").count() == 1
        });
        wait_until("it is noted", PATIENCE, || stage.phase() == "taken_back");
        let last = stage.answer(&["firewall", "status"])["last"].clone();
        assert_eq!(
            (&last["cause"], &last["exactness"]),
            (&Value::from("unconfirmed"), &Value::from("exact")),
            "{last:#}"
        );
        stage.assert_doors("open");
        operator.was_never_shut_out(&stage);
        assert_eq!(stage.answer(&["firewall", "status"])["loaded"], Value::Null);
        let (succeeded, late) = stage.flm(&["firewall", "confirm"]);
        assert!(!succeeded && late.to_string().contains("no rules wait"), "{late}");
    }
}

#[test]
#[ignore = "needs root, iproute2, nftables and OpenSSH: run scripts/install-test-components.sh"]
fn the_person_at_the_terminal_is_asked_and_both_answers_count() {
    let mut stage = Stage::new();
    (NFTABLES.prepare)(&mut stage);
    stage.listen();
    let before = (NFTABLES.rules)(&stage);
    let apply = ["firewall", "apply", "--backend", "nftables", "--format", "text"];
    for (answer, phase) in [("n\n", "taken_back"), ("what?\n", "pending"), ("y\n", "in_force")] {
        let mut session = Talk::start(stage.ssh(&["-tt"], &[&stage.words(&apply)]));
        session.read_until("y and Enter");
        session.read_until("taken back in");
        session.say(answer);
        if phase == "pending" {
            session.read_until("y or n?");
            assert_eq!(stage.phase(), "pending", "a word that is no answer decides nothing");
            // Ctrl-C takes them back at once.
            session.say("\x03");
            wait_until("they are taken back", PATIENCE, || stage.phase() == "taken_back");
        } else {
            let told = session.read_until("log");
            assert_eq!(stage.phase(), phase, "{told}");
        }
        assert_eq!((NFTABLES.rules)(&stage) == before, phase != "in_force");
    }
    stage.answer(&["firewall", "rollback"]);
    assert_eq!((NFTABLES.rules)(&stage), before);
}

/// A program in place of nft that does something at the first load of FLM's rules, and is nft otherwise.
fn in_place_of_nft(stage: &mut Stage, at_the_first_load: &str) {
    let (real, fake, once) = (stage.path("nft"), stage.path("fake-nft"), stage.path("once"));
    std::fs::copy("/usr/sbin/nft", &real).expect("copies nft");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -f ] && ! [ -e {once} ]; then\n  : >{once}\n  {at_the_first_load}\nfi\nexec {real} \"$@\"\n",
        once = once.display(),
        real = real.display(),
    );
    std::fs::write(&fake, script).expect("writes");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("executable");
    stage.mounts.push((fake, PathBuf::from("/usr/sbin/nft")));
}

#[test]
#[ignore = "needs root, iproute2, nftables and OpenSSH: run scripts/install-test-components.sh"]
fn a_tool_that_fails_or_a_step_that_is_killed_half_way_leaves_the_state_of_before() {
    for (what, cause, says) in [
        // All of it loaded, and then an error.
        ("\"REAL\" \"$@\"; echo 'Error: no room left' >&2; exit 1", "failed", "no room left"),
        // The step dies with the rules loaded.
        ("\"REAL\" \"$@\"; kill -9 $PPID; exit 0", "interrupted", "was ended"),
    ] {
        let mut stage = Stage::new();
        (NFTABLES.prepare)(&mut stage);
        let before = (NFTABLES.rules)(&stage);
        let real = stage.path("nft").display().to_string();
        in_place_of_nft(&mut stage, &what.replace("\"REAL\"", &real));
        let (succeeded, told) = stage.flm(&["firewall", "apply", "--backend", "nftables"]);
        assert!(!succeeded && told.to_string().contains(says), "{told}");
        wait_until("it is taken back", PATIENCE, || stage.phase() == "taken_back");
        let last = stage.answer(&["firewall", "status"])["last"].clone();
        assert_eq!((&last["cause"], &last["exactness"]), (&Value::from(cause), &Value::from("exact")), "{last:#}");
        assert_eq!((NFTABLES.rules)(&stage), before);
        // Nothing of it stands in the way of the next.
        stage.answer(&["firewall", "apply", "--backend", "nftables"]);
        stage.answer(&["firewall", "confirm"]);
        stage.answer(&["firewall", "rollback", "--all"]);
        assert_eq!((NFTABLES.rules)(&stage), before);
    }
}

#[test]
#[ignore = "needs root, iproute2, nftables and OpenSSH: run scripts/install-test-components.sh"]
fn a_watchdog_that_is_told_to_end_takes_the_rules_back_and_one_that_is_killed_is_missed() {
    let mut stage = Stage::new();
    (NFTABLES.prepare)(&mut stage);
    let before = (NFTABLES.rules)(&stage);
    let signal = |pid: u32, name: &str| {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("runs kill").success());
    };
    stage.answer(&["firewall", "apply", "--backend", "nftables"]);
    signal(stage.watchdog(), "-TERM");
    wait_until("the rules are taken back", PATIENCE, || stage.phase() == "taken_back");
    assert_eq!((NFTABLES.rules)(&stage), before);

    stage.answer(&["firewall", "apply", "--backend", "nftables"]);
    signal(stage.watchdog(), "-KILL");
    wait_until("nobody watches", PATIENCE, || stage.answer(&["firewall", "status"])["watch"] == "unwatched");
    let (succeeded, told) = stage.flm(&["firewall", "confirm"]);
    assert!(!succeeded && told.to_string().contains("flm firewall rollback"), "{told}");
    let (succeeded, told) = stage.flm(&["firewall", "apply", "--backend", "nftables"]);
    assert!(!succeeded && told.to_string().contains("flm firewall rollback"), "{told}");
    assert_eq!(stage.answer(&["firewall", "rollback"])["last"]["exactness"], "exact");
    assert_eq!((NFTABLES.rules)(&stage), before);
}

#[test]
#[ignore = "needs root, iproute2, nftables, ufw and OpenSSH: run scripts/install-test-components.sh"]
fn what_others_changed_meanwhile_stays_and_is_told() {
    let mut stage = Stage::new();
    (UFW.prepare)(&mut stage);
    let before = (UFW.rules)(&stage);
    stage.answer(&["firewall", "apply", "--backend", "ufw"]);
    stage.answer(&["firewall", "confirm"]);
    stage.near.run("ufw", &["allow", "9999/tcp"]);
    let status = stage.answer(&["firewall", "rollback"]);
    assert_eq!(status["last"]["exactness"], "others_changed", "{status:#}");
    let after = (UFW.rules)(&stage);
    assert!(after.contains("9999") && !after.contains("666c6d"), "{after}");
    stage.near.run("ufw", &["delete", "allow", "9999/tcp"]);
    assert_eq!((UFW.rules)(&stage), before, "ufw itself reads and writes what FLM left");
}

#[test]
#[ignore = "needs root, iproute2, nftables, ufw and OpenSSH: run scripts/install-test-components.sh"]
fn a_firewall_that_is_not_in_use_or_not_there_is_a_clear_message() {
    let mut stage = Stage::new();
    (NFTABLES.prepare)(&mut stage);
    let before = (NFTABLES.rules)(&stage);
    let (succeeded, told) = stage.flm(&["firewall", "apply", "--backend", "ufw"]);
    assert!(!succeeded && told.to_string().contains("ufw is not active"), "{told}");
    // ufw is installed and not in use, so the tool below it is taken.
    assert_eq!(stage.answer(&["firewall", "preview"])["backend"], "nftables");

    // No firewall program at all: an empty folder over each that holds some.
    let empty = stage.path("empty");
    std::fs::create_dir(&empty).expect("a folder");
    stage.mounts.push((empty, PathBuf::from("/usr/sbin")));
    let (succeeded, told) = stage.flm(&["firewall", "apply", "--backend", "nftables"]);
    assert!(!succeeded && told.to_string().contains("this machine has no nft"), "{told}");
    stage.mounts.clear();
    assert_eq!((NFTABLES.rules)(&stage), before);
    assert_eq!(stage.answer(&["firewall", "status"])["last"], Value::Null, "nothing was ever applied");
}

/// Somebody who is not root, with a home and a copy of FLM of their own.
struct Somebody {
    stage: Stage,
    program: PathBuf,
    home: PathBuf,
}

/// `nobody` of Debian.
const NOBODY: u32 = 65_534;

impl Somebody {
    fn new() -> Self {
        let mut stage = Stage::new();
        (NFTABLES.prepare)(&mut stage);
        std::fs::set_permissions(stage.folder.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
        let (program, home) = (stage.path("flm"), stage.path("home"));
        std::fs::copy(env!("CARGO_BIN_EXE_flm"), &program).expect("copies flm");
        std::fs::create_dir(&home).expect("a home");
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("gives it away");
        Self { stage, program, home }
    }

    fn flm(&self, arguments: &[&str]) -> (bool, Value) {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&self.program).args(arguments);
        command.args(["--format", "json", "--home"]).arg(&self.home).env("FLM_ENGINE_DETECT_AT_START", "false");
        let output = self.stage.near.inside(&self.stage.with_mounts(&command)).output().expect("runs flm");
        let text = String::from_utf8_lossy(&output.stdout);
        let answer = serde_json::from_str(text.trim())
            .unwrap_or_else(|error| panic!("{error} in {text:?} {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), answer)
    }
}

#[test]
#[ignore = "needs root, sudo, iproute2, nftables and OpenSSH: run scripts/install-test-components.sh"]
fn somebody_else_than_root_uses_sudo_for_the_step_alone_and_can_not_change_what_root_puts_back() {
    let somebody = Somebody::new();
    let before = (NFTABLES.rules)(&somebody.stage);
    let apply = ["firewall", "apply", "--backend", "nftables"];
    let (succeeded, told) = somebody.flm(&apply);
    assert!(!succeeded && told.to_string().contains("sudo did not let this user"), "{told}");
    assert_eq!((NFTABLES.rules)(&somebody.stage), before);

    // sudo's own rules, for this namespace only.
    let sudoers = format!("/etc/netns/{}/sudoers.d", somebody.stage.near.name);
    std::fs::create_dir_all(&sudoers).expect("a folder");
    let rule = format!("nobody ALL=(root) NOPASSWD: {} __firewall-step\n", somebody.program.display());
    std::fs::write(format!("{sudoers}/flm"), rule).expect("writes");
    std::fs::set_permissions(format!("{sudoers}/flm"), std::fs::Permissions::from_mode(0o440)).expect("sudo's mode");
    let (succeeded, told) = somebody.flm(&apply);
    assert!(succeeded, "{told}");
    assert_eq!(told["data"]["last"]["phase"], "pending", "{told:#}");
    let records = somebody.home.join("firewall");
    for (name, owner) in [("", 0), ("saved.json", 0), ("state.json", NOBODY), ("log.jsonl", NOBODY)] {
        let found = std::fs::metadata(records.join(name)).expect("there");
        assert_eq!((found.uid(), found.mode() & 0o007), (owner, 0), "{name}");
    }
    // Confirming takes no root: only that they can still get in.
    let (succeeded, told) = somebody.flm(&["firewall", "confirm"]);
    assert!(succeeded && told["data"]["last"]["phase"] == "in_force", "{told:#}");
    let (succeeded, told) = somebody.flm(&["firewall", "rollback"]);
    assert!(succeeded && told["data"]["last"]["exactness"] == "exact", "{told:#}");
    assert_eq!((NFTABLES.rules)(&somebody.stage), before);
}
