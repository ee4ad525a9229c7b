//! Values of `types` as columns and back: ids and enums by their serialised names, addresses by their text.
//!
//! Used by every table file. Must never guess: a column that does not parse is an error that names it. A column is named, or told by
//! its place where many rows are read: a name is compared with those of all columns before it, in every row.

use rusqlite::types::Type;
use rusqlite::{Row, RowIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;

/// The serialised name of an enum's variant or id: what is stored in a TEXT column.
pub(super) fn name<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        Ok(other) => Err(rusqlite::Error::ToSqlConversionFailure(format!("{other} is not a name").into())),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    }
}

/// JSON text of a value.
pub(super) fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

/// A value from its serialised name.
pub(super) fn named<T: DeserializeOwned>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T> {
    from_name(row.get_ref(column)?.as_str()?, column, row)
}

/// A value from its serialised name, or none.
pub(super) fn named_or_none<T: DeserializeOwned>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| from_name(text, column, row)).transpose()
}

fn from_name<T: DeserializeOwned>(text: &str, column: impl RowIndex, row: &Row<'_>) -> rusqlite::Result<T> {
    let name = StrDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(name).map_err(|error| unreadable(row, column, error))
}

/// A value from JSON text.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(row, column, error))
}

/// A value from text by its own parser.
pub(super) fn parsed<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| unreadable(row, column, error))
}

/// A value from text by its own parser, or none.
pub(super) fn parsed_or_none<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?
        .as_str_or_null()?
        .map(|text| text.parse().map_err(|error| unreadable(row, column, error)))
        .transpose()
}

fn unreadable<E>(row: &Row<'_>, column: impl RowIndex, error: E) -> rusqlite::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let index = column.idx(row.as_ref()).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
}

/// An unsigned number for an INTEGER column; beyond `i64` it stays at the largest.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An unsigned number from an INTEGER column; a negative one is 0.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
