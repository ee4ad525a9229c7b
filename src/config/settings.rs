//! The values in force with their source: layers, `flm.toml`, precedence (SPEC §1.4).
//!
//! Built by front ends and owner at start and on reload. Must never change a value that was built: a reload builds
//! a new snapshot or keeps the old one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::files;
use super::kinds::Value;
use super::table::{Definition, Readable, SETTINGS, Setting};
use crate::types::calls::settings::{SettingSource, SettingView};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// The values in force: an immutable snapshot, shared as `Arc` and swapped on reload.
///
/// Precedence: flag > environment (`FLM_` + key in upper case with `_` for `.`) > `flm.toml` > database > default.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Values that some layer gave; what is not here has its default.
    given: BTreeMap<&'static str, (Value, SettingSource)>,
    warnings: Vec<String>,
}

/// Where values come from, strongest first.
#[derive(Debug, Clone, Default)]
pub struct SettingLayers {
    /// From the command line.
    pub flags: BTreeMap<String, String>,
    /// From the environment.
    pub environment: BTreeMap<String, String>,
    /// From `flm.toml`.
    pub file: BTreeMap<String, String>,
    /// From `config.db`.
    pub database: BTreeMap<String, String>,
}

impl SettingLayers {
    /// Reads `flm.toml` into dotted keys; an absent file is empty.
    ///
    /// # Errors
    /// `PROXY_INVALID_CONFIG` that names file, line, column and reason: wrong TOML, an unknown key, a value that
    /// breaks its rule. `IO_ERROR` when the file cannot be read.
    pub fn read_file(path: &Path) -> Outcome<BTreeMap<String, String>> {
        let Some(text) = files::read_if_exists(path)? else { return Ok(BTreeMap::new()) };
        let at = |span: Option<Range<usize>>, why: &str| {
            let place = span.map_or_else(String::new, |span| {
                let (line, column) = line_and_column(&text, span.start);
                format!(", line {line}, column {column}")
            });
            Failure::new(
                ErrorCode::ProxyInvalidConfig,
                format!("{}{place}: {}", escape(&path.to_string_lossy()), escape(why)),
            )
            .hint("correct the file and try again; 'flm config list' shows every setting with its rule")
        };
        let table = DeTable::parse(&text).map_err(|error| at(error.span(), error.message()))?;
        let mut found = BTreeMap::new();
        flatten(table.get_ref(), "", &mut found).map_err(|(span, why)| at(Some(span), &why))?;
        Ok(found)
    }

    /// Picks the `FLM_…` variables that name settings out of the given environment.
    pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let names: BTreeMap<_, _> = SETTINGS.iter().map(|d| (d.variable(), d.key)).collect();
        variables.filter_map(|(name, value)| names.get(&name).map(|key| ((*key).to_owned(), value))).collect()
    }
}

/// A place in `flm.toml` and what is wrong there.
type Misplaced = (Range<usize>, String);

/// Turns tables into dotted keys, and checks each value where it stands.
fn flatten(table: &DeTable<'_>, prefix: &str, found: &mut BTreeMap<String, String>) -> Result<(), Misplaced> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(inner, &key, found)?;
            continue;
        }
        let definition = find(&key).ok_or_else(|| (name.span(), unknown(&key)))?;
        let text = scalar(value.get_ref()).ok_or_else(|| (value.span(), broken(definition, "this value")))?;
        if definition.kind.parse(&text).is_none() {
            return Err((value.span(), broken(definition, &format!("{text:?}"))));
        }
        found.insert(key, text);
    }
    Ok(())
}

/// A TOML value as a setting is written; lists are joined by commas.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Array(items) => {
            items.iter().map(|item| scalar(item.get_ref())).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        _ => None,
    }
}

/// What is wrong with a TOML text, in one line: the place and the reason.
#[must_use]
pub fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
    format!("line {line}, column {column}: {}", error.message().trim().replace('\n', ", "))
}

/// Line and column from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

