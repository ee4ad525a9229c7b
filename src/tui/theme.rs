//! Colours by role: theme files, colour depth, and `NO_COLOR`.
//!
//! Called by `state` when a theme is chosen and by every view through [`Theme::style`]. No view names a colour.
//! Colours are reduced to what the terminal shows here, once, when a theme is loaded. Must never do I/O: user
//! themes are handed in as text.

use std::collections::BTreeMap;

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

use crate::config::settings::toml_fault;

/// The built-in themes as name and TOML text; `build.rs` lists the folder `themes/`.
pub static BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/themes.rs"));

/// The theme of a first start, and the one that fills in roles which a user theme leaves out.
pub const DEFAULT_THEME: &str = "dark";

macro_rules! roles {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// What a colour means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Role { $($(#[$doc])* $variant),* }
        impl Role {
            /// Every role with its name in theme files.
            pub const ALL: &'static [(Role, &'static str)] = &[$((Role::$variant, $name)),*];
        }
    };
}

roles! {
    /// Ordinary text on the ordinary background.
    Text = "text",
    /// Labels and secondary text.
    Muted = "muted",
    /// Text that is there for those who look for it.
    Faint = "faint",
    /// The focus, the current tab, the one thing to look at.
    Accent = "accent",
    /// Borders.
    Border = "border",
    /// The border of what has the focus.
    BorderFocus = "border_focus",
    /// Titles of panels.
    Title = "title",
    /// The header strip.
    Header = "header",
    /// The line of key hints.
    Footer = "footer",
    /// A key in hints and help.
    Key = "key",
    /// Column titles.
    Column = "column",
    /// The selected row.
    Selection = "selection",
    /// Good.
    Ok = "ok",
    /// Worth a look.
    Warn = "warn",
    /// Wrong.
    Error = "error",
    /// Neutral news.
    Info = "info",
    /// Sparklines and charts.
    Chart = "chart",
    /// The second series of charts and bars.
    ChartAlt = "chart_alt",
    /// Inside of overlays.
    Popup = "popup",
    /// An input field.
    Input = "input",
    /// A button.
    Button = "button",
    /// The focused button.
    ButtonFocus = "button_focus",
    /// DEMO and READ-ONLY marks.
    Badge = "badge",
}

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 24-bit.
    True,
    /// The 256-colour palette.
    Indexed,
    /// The 16 ANSI colours.
    Ansi,
    /// None: meaning is carried by text, bold and reverse only.
    Mono,
}

impl Depth {
    /// Reads the depth from the environment: `NO_COLOR` (set and not empty), `COLORTERM`, `TERM`.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            return Self::Mono;
        }
        let term = variable("TERM").unwrap_or_default();
        if term == "dumb" || term.starts_with("vt1") {
            return Self::Mono;
        }
        if variable("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit")
            || term.ends_with("-direct")
        {
            return Self::True;
        }
        if term.contains("256color") { Self::Indexed } else { Self::Ansi }
    }
}

/// A theme ready to draw with.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    /// Name of its file without `.toml`.
    pub name: String,
    /// Its name for people.
    pub title: String,
    styles: Vec<Style>,
}

/// Why a theme file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThemeError {
    /// There is no such theme.
    #[error("there is no theme {name:?}; known themes: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// The file is no TOML of the right form.
    #[error("theme {name:?}: {reason}")]
    Syntax {
        /// Whose file.
        name: String,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A role or a colour in it is unknown.
    #[error("theme {name:?}: {role} = {value:?}: {reason}")]
    Value {
        /// Whose file.
        name: String,
        /// Which role.
        role: String,
        /// What is written there.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThemeFile {
    title: Option<String>,
    roles: BTreeMap<String, String>,
}

/// Themes by name: the built-in ones and those of the user, which win.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThemeShelf {
    user: BTreeMap<String, String>,
}

