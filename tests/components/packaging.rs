//! Installing, updating and removing FLM: the package in a machine of its own, the scripts in a folder, signatures with a key
//! that is thrown away, and what systemd says of the units.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::documents;

const THIS: &str = "tests/components/packaging.rs";

/// How exposed the system unit may be, by systemd-analyze: 0 is best, 10 worst, below 2.5 is "OK".
const EXPOSURE_MAX: f64 = 1.8;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    command.output().unwrap_or_else(|error| panic!("{shown}: {error}: run scripts/install-test-components.sh"))
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{shown}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The programs of this build, without what only debuggers read: packages are made of programs that are there.
pub(crate) fn programs() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        for program in [env!("CARGO_BIN_EXE_flm"), env!("CARGO_BIN_EXE_flm-tui")] {
            let name = Path::new(program).file_name().expect("a name");
            succeed(Command::new("strip").arg("-o").arg(folder.path().join(name)).arg(program));
        }
        folder
    });
    folder.path()
}

fn build_package(output: &Path) -> PathBuf {
    let mut build = Command::new(repository("scripts/build-deb.sh"));
    build.arg("--bin").arg(programs()).arg("--output").arg(output).arg("--fast").env("SOURCE_DATE_EPOCH", "1790000000");
    PathBuf::from(succeed(&mut build).trim())
}

/// This machine's files with a layer over them: whatever a script does there is gone with the value.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("flm-machine-").tempdir_in("/tmp").expect("a folder") }
    }

    /// Runs a shell script in it, step by step; the first that fails ends it.
    pub(crate) fn shell(&self, script: &str) -> Output {
        let script = script.replace('\'', "'\\''");
        let folder = self.folder.path().display();
        // A file system in memory carries the layer: an overlay over itself is none.
        let enter = format!(
            "set -e; cd {folder}; mkdir -p layer root; mount -t tmpfs none layer; mkdir layer/upper layer/work; \
             mount -t overlay overlay -o lowerdir=/,upperdir=layer/upper,workdir=layer/work root; \
             mount --bind /proc root/proc; mount --bind /dev root/dev; mkdir -p root/incoming; \
             cp incoming/* root/incoming/; exec chroot root sh -ec '{script}'"
        );
        run(Command::new("unshare").args(["--mount", "--net", "sh", "-c", &enter]))
    }

    pub(crate) fn bring(&self, file: &Path, name: &str) {
        let incoming = self.folder.path().join("incoming");
        std::fs::create_dir_all(&incoming).expect("a folder");
        std::fs::copy(file, incoming.join(name)).expect("copies");
    }
}

#[test]
#[ignore = "needs root, dpkg, binutils and systemd: run scripts/install-test-components.sh"]
fn the_package_is_the_same_each_time_and_installs_updates_removes_and_purges() {
    let output = tempfile::tempdir().expect("a folder");
    let package = build_package(&output.path().join("one"));
    let again = build_package(&output.path().join("two"));
    assert!(
        std::fs::read(&package).expect("reads") == std::fs::read(&again).expect("reads"),
        "the same, byte for byte"
    );

    let contents = succeed(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for file in [
        "/usr/bin/flm\n",
        "/usr/bin/flm-tui\n",
        "/usr/lib/systemd/system/flm.service\n",
        "/man1/flm.1.gz\n",
        "/man1/flm-firewall-apply.1.gz\n",
        "/completions/flm\n",
        "/doc/flm/copyright\n",
    ] {
        assert!(contents.contains(file), "{file} is not in\n{contents}");
    }
    assert!(contents.lines().all(|line| line.contains(" root/root ")), "{contents}");

    let machine = Machine::new();
    machine.bring(&package, "flm.deb");
    let told = machine.shell(
        "dpkg -i /incoming/flm.deb; flm version; getent passwd flm; stat -c \"%a %U %s %n\" /etc/flm /etc/flm/db.key; \
         before=$(cat /etc/flm/db.key); \
         echo == units; systemd-analyze verify --man=no /usr/lib/systemd/system/flm.service; \
         systemd-analyze security --offline=true --no-pager /usr/lib/systemd/system/flm.service | tail -n 1; \
         echo == serves; install -d -o flm -g flm -m 710 /var/lib/flm; ip link set lo up; \
         install -m 400 -o flm /etc/flm/db.key /tmp/flm-db-key; \
         setpriv --reuid=flm --regid=flm --clear-groups env FLM_CONTROL_GROUP=flm FLM_DB_KEY_FILE=/tmp/flm-db-key \
           FLM_ENGINE_DETECT_AT_START=false flm --home /var/lib/flm proxy start; \
         stat -c \"%a %G\" /var/lib/flm /var/lib/flm/run; \
         setpriv --reuid=65534 --regid=65534 --groups=$(getent group flm | cut -d: -f3) \
           flm --home /var/lib/flm --format text proxy status; \
         if setpriv --reuid=65534 --regid=65534 --clear-groups flm --home /var/lib/flm proxy status; then exit 9; fi; \
         flm --home /var/lib/flm proxy stop --all; \
         echo == again; dpkg -i /incoming/flm.deb; test \"$before\" = \"$(cat /etc/flm/db.key)\"; \
         echo == removed; dpkg -r flm; ! test -e /usr/bin/flm; test -e /etc/flm/db.key; test -d /var/lib/flm; \
         echo == purged; dpkg -P flm; ! test -e /etc/flm; ! test -e /var/lib/flm; ! getent passwd flm; echo == done",
    );
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success() && out.contains("== done"), "{out}\n{err}");
    assert!(out.contains("700 root 4096 /etc/flm") || out.contains("700 root"), "{out}");
    assert!(out.contains("600 root 65 /etc/flm/db.key"), "{out}");
    assert!(out.contains("710 flm\n"), "the group may pass through: {out}");
    let score = out.lines().find(|line| line.contains("Overall exposure level")).expect("a score");
    let number: f64 = score.split(": ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number");
    assert!(number <= EXPOSURE_MAX, "{score}");
    assert!(!err.contains("flm.service:"), "systemd-analyze verify has nothing to say: {err}");
}

