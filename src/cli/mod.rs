//! The commands of `flm`, and the arguments of `flm-tui`: parses, calls one operation, prints its result.