impl ThemeShelf {
    /// A shelf with the user's theme files, as name without `.toml` and text.
    #[must_use]
    pub fn new(user: BTreeMap<String, String>) -> Self {
        Self { user }
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.extend(self.user.keys().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// Loads a theme for a terminal.
    ///
    /// # Errors
    /// When there is no such theme or its file is wrong; the error names theme, role and value.
    pub fn load(&self, name: &str, depth: Depth) -> Result<Theme, ThemeError> {
        let text = self.user.get(name).map(String::as_str).or_else(|| built_in(name));
        let Some(text) = text else {
            return Err(ThemeError::Unknown { name: name.to_owned(), known: self.names().join(", ") });
        };
        let mut roles =
            built_in(DEFAULT_THEME).map_or_else(|| Ok(BTreeMap::new()), |t| parse_roles(DEFAULT_THEME, t))?;
        roles.extend(parse_roles(name, text)?);
        let file = parse_file(name, text)?;
        let ground = roles.get("text").copied().unwrap_or_default();
        let styles = Role::ALL
            .iter()
            .map(|(role, role_name)| {
                let own = roles.get(*role_name).copied().unwrap_or_default();
                // A selected row keeps the colours of its cells; everything else has a colour of its own.
                let whole = match role {
                    Role::Selection => own,
                    _ => Style { fg: own.fg.or(ground.fg), ..own },
                };
                reduce(*role, whole, depth)
            })
            .collect();
        Ok(Theme { name: name.to_owned(), title: file.title.unwrap_or_else(|| name.to_owned()), styles })
    }
}

fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

fn parse_file(name: &str, text: &str) -> Result<ThemeFile, ThemeError> {
    toml::from_str(text).map_err(|error| ThemeError::Syntax { name: name.to_owned(), reason: toml_fault(text, &error) })
}

fn parse_roles(name: &str, text: &str) -> Result<BTreeMap<&'static str, Style>, ThemeError> {
    let mut styles = BTreeMap::new();
    for (role, value) in parse_file(name, text)?.roles {
        let wrong =
            |reason| ThemeError::Value { name: name.to_owned(), role: role.clone(), value: value.clone(), reason };
        let Some((_, known)) = Role::ALL.iter().find(|(_, known)| *known == role) else {
            return Err(wrong("there is no such role"));
        };
        styles.insert(*known, parse_style(&value).map_err(wrong)?);
    }
    Ok(styles)
}

/// Parses `COLOUR [on COLOUR] [bold|dim|italic|underline|reverse]…`; a colour is `#rrggbb`, `default`, a number of
/// the 256-colour palette, or an ANSI name such as `bright-blue`.
fn parse_style(text: &str) -> Result<Style, &'static str> {
    let mut style = Style::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "on" => style.bg = Some(parse_colour(words.next().ok_or("a colour is missing after 'on'")?)?),
            "bold" => style = style.add_modifier(Modifier::BOLD),
            "dim" => style = style.add_modifier(Modifier::DIM),
            "italic" => style = style.add_modifier(Modifier::ITALIC),
            "underline" => style = style.add_modifier(Modifier::UNDERLINED),
            "reverse" => style = style.add_modifier(Modifier::REVERSED),
            colour => style.fg = Some(parse_colour(colour)?),
        }
    }
    Ok(style)
}

fn parse_colour(text: &str) -> Result<Color, &'static str> {
    if let Some(hex) = text.strip_prefix('#') {
        let number = u32::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 6).ok_or("write colours as #rrggbb")?;
        let [_, red, green, blue] = number.to_be_bytes();
        return Ok(Color::Rgb(red, green, blue));
    }
    if let Ok(index) = text.parse::<u8>() {
        return Ok(Color::Indexed(index));
    }
    Ok(match text {
        "default" => Color::Reset,
        "black" => Color::Black,
        "red" => Color::Red,
        "green" => Color::Green,
        "yellow" => Color::Yellow,
        "blue" => Color::Blue,
        "magenta" => Color::Magenta,
        "cyan" => Color::Cyan,
        "white" => Color::Gray,
        "bright-black" => Color::DarkGray,
        "bright-red" => Color::LightRed,
        "bright-green" => Color::LightGreen,
        "bright-yellow" => Color::LightYellow,
        "bright-blue" => Color::LightBlue,
        "bright-magenta" => Color::LightMagenta,
        "bright-cyan" => Color::LightCyan,
        "bright-white" => Color::White,
        _ => return Err("unknown colour or attribute"),
    })
}

fn reduce(role: Role, style: Style, depth: Depth) -> Style {
    if depth == Depth::Mono {
        let meaning = match role {
            Role::Selection | Role::ButtonFocus | Role::Badge => Modifier::REVERSED,
            Role::Accent | Role::Title | Role::Error | Role::Warn | Role::Key | Role::BorderFocus => Modifier::BOLD,
            Role::Input => Modifier::UNDERLINED,
            _ => Modifier::empty(),
        };
        return Style::new().fg(Color::Reset).bg(Color::Reset).add_modifier(meaning);
    }
    Style { fg: style.fg.map(|c| reduce_colour(c, depth)), bg: style.bg.map(|c| reduce_colour(c, depth)), ..style }
}

