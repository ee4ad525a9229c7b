//! Threads that do no request's work step back for those that do.
//!
//! Called by the threads of `hashing`, and by the one of `storage` that writes logs, as they begin: what they do may take a moment
//! longer, and a worker that shares a core with one of them keeps its clients waiting.

/// How much they give way (setpriority(2)): a thread of ordinary priority has nine times their share of a core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// What a thread is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// One like all.
    Ordinary,
    /// It steps back.
    GivesWay,
}

impl Priority {
    /// Makes the calling thread one of these, for good. Linux counts the priority for each thread of its own (setpriority(2), "C
    /// library/kernel differences"), and others for the whole program, which must keep its own: there nothing happens.
    pub fn take(self) {
        #[cfg(target_os = "linux")]
        if self == Self::GivesWay
            && let Err(error) = rustix::process::setpriority_process(None, NICENESS)
        {
            tracing::debug!(%error, "a thread keeps the ordinary priority");
        }
    }
}