/// A machine that systemd starts, in namespaces of its own. It runs one script, whose output goes to `/out/told`.
const BOOT: &str = r"
set -e
cd FOLDER; mkdir -p layer root out; mount -t tmpfs none layer; mkdir layer/upper layer/work
mount -t overlay overlay -o lowerdir=/,upperdir=layer/upper,workdir=layer/work root
mount -t proc proc root/proc; mount --rbind /sys root/sys; mount -t tmpfs tmpfs root/run; mount -t tmpfs tmpfs root/tmp
mount --bind /dev root/dev; mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mkdir -p root/incoming root/out; cp incoming/* root/incoming/; mount --bind out root/out; ip link set lo up
rm -rf root/etc/systemd/system/*.wants root/etc/systemd/system/default.target; rm -f root/usr/sbin/policy-rc.d
mkdir -p root/etc/systemd/system/probe.target.wants
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >root/etc/systemd/system/probe.target
printf '[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /incoming/probe.sh\n' \
  >root/etc/systemd/system/probe.service
ln -s ../probe.service root/etc/systemd/system/probe.target.wants/probe.service
exec chroot root env -i container=flm-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=probe.target --log-target=null --show-status=false
";

/// What is done there. Ends with a line of its own whatever happens.
const PROBE: &str = r#"
exec >/out/told 2>&1
trap 'echo == end' EXIT
set -e
dpkg -i /incoming/flm.deb
until_true() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; exit 1; }
flm="flm --home /var/lib/flm --format json"
systemctl start flm
until_true $flm proxy status
grep -E "Seccomp:|NoNewPrivs:|CapEff:" "/proc/$(systemctl show -P MainPID flm)/status"
stat -c "%a %U:%G %n" /var/lib/flm/run/control.sock
curl --silent --noproxy "*" --output /dev/null --write-out "health %{http_code}
" http://127.0.0.1:8484/health
$flm api-keys create --label kept
systemctl restart flm
until_true $flm proxy status
$flm api-keys list
nft "add table inet mine; add chain inet mine input { type filter hook input priority 0; policy accept; }"
nft list ruleset >/before
# A unit that ends takes every process of its own along, whatever session they are in.
systemd-run --quiet --pipe --wait --collect --unit=session $flm firewall apply --backend nftables --deadline 3
systemctl list-units --no-legend "flm-firewall-*"
nft list tables
until_true sh -c "nft list ruleset | cmp -s - /before"
until_true sh -c "$flm firewall status | grep -q unconfirmed"
$flm firewall status
# What is confirmed is there after a start of the machine, and after nftables itself was started again.
$flm firewall apply --backend nftables >/out/applied
$flm firewall confirm
systemd-analyze verify --man=no /etc/systemd/system/flm-firewall.service && echo "unit verified"
systemctl is-enabled flm-firewall
stat -c "%a %n" /etc/flm-firewall /etc/flm-firewall/rules.nft
nft flush ruleset
systemctl restart flm-firewall
nft list tables | sed "s/^/loaded again: /"
systemctl restart nftables
until_true sh -c "nft list tables | grep -q inet.flm"
nft list tables | sed "s/^/after nftables: /"
sed -i "s/\"boot\":\"[^\"]*\"/\"boot\":\"another\"/g" /var/lib/flm/firewall/state.json
$flm firewall status | sed "s/^/another start: /"
systemctl stop flm-firewall
$flm firewall status | sed "s/^/not loaded: /"
systemctl start flm-firewall
$flm firewall rollback >/out/rolled-back
! test -e /etc/systemd/system/flm-firewall.service && ! test -e /etc/flm-firewall && echo "unit gone"
nft list tables | grep inet.flm || echo "table gone"
nft flush ruleset
$flm firewall apply --backend iptables >/out/applied
$flm firewall confirm >/out/confirmed
iptables -F INPUT; iptables -F FLM; ip6tables -F INPUT
systemctl restart flm-firewall; systemctl reload flm-firewall
echo "jumps $(iptables -S INPUT | grep -c FLM) $(ip6tables -S INPUT | grep -c FLM), rules $(iptables -S FLM | grep -c 8484)"
$flm firewall rollback --all >/out/rolled-back
systemctl stop flm
echo "result $(systemctl show -P Result flm)"
"#;

/// How long the machine may take for all of it; alone it takes about eight seconds.
const MACHINE_PATIENCE: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs root, dpkg, binutils, nftables, curl and systemd: run scripts/install-test-components.sh"]
fn the_unit_serves_under_systemd_and_the_watchdog_outlives_the_unit_that_applied_the_rules() {
    let output = tempfile::tempdir().expect("a folder");
    let machine = Machine::new();
    machine.bring(&build_package(output.path()), "flm.deb");
    std::fs::write(machine.folder.path().join("incoming/probe.sh"), PROBE).expect("writes");
    let boot = BOOT.replace("FOLDER", machine.folder.path().to_str().expect("UTF-8"));
    let namespaces = ["--pid", "--fork", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--kill-child"];
    let mut started = Command::new("unshare").args(namespaces).args(["sh", "-c", &boot]).spawn().expect("runs unshare");
    let told = || std::fs::read_to_string(machine.folder.path().join("out/told")).unwrap_or_default();
    let began = Instant::now();
    while !told().contains("== end") && began.elapsed() < MACHINE_PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    // Everything inside ends with its first process.
    let _gone = started.kill();
    let _reaped = started.wait();
    let told = told();
    for wanted in [
        // Nothing but the right to bind low ports, and filtered system calls.
        "CapEff:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "660 flm:flm",
        "health 200",
        "\"label\":\"kept\"",
        "\"phase\":\"pending\"",
        "flm __firewall-watch",
        "table inet flm",
        "\"cause\":\"unconfirmed\",\"exactness\":\"exact\"",
        "unit verified",
        "\nenabled\n",
        "700 /etc/flm-firewall\n600 /etc/flm-firewall/rules.nft",
        "loaded again: table inet flm",
        "after nftables: table inet flm",
        "\"lasting\":\"over_restarts\",\"phase\":\"in_force\"",
        "unit gone",
        "table gone",
        "jumps 1 1, rules 1",
        "result success",
        "== end",
    ] {
        assert!(told.contains(wanted), "no {wanted:?} in\n{told}");
    }
    let line = |beginning: &str| told.lines().find(|line| line.starts_with(beginning)).expect("a line");
    assert!(line("another start: ").contains("\"phase\":\"in_force\""), "{told}");
    assert!(line("not loaded: ").contains("\"phase\":\"gone\""), "{told}");
}

/// A home and a prefix for scripts/install.sh.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("flm-").tempdir_in("/tmp").expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(repository(name));
        command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.path("home"));
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Every file below, with its mode.
    fn files(&self) -> Vec<String> {
        let mut listed: Vec<_> = succeed(Command::new("find").arg(self.folder.path()).args(["-printf", "%P %m\n"]))
            .lines()
            .map(str::to_owned)
            .collect();
        listed.sort();
        listed
    }
}

#[test]
#[ignore = "needs binutils and systemd: run scripts/install-test-components.sh"]
fn the_scripts_install_for_one_person_again_and_again_and_remove_what_they_installed_and_nothing_else() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("home")).expect("a home");
    let from = programs().to_str().expect("UTF-8");
    let before = place.files();
    let told = succeed(&mut place.script("scripts/install.sh", &["--user", "--from", from, "--dry-run"]));
    assert!(told.contains("would run: install") && told.contains("nothing was changed"), "{told}");
    assert_eq!(place.files(), before, "a dry run changes nothing");

    let install = || succeed(&mut place.script("scripts/install.sh", &["--user", "--from", from]));
    let told = install();
    assert!(told.contains("systemctl --user enable --now flm") && told.contains("is not in PATH"), "{told}");
    let installed = place.files();
    install();
    assert_eq!(place.files(), installed, "a second time changes nothing");
    let flm = place.path("home/.local/bin/flm");
    let unit = std::fs::read_to_string(place.path("home/.config/systemd/user/flm.service")).expect("a unit");
    assert!(unit.contains(&format!("ExecStart={} proxy start", flm.display())), "{unit}");
    let runtime = place.path("run");
    std::fs::create_dir(&runtime).expect("a folder");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(place.path("home/.config/systemd/user/flm.service"));
    let verified = run(verify.env("XDG_RUNTIME_DIR", runtime));
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && said.is_empty(), "systemd reads it without a word: {said}");
    let page = place.path("home/.local/share/man/man1/flm-proxy-start.1");
    assert!(std::fs::read_to_string(page).expect("a page").contains(".TH"));

    // Data that came meanwhile stays, unless its end is asked for by name.
    succeed(
        Command::new(&flm).args(["api-keys", "create", "--label", "mine"]).env_clear().env("HOME", place.path("home")),
    );
    let data = place.path("home/.local/share/flm");
    assert!(data.join("security.db").exists());
    let told = succeed(&mut place.script("scripts/uninstall.sh", &["--user", "--dry-run"]));
    assert!(told.contains("would run: rm -f") && flm.exists(), "{told}");
    let told = succeed(&mut place.script("scripts/uninstall.sh", &["--user"]));
    assert!(told.contains("not asked, since there is no terminal") && told.contains("kept: "), "{told}");
    assert!(!flm.exists() && !place.path("home/.config/systemd/user/flm.service").exists());
    assert!(data.join("security.db").exists());
    let left: Vec<_> =
        place.files().into_iter().filter(|file| file.contains("flm") && !file.contains("/flm/")).collect();
    assert!(
        left.iter()
            .all(|file| file.contains("share/flm ") || file.contains(".config/flm ") || file.contains("state/flm ")),
        "{left:?}"
    );
    let told = succeed(&mut place.script("scripts/uninstall.sh", &["--user", "--yes", "--purge"]));
    assert!(told.contains("no program of FLM is in"), "{told}");
    assert!(!data.exists());

    let wrong = run(&mut place.script("scripts/install.sh", &["--user", "--from", "/nowhere"]));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("hint:"), "{said}");
}

#[test]
#[ignore = "needs root, ca-certificates and binutils: run scripts/install-test-components.sh"]
fn removing_takes_the_authority_out_of_the_trust_store() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("home")).expect("a home");
    let from = programs().to_str().expect("UTF-8");
    let prefix = place.path("prefix").to_str().expect("UTF-8").to_owned();
    succeed(&mut place.script("scripts/install.sh", &["--user", "--prefix", &prefix, "--from", from, "--no-service"]));
    let flm = |arguments: &[&str]| {
        let mut command = Command::new(place.path("prefix/bin/flm"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", place.path("home"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        succeed(&mut command)
    };
    let bundle = || std::fs::read("/etc/ssl/certs/ca-certificates.crt").expect("the bundle");
    let before = bundle();
    flm(&["security", "ca", "init"]);
    flm(&["security", "ca", "install"]);
    assert!(bundle() != before);
    let told = succeed(&mut place.script("scripts/uninstall.sh", &["--user", "--prefix", &prefix, "--yes"]));
    assert!(bundle() == before, "{told}");
    assert!(!place.path("prefix/bin/flm").exists());
}

/// A folder of keys for gpg.
struct Keys {
    folder: TempDir,
}

impl Keys {
    fn new() -> Self {
        // gpg's agent has its socket there, whose path is short.
        let folder = tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp").expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("private");
        Self { folder }
    }

    fn gpg(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet"]).args(arguments).env("GNUPGHOME", self.folder.path());
        command
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ended = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", self.folder.path()).status();
    }
}

/// Case 46.
#[test]
#[ignore = "needs gnupg, dpkg and binutils: run scripts/install-test-components.sh"]
fn a_release_verifies_and_one_changed_byte_of_anything_does_not() {
    let keys = Keys::new();
    let make =
        ["--passphrase", "", "--quick-generate-key", "Thrown Away <release@example.org>", "ed25519", "sign", "1d"];
    succeed(&mut keys.gpg(&make));
    let output = tempfile::tempdir().expect("a folder");
    let mut release = Command::new(repository("scripts/release.sh"));
    release
        .arg("--bin")
        .arg(programs())
        .args(["--key", "release@example.org"])
        .arg("--output")
        .arg(output.path())
        .arg("--fast");
    succeed(release.env("GNUPGHOME", keys.folder.path()).env("SOURCE_DATE_EPOCH", "1790000000"));

    // Whoever downloads it has nothing but the public key.
    let public = succeed(&mut keys.gpg(&["--armor", "--export", "release@example.org"]));
    let theirs = Keys::new();
    let file = output.path().join("flm.asc");
    std::fs::write(&file, public).expect("writes");
    succeed(&mut theirs.gpg(&["--import", file.to_str().expect("UTF-8")]));
    let verifies =
        || run(theirs.gpg(&["--verify", "SHA256SUMS.asc", "SHA256SUMS"]).current_dir(output.path())).status.success();
    let sums = || {
        run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(output.path()))
            .status
            .success()
    };
    assert!(verifies() && sums());
    // As docs/installation.md says it.
    let block = |words| documents::run_by(THIS, "docs/installation.md", words);
    let by_the_document = |block: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-euc", block]).current_dir(output.path()).env("GNUPGHOME", theirs.folder.path());
        succeed(&mut shell)
    };
    assert_eq!(by_the_document(&block("gpg --verify")).matches(": OK").count(), 2, "archive and package");
    let mut changed = 0;
    for entry in std::fs::read_dir(output.path()).expect("lists").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "flm.asc" {
            continue;
        }
        let whole = std::fs::read(&path).expect("reads");
        let mut forged = whole.clone();
        let middle = forged.len() / 2;
        forged[middle] ^= 1;
        std::fs::write(&path, forged).expect("writes");
        assert!(!(verifies() && sums()), "a changed {name} was not noticed");
        std::fs::write(&path, whole).expect("writes");
        changed += 1;
    }
    assert_eq!(changed, 4, "archive, package, list and signature");
    // Without the key, nobody's signature is good.
    let nobody = Keys::new();
    let status = run(nobody.gpg(&["--verify", "SHA256SUMS.asc", "SHA256SUMS"]).current_dir(output.path())).status;
    assert!(!status.success());

    // The archive installs by itself, and what it installed is removed, on a machine that nobody misses.
    let machine = Machine::new();
    for entry in std::fs::read_dir(output.path()).expect("lists").flatten() {
        machine.bring(&entry.path(), &entry.file_name().to_string_lossy());
    }
    let arch = format!("linux-{}", std::env::consts::ARCH);
    let blocks = [block("tar -xzf"), "command -v flm; echo == installed".to_owned(), block("scripts/uninstall.sh")];
    let blocks = blocks.join("\n").replace("linux-x86_64", &arch);
    let begin = "export HOME=/root; sudo() { \"$@\"; }; cd /incoming; useradd --system flm || true";
    let told = machine.shell(&format!("{begin}\n{blocks}\n! command -v flm; echo == done"));
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success() && out.contains("/usr/local/bin/flm") && out.contains("== done"), "{out}{err}");
    let unpacked = tempfile::tempdir().expect("a folder");
    let archive = std::fs::read_dir(output.path()).expect("lists").flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "gz")).expect("an archive");
    succeed(Command::new("tar").args(["-xzf"]).arg(archive).arg("-C").arg(unpacked.path()).arg("--strip-components=1"));
    let place = Place::new();
    std::fs::create_dir_all(place.path("home")).expect("a home");
    let mut install = Command::new(unpacked.path().join("scripts/install.sh"));
    install.args(["--user", "--no-service"]).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.path("home"));
    assert!(succeed(&mut install).contains("done: "));
}