/// The levels of the 6×6×6 cube of the 256-colour palette (xterm, `256colres.pl`).
const CUBE: [u8; 6] = [0, 95, 135, 175, 215, 255];

/// The 16 ANSI colours as xterm shows them by default (`XTerm-col.ad`).
const ANSI: [(Color, [u8; 3]); 16] = [
    (Color::Black, [0, 0, 0]),
    (Color::Red, [205, 0, 0]),
    (Color::Green, [0, 205, 0]),
    (Color::Yellow, [205, 205, 0]),
    (Color::Blue, [0, 0, 238]),
    (Color::Magenta, [205, 0, 205]),
    (Color::Cyan, [0, 205, 205]),
    (Color::Gray, [229, 229, 229]),
    (Color::DarkGray, [127, 127, 127]),
    (Color::LightRed, [255, 0, 0]),
    (Color::LightGreen, [0, 255, 0]),
    (Color::LightYellow, [255, 255, 0]),
    (Color::LightBlue, [92, 92, 255]),
    (Color::LightMagenta, [255, 0, 255]),
    (Color::LightCyan, [0, 255, 255]),
    (Color::White, [255, 255, 255]),
];

fn reduce_colour(colour: Color, depth: Depth) -> Color {
    let rgb = match (colour, depth) {
        (Color::Rgb(red, green, blue), Depth::Indexed | Depth::Ansi) => [red, green, blue],
        (Color::Indexed(index), Depth::Ansi) => palette(index),
        _ => return colour,
    };
    if depth == Depth::Indexed {
        return Color::Indexed(nearest_indexed(rgb));
    }
    ANSI.iter().min_by_key(|(_, known)| distance(*known, rgb)).map_or(Color::Reset, |(colour, _)| *colour)
}

fn palette(index: u8) -> [u8; 3] {
    match index {
        0..=15 => ANSI[usize::from(index)].1,
        16..=231 => {
            let cube = usize::from(index - 16);
            [CUBE[cube / 36], CUBE[cube / 6 % 6], CUBE[cube % 6]]
        }
        232.. => [8 + (index - 232) * 10; 3],
    }
}

fn nearest_indexed(rgb: [u8; 3]) -> u8 {
    (16..=255).min_by_key(|index| distance(palette(*index), rgb)).unwrap_or(16)
}

/// Squared distance, weighted as the eye weighs red, green and blue (the "redmean" constants without the mean).
fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    const WEIGHTS: [u32; 3] = [3, 6, 2];
    a.iter().zip(b).zip(WEIGHTS).map(|((a, b), weight)| weight * u32::from(a.abs_diff(b)).pow(2)).sum()
}