impl Settings {
    /// Parses and checks every layer.
    ///
    /// A stored value that this version does not know or allow keeps the next weaker one and is told by
    /// [`Settings::warnings`]: a home that another version wrote must still open.
    ///
    /// # Errors
    /// `PROXY_INVALID_CONFIG` for the first wrong value of flags, environment or `flm.toml`; it names key, layer,
    /// value and rule.
    pub fn build(layers: &SettingLayers) -> Outcome<Self> {
        let mut settings = Self::default();
        // Weakest first, so that stronger layers replace.
        for (key, text) in &layers.database {
            match read(key, text) {
                Ok((definition, value)) => settings.give(definition, value, SettingSource::Database),
                Err(why) => settings.warnings.push(format!("the stored setting {} is not used: {why}", escape(key))),
            }
        }
        for (layer, source, name) in [
            (&layers.file, SettingSource::File, "flm.toml"),
            (&layers.environment, SettingSource::Environment, "the environment"),
            (&layers.flags, SettingSource::Flag, "the command line"),
        ] {
            for (key, text) in layer {
                let (definition, value) = read(key, text).map_err(|why| {
                    let place = match (source, find(key)) {
                        (SettingSource::Environment, Some(definition)) => format!("{name} ({})", definition.variable()),
                        _ => name.to_owned(),
                    };
                    Failure::new(ErrorCode::ProxyInvalidConfig, format!("in {place}: {why}"))
                        .hint("'flm config list' shows every setting with its value and where it comes from")
                })?;
                settings.give(definition, value, source);
            }
        }
        Ok(settings)
    }

    fn give(&mut self, definition: &Definition, value: Value, source: SettingSource) {
        self.given.insert(definition.key, (value, source));
    }

    /// The value in force.
    #[must_use]
    pub fn get<T: Readable>(&self, setting: Setting<T>) -> T {
        // The table's own test proves that every constant has the type of its kind, so the last resort is never met.
        self.given
            .get(setting.definition.key)
            .and_then(|(value, _)| T::read(value))
            .or_else(|| T::read(&setting.definition.kind.default_value()))
            .unwrap_or_default()
    }

    /// Stored values that are not used, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Keys whose value differs between two snapshots and takes effect only after a restart.
    #[must_use]
    pub fn needing_restart(&self, newer: &Self) -> Vec<&'static str> {
        use crate::types::calls::settings::ReloadClass;
        SETTINGS
            .iter()
            .filter(|d| d.reload == ReloadClass::Restart && self.value(d).0 != newer.value(d).0)
            .map(|d| d.key)
            .collect()
    }

    /// Keys whose value differs between two snapshots.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<&'static str> {
        SETTINGS.iter().filter(|d| self.value(d).0 != newer.value(d).0).map(|d| d.key).collect()
    }

    /// Whether some layer gives the value, rather than the built-in default.
    #[must_use]
    pub fn is_given<T>(&self, setting: Setting<T>) -> bool {
        self.given.contains_key(setting.definition.key)
    }

    /// Checks one value for the table without storing it.
    ///
    /// # Errors
    /// `NOT_FOUND` with near matches for an unknown key, `PROXY_INVALID_CONFIG` for a value that breaks the rule.
    pub fn check(key: &str, value: &str) -> Outcome<()> {
        let definition = known(key)?;
        if definition.kind.parse(value).is_some() {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::ProxyInvalidConfig, broken(definition, &format!("{:?}", shortened(value)))).hint(
            match definition.kind.default_value().show().as_str() {
                "" => "by default it is empty".to_owned(),
                default => format!("the default is {default}"),
            },
        ))
    }

    /// All settings for people, by key.
    #[must_use]
    pub fn list(&self) -> Vec<SettingView> {
        SETTINGS.iter().map(|definition| self.view_of(definition)).collect()
    }

    /// One setting for people.
    ///
    /// # Errors
    /// `NOT_FOUND` that names near matches.
    pub fn view(&self, key: &str) -> Outcome<SettingView> {
        known(key).map(|definition| self.view_of(definition))
    }

    fn value(&self, definition: &Definition) -> (Value, SettingSource) {
        self.given
            .get(definition.key)
            .cloned()
            .unwrap_or_else(|| (definition.kind.default_value(), SettingSource::Default))
    }

    fn view_of(&self, definition: &Definition) -> SettingView {
        let (value, source) = self.value(definition);
        SettingView {
            key: definition.key.to_owned(),
            value: value.show(),
            default: definition.kind.default_value().show(),
            unit: definition.unit.to_owned(),
            doc: definition.doc().to_owned(),
            source,
            reload: definition.reload,
        }
    }
}

