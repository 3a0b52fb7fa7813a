//! What goes into a statement and what comes out of one, the same for both databases.
//!
//! Three kinds of value are enough here: 64-bit numbers, texts, bytes. Which table a row is of is not known here.

use super::{StoreError, Stored};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

/// A value bound to a place of a statement.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number.
    Int(i64),
    /// A number, or NULL.
    MaybeInt(Option<i64>),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// A row of an answer.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

/// Reads one column as `$kind`, whichever database the row is of.
macro_rules! column {
    ($row:expr, $index:expr, $kind:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get::<$kind, usize>($index),
            Row::Postgres(row) => row.try_get::<$kind, usize>($index),
        }
        .map_err(|_| unexpected($index))
    };
}

impl Row {
    /// A number that fits `T`.
    ///
    /// # Errors
    /// `Broken` when there is another thing in that column; the same below.
    pub fn number<T: TryFrom<i64>>(&self, index: usize) -> Stored<T> {
        let number = column!(self, index, i64)?;
        T::try_from(number).map_err(|_| unexpected(index))
    }

    /// A number that fits `T`, or NULL.
    pub fn maybe_number<T: TryFrom<i64>>(&self, index: usize) -> Stored<Option<T>> {
        let number = column!(self, index, Option<i64>)?;
        number.map(|number| T::try_from(number).map_err(|_| unexpected(index))).transpose()
    }

    /// A text.
    pub fn text(&self, index: usize) -> Stored<String> {
        column!(self, index, String)
    }

    /// The same, where it lies.
    pub fn text_in_place(&self, index: usize) -> Stored<&str> {
        column!(self, index, &str)
    }

    /// A column as a server sent it, in its binary form; `None` for NULL, and where no server sent it.
    ///
    /// # Errors
    /// As [`Row::number`].
    pub fn raw(&self, index: usize) -> Stored<Option<&[u8]>> {
        let Self::Postgres(row) = self else { return Ok(None) };
        let value = row.try_get_raw(index).map_err(|_| unexpected(index))?;
        if value.is_null() { Ok(None) } else { value.as_bytes().map(Some).map_err(|_| unexpected(index)) }
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&self, index: usize) -> Stored<[u8; N]> {
        let bytes = column!(self, index, Vec<u8>)?;
        bytes.try_into().map_err(|_| unexpected(index))
    }
}

/// What to say of a column that holds another thing than the schema has there.
pub fn unexpected(index: usize) -> StoreError {
    StoreError::Broken(format!("column {index} of its answer holds what it should not: the schema was changed by hand"))
}

/// A number as the database keeps it.
///
/// # Errors
/// `Invalid` above 2^63 − 1, which is more than a column holds.
pub fn stored_number(number: u64) -> Stored<i64> {
    i64::try_from(number).map_err(|_| StoreError::Invalid(format!("{number} is above {}", i64::MAX)))
}

/// A text as the database keeps it.
///
/// # Errors
/// `Invalid` when it is longer than `bytes_max`, or holds the character NUL, which PostgreSQL does not keep.
pub fn stored_text<'a>(what: &str, text: &'a str, bytes_max: usize) -> Stored<Value<'a>> {
    if text.len() > bytes_max {
        return Err(StoreError::Invalid(format!("{what} is longer than {bytes_max} bytes")));
    }
    if text.contains('\0') {
        return Err(StoreError::Invalid(format!("{what} holds the character NUL")));
    }
    Ok(Value::Text(text))
}