impl Theme {
    /// The style of a role.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    /// A theme that needs no file: for the moment when even the default cannot be read.
    #[must_use]
    pub fn plain() -> Self {
        let styles = Role::ALL.iter().map(|(role, _)| reduce(*role, Style::new(), Depth::Mono)).collect();
        Self { name: "plain".to_owned(), title: "plain".to_owned(), styles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_theme_names_every_role() {
        for (name, text) in BUILT_IN {
            let roles = parse_roles(name, text).expect("parses");
            for (_, role) in Role::ALL {
                assert!(roles.contains_key(role), "theme {name} lacks {role}");
            }
            for depth in [Depth::True, Depth::Indexed, Depth::Ansi, Depth::Mono] {
                ThemeShelf::default().load(name, depth).expect("loads");
            }
        }
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance([red, green, blue]: [u8; 3]) -> f64 {
        let part = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue)
    }

    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn rgb(colour: Option<Color>) -> Option<[u8; 3]> {
        match colour? {
            Color::Rgb(red, green, blue) => Some([red, green, blue]),
            Color::Indexed(index) => Some(palette(index)),
            other => ANSI.iter().find(|(known, _)| *known == other).map(|(_, rgb)| *rgb),
        }
    }

    /// The least contrast of any text of a theme on any ground that it may stand on, with the role.
    fn least_contrast(theme: &Theme) -> (f64, &'static str) {
        // Lines and areas are no text.
        let drawn = [Role::Border, Role::BorderFocus, Role::Chart, Role::ChartAlt, Role::Selection];
        let grounds = [Role::Text, Role::Popup, Role::Header, Role::Footer, Role::Selection];
        let mut least = (f64::INFINITY, "");
        for (role, name) in Role::ALL.iter().filter(|(role, _)| !drawn.contains(role)) {
            let style = theme.style(*role);
            let own = rgb(style.bg);
            for ground in grounds {
                let under = theme.style(ground);
                // What has a ground of its own is no cell of a list; a selection with letters of its own recolours cells.
                let (text, ground) = match (ground, own) {
                    (Role::Selection, Some(_)) => continue,
                    (Role::Selection, None) => (rgb(under.fg).or(rgb(style.fg)), rgb(under.bg)),
                    (_, own) => (rgb(style.fg), own.or(rgb(under.bg))),
                };
                let Some((text, ground)) = text.zip(ground) else { continue };
                let found = contrast(text, ground);
                if found < least.0 {
                    least = (found, name);
                }
            }
        }
        least
    }

    #[test]
    fn text_of_every_built_in_theme_stands_out_from_its_ground() {
        // The terminal's own colours are the terminal's business.
        for (name, _) in BUILT_IN.iter().filter(|(name, _)| *name != "terminal") {
            for (depth, wanted) in [(Depth::True, 4.5), (Depth::Indexed, 4.5), (Depth::Ansi, 3.0)] {
                let theme = ThemeShelf::default().load(name, depth).expect("loads");
                let (least, role) = least_contrast(&theme);
                assert!(least >= wanted, "{name} {depth:?}: {role} has {least:.2}:1");
            }
        }
    }

    #[test]
    fn without_colour_the_selection_is_reversed_and_nothing_is_coloured() {
        let theme = ThemeShelf::default().load("dark", Depth::Mono).expect("loads");
        assert!(theme.style(Role::Selection).add_modifier.contains(Modifier::REVERSED));
        for (role, name) in Role::ALL {
            let style = theme.style(*role);
            assert_eq!((style.fg, style.bg), (Some(Color::Reset), Some(Color::Reset)), "{name}");
        }
    }

    #[test]
    fn reduced_themes_hold_no_colour_that_the_terminal_lacks() {
        for (name, _) in BUILT_IN {
            let theme = ThemeShelf::default().load(name, Depth::Ansi).expect("loads");
            for (role, _) in Role::ALL {
                let style = theme.style(*role);
                for colour in [style.fg, style.bg].into_iter().flatten() {
                    assert!(!matches!(colour, Color::Rgb(..) | Color::Indexed(_)), "{name}: {colour:?}");
                }
            }
        }
    }

    #[test]
    fn a_faulty_file_is_told_in_one_line_with_its_place() {
        let shelf = ThemeShelf::new([("mine".to_owned(), "title = \"Mine\"\nnonsense =\n".to_owned())].into());
        let fault = shelf.load("mine", Depth::True).expect_err("faulty").to_string();
        assert!(fault.starts_with("theme \"mine\": line 2, column ") && !fault.contains('\n'), "{fault}");
    }

    #[test]
    fn depth_follows_the_environment() {
        let depth = |pairs: &[(&str, &str)]| {
            Depth::detect(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(depth(&[("COLORTERM", "truecolor"), ("TERM", "xterm")]), Depth::True);
        assert_eq!(depth(&[("TERM", "xterm-256color")]), Depth::Indexed);
        assert_eq!(depth(&[("TERM", "linux")]), Depth::Ansi);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]), Depth::Mono);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]), Depth::Indexed);
    }

    #[test]
    fn a_wrong_user_theme_says_what_is_wrong() {
        let shelf = |text: &str| ThemeShelf::new(BTreeMap::from([("mine".to_owned(), text.to_owned())]));
        let error = shelf("[roles]\naccent = \"#12\"").load("mine", Depth::True).expect_err("wrong colour");
        assert_eq!(error.to_string(), "theme \"mine\": accent = \"#12\": write colours as #rrggbb");
        let error = shelf("[roles]\nacent = \"red\"").load("mine", Depth::True).expect_err("wrong role");
        assert!(error.to_string().contains("no such role"));
        let own = shelf("title = \"Mine\"\n[roles]\naccent = \"red bold\"").load("mine", Depth::True).expect("loads");
        assert_eq!(own.style(Role::Accent).fg, Some(Color::Red));
        assert_ne!(own.style(Role::Border), Style::new(), "the rest comes from the default theme");
    }
}