fn find(key: &str) -> Option<&'static Definition> {
    SETTINGS.binary_search_by(|definition| definition.key.cmp(key)).ok().map(|index| SETTINGS[index])
}

fn known(key: &str) -> Outcome<&'static Definition> {
    find(key)
        .ok_or_else(|| Failure::new(ErrorCode::NotFound, unknown(key)).hint("'flm config list' shows every setting"))
}

fn read(key: &str, text: &str) -> Result<(&'static Definition, Value), String> {
    let definition = find(key).ok_or_else(|| unknown(key))?;
    let value = definition.kind.parse(text).ok_or_else(|| broken(definition, &format!("{:?}", shortened(text))))?;
    Ok((definition, value))
}

/// Why a value does not fit.
fn broken(definition: &Definition, value: &str) -> String {
    format!("{} cannot be {value}: it must be {}", definition.key, definition.kind.rule())
}

/// Says that a key is unknown, with up to three that are written alike.
fn unknown(key: &str) -> String {
    let mut near: Vec<_> = SETTINGS
        .iter()
        .map(|d| (distance(key, d.key), d.key))
        .filter(|(distance, known)| {
            let last = known.rsplit('.').next().unwrap_or(known);
            *distance <= 3.max(key.len() / 4)
                || key == last
                || known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        })
        .collect();
    near.sort_unstable();
    let near: Vec<_> = near.into_iter().take(3).map(|(_, key)| key).collect();
    let mut message = format!("there is no setting {}", escape(&shortened(key)));
    if !near.is_empty() {
        message.push_str("; did you mean ");
        message.push_str(&near.join(" or "));
        message.push('?');
    }
    message
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Levenshtein distance in characters. Two rows, as the whole table is not needed.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(80).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::table;

    fn layer(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn toml(text: &str) -> Outcome<BTreeMap<String, String>> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("flm.toml");
        files::replace(&path, text.as_bytes(), files::Audience::Everyone).expect("writes");
        SettingLayers::read_file(&path)
    }

    #[test]
    fn without_layers_every_value_is_the_default() {
        let settings = Settings::default();
        assert_eq!(settings.get(table::PROXY_HEAD_TIMEOUT), Duration::from_secs(10));
        assert_eq!(settings.get(table::PROXY_BODY_LIMIT), 32 << 20);
        assert_eq!(settings.get(table::CONSOLE_ON_HANGUP), "background");
        assert_eq!(settings.get(table::CORS_ALLOWED_ORIGINS), Vec::<String>::new());
        assert!(settings.list().iter().all(|view| view.source == SettingSource::Default));
    }

    #[test]
    fn the_stronger_layer_wins_and_is_named() {
        let mut layers = SettingLayers { database: layer(&[("log.level", "warn")]), ..SettingLayers::default() };
        let expect = |layers: &SettingLayers, value: &str, source| {
            let settings = Settings::build(layers).expect("builds");
            let view = settings.view("log.level").expect("known");
            assert_eq!((view.value.as_str(), view.source), (value, source));
            assert_eq!(settings.get(table::LOG_LEVEL), value);
        };
        expect(&layers, "warn", SettingSource::Database);
        layers.file = layer(&[("log.level", "error")]);
        expect(&layers, "error", SettingSource::File);
        layers.environment = layer(&[("log.level", "debug")]);
        expect(&layers, "debug", SettingSource::Environment);
        layers.flags = layer(&[("log.level", "trace")]);
        expect(&layers, "trace", SettingSource::Flag);
    }

    #[test]
    fn a_wrong_value_is_told_with_key_layer_value_and_rule() {
        let layers = SettingLayers { environment: layer(&[("console.refresh", "1000")]), ..SettingLayers::default() };
        let failure = Settings::build(&layers).expect_err("out of range");
        assert_eq!(failure.code, ErrorCode::ProxyInvalidConfig);
        for part in ["FLM_CONSOLE_REFRESH", "console.refresh", "1000", "from 1 to 60"] {
            assert!(failure.message.contains(part), "{part} in {}", failure.message);
        }
    }

    #[test]
    fn a_stored_value_of_another_version_is_a_warning() {
        let layers = SettingLayers {
            database: layer(&[("future.setting", "1"), ("log.level", "loud"), ("console.refresh", "5")]),
            ..SettingLayers::default()
        };
        let settings = Settings::build(&layers).expect("still opens");
        assert_eq!(settings.warnings().len(), 2, "{:?}", settings.warnings());
        assert_eq!(settings.get(table::LOG_LEVEL), "info");
        assert_eq!(settings.get(table::CONSOLE_REFRESH), 5);
    }

    #[test]
    fn an_unknown_key_names_near_matches() {
        for (typed, meant) in [
            ("proxy.head_timeuot", "proxy.head_timeout"),
            ("level", "log.level"),
            ("preferred-language", "preferred_language"),
        ] {
            let failure = Settings::default().view(typed).expect_err("unknown");
            assert_eq!(failure.code, ErrorCode::NotFound);
            assert!(failure.message.contains(meant), "{typed}: {}", failure.message);
        }
        let failure = Settings::check("qqqqqqqq", "1").expect_err("unknown");
        assert!(!failure.message.contains("did you mean"), "{}", failure.message);
    }

    #[test]
    fn checking_says_what_a_value_must_be() {
        Settings::check("engine.gap_timeout", "90s").expect("fits");
        let failure = Settings::check("engine.gap_timeout", "fast").expect_err("no time");
        assert!(failure.message.contains("a time such as"), "{}", failure.message);
        assert!(failure.hint.expect("hint").contains("2m"));
    }

    #[test]
    fn the_environment_names_settings_in_upper_case() {
        let variables = [("FLM_PROXY_BODY_LIMIT", "1MiB"), ("FLM_HOME", "/x"), ("PATH", "/bin")];
        let found = SettingLayers::from_environment(variables.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        assert_eq!(found, layer(&[("proxy.body_limit", "1MiB")]));
    }

    #[test]
    fn flm_toml_takes_tables_dotted_keys_lists_and_bare_numbers() {
        let found = toml(
            "preferred_language = \"ja\"\nconsole.mouse = false\n[proxy]\nhead_timeout = 20\n\
             allowed_hosts = [\"a.example\", \"b.example\"]\n[engine]\ngap_timeout = \"3m\"\n",
        )
        .expect("reads");
        let settings = Settings::build(&SettingLayers { file: found, ..SettingLayers::default() }).expect("builds");
        assert_eq!(settings.get(table::PREFERRED_LANGUAGE), "ja");
        assert!(!settings.get(table::CONSOLE_MOUSE));
        assert_eq!(settings.get(table::PROXY_HEAD_TIMEOUT), Duration::from_secs(20));
        assert_eq!(settings.get(table::PROXY_ALLOWED_HOSTS), ["a.example", "b.example"]);
        assert_eq!(settings.get(table::ENGINE_GAP_TIMEOUT), Duration::from_mins(3));
    }

    #[test]
    fn mistakes_in_flm_toml_are_told_with_line_and_column() {
        for (text, place, part) in [
            ("[proxy]\nhead_timeout = = 1\n", "line 2, column", ""),
            ("# é\n[proxy]\n  hed_timeout = 1\n", "line 3, column 3", "did you mean proxy.head_timeout?"),
            ("[console]\nrefresh = \"fast\"\n", "line 2, column 11", "from 1 to 60"),
            ("[console]\nrefresh = 1.5\n", "line 2, column 11", "from 1 to 60"),
            ("console = 3\n", "line 1, column 1", "did you mean console."),
            ("\u{feff}log.level = \"info\" x", "line 1", ""),
        ] {
            let failure = toml(text).expect_err(text);
            assert_eq!(failure.code, ErrorCode::ProxyInvalidConfig);
            assert!(failure.message.contains(place), "{place} in {}", failure.message);
            assert!(failure.message.contains(part), "{part} in {}", failure.message);
        }
    }

    #[test]
    fn an_absent_flm_toml_is_empty() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(SettingLayers::read_file(&folder.path().join("flm.toml")).expect("empty").is_empty());
        assert_eq!(toml("").expect("empty"), BTreeMap::new());
    }

    #[test]
    fn a_reload_knows_which_changes_need_a_restart() {
        let old = Settings::default();
        let flags = layer(&[("proxy.workers", "2"), ("log.level", "debug")]);
        let new = Settings::build(&SettingLayers { flags, ..SettingLayers::default() }).expect("builds");
        assert_eq!(old.needing_restart(&new), ["proxy.workers"]);
    }
}
