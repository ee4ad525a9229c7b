//! `flm`: the product as commands, for scripts and services. A thin shell over the library.

mod start;

use std::process::ExitCode;

fn main() -> ExitCode {
    start::carry_out(flm::cli::flm())
}
