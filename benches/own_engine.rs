//! The fast fake engine as a process of its own: the same program, started with the word `engine`. Used by the benches whose daemon
//! is measured beside it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::Fault;

/// The process and its port; ended with its handle.
pub(crate) struct Engine(Child, pub(crate) u16);

impl Engine {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?).arg("engine").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let port = line.trim().strip_prefix("listening ").ok_or("the engine did not start")?.parse()?;
        Ok(Self(child, port))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
