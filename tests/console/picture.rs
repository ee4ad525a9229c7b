//! Raw terminal bytes of screens, for turning into pictures: `FLM_PICTURES=DIR cargo test --test console -- --ignored`.

use std::io::Write as _;
use std::path::PathBuf;

use flm::tui::state::State;
use flm::tui::terminal::Screen;
use flm::tui::theme::{Depth, ThemeShelf};

use crate::fixture::{busy, draw, press};

fn dump(name: &str, state: &mut State) {
    let folder = PathBuf::from(std::env::var("FLM_PICTURES").expect("FLM_PICTURES names a folder"));
    draw(state);
    crossterm::style::force_color_output(true);
    let mut bytes = Vec::new();
    Screen::new(&mut bytes, state.size).expect("opens").draw(state).expect("draws");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(folder.join(format!("{name}_{}x{}.raw", state.size.0, state.size.1)))
        .and_then(|mut file| file.write_all(&bytes))
        .expect("writes");
}

#[test]
#[ignore = "needs FLM_PICTURES=DIR: writes raw terminal bytes for pictures"]
fn raw_bytes_of_every_tab() {
    for language in ["en", "ja"] {
        for size in [(80, 24), (120, 40)] {
            for key in ["1", "2", "3", "4", "5", "6"] {
                let mut state = busy(language, size);
                press(&mut state, key);
                dump(&format!("tab{key}_{language}"), &mut state);
            }
        }
        for (keys, name) in [
            ("?", "help"),
            (":", "palette"),
            ("1 a", "form"),
            ("q", "quit"),
            ("f2", "settings"),
            ("3 j enter", "request"),
            ("3 v v v", "load"),
        ] {
            let mut state = busy(language, (80, 24));
            press(&mut state, keys);
            dump(&format!("{name}_{language}"), &mut state);
        }
    }
    for language in ["en", "ja"] {
        for size in [(80, 24), (120, 40)] {
            dump(&format!("chat_{language}"), &mut crate::chat::full(language, size));
            dump(&format!("compare_{language}"), &mut crate::compare::full(language, size));
            dump(&format!("wizard_{language}"), &mut crate::wizard::at_policy(language, size));
        }
    }
    for theme in ["light", "high-contrast", "dusk", "moss"] {
        let mut state = busy("en", (120, 40));
        state.theme = ThemeShelf::default().load(theme, Depth::True).expect("loads");
        press(&mut state, "3");
        dump(&format!("theme_{theme}"), &mut state);
    }
}
