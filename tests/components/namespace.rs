//! Network namespaces for tests: two that see nothing but each other, or one that sees nothing but itself.
//!
//! Needs root. Nothing in them can reach the machine's own network, and they are gone when the value is dropped.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// One namespace.
pub(crate) struct Namespace {
    pub(crate) name: String,
    children: Vec<Child>,
}

impl Namespace {
    /// With nothing but loopback.
    pub(crate) fn new(word: &str) -> Self {
        // Tests of one process run side by side.
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flm-{word}-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name, children: Vec::new() };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Two, joined by a cable: the first has 10.77.0.1, the second 10.77.0.2.
    pub(crate) fn joined() -> (Self, Self) {
        let (near, far) = (Self::new("near"), Self::new("far"));
        let cable = ["veth-near", "type", "veth", "peer", "name", "veth-far"];
        let make = [&["-n", &near.name, "link", "add"][..], &cable, &["netns", &far.name]].concat();
        run("ip", &make);
        for (namespace, end, address) in [(&near, "veth-near", "10.77.0.1/24"), (&far, "veth-far", "10.77.0.2/24")] {
            namespace.run("ip", &["address", "add", address, "dev", end]);
            namespace.run("ip", &["link", "set", end, "up"]);
        }
        (near, far)
    }

    /// The same command inside.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args()).env_clear();
        wrapped.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped
    }

    /// Runs a program to its end, which must be a good one, and answers what it said.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.inside(&command).output().expect("runs ip");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Starts a program that runs as long as the namespace.
    pub(crate) fn start(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments);
        let child = self.inside(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.expect("starts"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        // Part of Drop, so it gives up without a panic.
        let _removed = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: run scripts/install-test-components.sh"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} (as root?): {err}");
}
