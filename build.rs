//! Lists the built-in themes for `tui::theme` and the languages for `types::language`, tells cargo when either change, and has
//! the linker put what every request runs side by side.
//!
//! Adding a theme is adding a file to `themes/`; adding a language is adding one to `i18n/`. `rust-i18n` itself
//! watches only `locales/`, so the folder is named here.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=i18n");
    println!("cargo:rerun-if-changed=themes");
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let mut list = String::from("&[\n");
    for name in names(&Path::new(&root).join("themes"), ".toml")? {
        println!("cargo:rerun-if-changed=themes/{name}.toml");
        list.push_str(&format!(
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/themes/{name}.toml\"))),\n"
        ));
    }
    list.push(']');
    write(&Path::new(&out).join("themes.rs"), &list)?;
    let mut choices = vec!["auto".to_owned()];
    choices.extend(names(&Path::new(&root).join("i18n"), ".yml")?);
    write(&Path::new(&out).join("languages.rs"), &format!("&{choices:?}"))?;
    order_functions(Path::new(&root), Path::new(&out))
}

/// The files of a folder that end in `suffix`, sorted and without it.
fn names(folder: &Path, suffix: &str) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(suffix)?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

/// The one target for which `scripts/order-functions.py` writes an order.
const ORDERED_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Passes the order of functions to the linker of release programs, if it is one that takes it: lld does, which is this
/// toolchain's own for that target, and GNU ld; others are left alone (ADR 21).
fn order_functions(root: &Path, out: &Path) -> io::Result<()> {
    let order = root.join("link/function-order.ld");
    println!("cargo:rerun-if-changed=link/function-order.ld");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    if !is("PROFILE", "release") || !is("TARGET", ORDERED_TARGET) || !is("HOST", ORDERED_TARGET) {
        return Ok(());
    }
    let words = ["-T".to_owned(), order.display().to_string()];
    let probe = out.join("probe.rs");
    write(&probe, "fn main() {}")?;
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg(&probe).arg("-o").arg(out.join("probe")).args(["--edition=2024", "--target", ORDERED_TARGET]);
    rustc.args(env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.args(words.iter().map(|word| format!("-Clink-arg={word}")));
    let linked = rustc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if linked.is_ok_and(|status| status.success()) {
        for word in words {
            println!("cargo:rustc-link-arg-bins={word}");
        }
    }
    Ok(())
}
