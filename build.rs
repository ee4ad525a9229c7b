//! Lists the built-in themes for `tui::theme` and tells cargo when languages or themes change.
//!
//! Adding a theme is adding a file to `themes/`; adding a language is adding one to `i18n/`. `rust-i18n` itself
//! watches only `locales/`, so the folder is named here.

use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=i18n");
    println!("cargo:rerun-if-changed=themes");
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let mut names: Vec<String> = fs::read_dir(Path::new(&root).join("themes"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        println!("cargo:rerun-if-changed=themes/{name}.toml");
        list.push_str(&format!(
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/themes/{name}.toml\"))),\n"
        ));
    }
    list.push(']');
    let target = Path::new(&out).join("themes.rs");
    fs::OpenOptions::new().write(true).create(true).truncate(true).open(target)?.write_all(list.as_bytes())
}
