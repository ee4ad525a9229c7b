//! Colour in text: on terminals that want it, and nowhere else.

use portable_pty::CommandBuilder;

use crate::home::{Home, PATIENCE};
use crate::run;
use crate::terminal::Terminal;

/// What a command writes to a terminal, escape sequences and all.
fn on_a_terminal(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_flm"));
    command.args(arguments);
    let mut command = home.at_home(command);
    for (name, value) in variables {
        command.env(name, value);
    }
    let mut terminal = Terminal::start(command, 200, 40);
    terminal.wait_until_ended(PATIENCE);
    let received = terminal.screen().received.clone();
    String::from_utf8_lossy(&received).into_owned()
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let home = Home::new();
    home.create_key("laptop");
    for (arguments, painted) in [
        (&["api-keys", "list"][..], "\x1b[32mworks\x1b[0m"),
        (&["api-keys", "list"], "\x1b[1mLABEL\x1b[0m"),
        (&["check"], "\x1b[32mok"),
        (&["api-keys", "show", "nobody"], "\x1b[31merror:\x1b[0m"),
        (&["api-keys", "--help"], "\x1b[1m"),
        (&["api-keys", "lst"], "\x1b["),
    ] {
        let told = on_a_terminal(&home, arguments, &[]);
        assert!(told.contains(painted), "{arguments:?}: {told:?}");
        for variables in [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")]] {
            let told = on_a_terminal(&home, arguments, variables);
            assert!(!told.contains("\x1b["), "{arguments:?} {variables:?}: {told:?}");
        }
        let ended = run(&home, &[arguments, &["--format", "text"]].concat());
        assert!(!ended.out.contains('\x1b') && !ended.err.contains('\x1b'), "{arguments:?}: a pipe");
    }
}
