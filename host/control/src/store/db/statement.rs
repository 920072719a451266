//! A statement in the subset that SQLite and PostgreSQL share, with its values.
//!
//! Every statement of the store is one of these, but for the few in `db/` that only one of
//! the databases has. Placeholders are `$1…`; a value has the same meaning on both: a UUID
//! is 16 bytes, an instant or count a 64-bit integer. Invariant: the text is a constant, so
//! no value ever becomes part of it.

use std::borrow::Cow;

use sqlx::{FromRow, Postgres, Sqlite, postgres::PgRow, query::QueryAs, sqlite::SqliteRow};
use uuid::Uuid;

use super::transaction::{Connection, Tx};
use crate::store::StoreError;

/// Something that a row of either database can be read as.
pub(in crate::store) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A value for a placeholder; `None` is NULL of that type.
pub(in crate::store) enum Value<'q> {
    Uuid(Option<Uuid>),
    Text(Option<Cow<'q, str>>),
    Int(Option<i64>),
    Bool(Option<bool>),
    Bytes(Option<&'q [u8]>),
}

macro_rules! values {
    ($($from:ty => $variant:ident($value:ident: $into:expr);)*) => {$(
        impl<'q> From<$from> for Value<'q> {
            fn from($value: $from) -> Self {
                Self::$variant($into)
            }
        }
    )*};
}

values! {
    Uuid => Uuid(value: Some(value));
    Option<Uuid> => Uuid(value: value);
    &'q str => Text(value: Some(value.into()));
    String => Text(value: Some(value.into()));
    &'q String => Text(value: Some(value.into()));
    Option<&'q str> => Text(value: value.map(Cow::Borrowed));
    i64 => Int(value: Some(value));
    Option<i64> => Int(value: value);
    bool => Bool(value: Some(value));
    &'q [u8] => Bytes(value: Some(value));
    &'q Vec<u8> => Bytes(value: Some(value));
}

/// A statement with its values, in the order of the placeholders.
pub(in crate::store) struct Statement<'q> {
    sql: &'static str,
    postgres: &'static str,
    values: Vec<Value<'q>>,
}

/// A statement without values yet.
pub(in crate::store) fn sql<'q>(sql: &'static str) -> Statement<'q> {
    Statement { sql, postgres: sql, values: Vec::new() }
}

/// A query whose rows stay as they are until the end of the transaction: PostgreSQL locks
/// them, and on SQLite a transaction that writes excludes every other.
macro_rules! locking {
    ($sql:literal) => {
        $crate::store::db::sql_each($sql, concat!($sql, " FOR UPDATE"))
    };
}
pub(in crate::store) use locking;

/// A statement that has to be spelled differently.
pub(in crate::store) fn sql_each<'q>(
    sqlite: &'static str,
    postgres: &'static str,
) -> Statement<'q> {
    Statement { sql: sqlite, postgres, values: Vec::new() }
}

/// Gives a driver's query its values.
macro_rules! bound {
    ($query:expr, $values:expr) => {
        $values.into_iter().fold($query, |query, value| match value {
            Value::Uuid(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Int(value) => query.bind(value),
            Value::Bool(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        })
    };
}

type SqliteQuery<'q, T> = QueryAs<'q, Sqlite, T, sqlx::sqlite::SqliteArguments<'q>>;
type PostgresQuery<'q, T> = QueryAs<'q, Postgres, T, sqlx::postgres::PgArguments>;

impl<'q> Statement<'q> {
    /// Adds the value of the next placeholder.
    pub(in crate::store) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it changed.
    pub(in crate::store) async fn execute<S>(self, tx: &mut Tx<S>) -> Result<u64, StoreError> {
        let Self { sql, postgres, values } = self;
        tx.on_connection(async |connection| match connection {
            Connection::Sqlite(connection) => bound!(sqlx::query(sql), values)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
            Connection::Postgres(connection) => bound!(sqlx::query(postgres), values)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
        })
        .await
    }

    /// Runs it; all its rows.
    pub(in crate::store) async fn all<T: Row, S>(
        self,
        tx: &mut Tx<S>,
    ) -> Result<Vec<T>, StoreError> {
        tx.on_connection(async |connection| match connection {
            Connection::Sqlite(connection) => self.sqlite::<T>().fetch_all(&mut **connection).await,
            Connection::Postgres(connection) => {
                self.postgres::<T>().fetch_all(&mut **connection).await
            }
        })
        .await
    }

    /// Runs it; its row, if there is one.
    pub(in crate::store) async fn optional<T: Row, S>(
        self,
        tx: &mut Tx<S>,
    ) -> Result<Option<T>, StoreError> {
        tx.on_connection(async |connection| match connection {
            Connection::Sqlite(connection) => {
                self.sqlite::<T>().fetch_optional(&mut **connection).await
            }
            Connection::Postgres(connection) => {
                self.postgres::<T>().fetch_optional(&mut **connection).await
            }
        })
        .await
    }

    /// Runs it; its one row.
    pub(in crate::store) async fn one<T: Row, S>(self, tx: &mut Tx<S>) -> Result<T, StoreError> {
        let row = self.optional(tx).await?;
        row.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    fn sqlite<T: Row>(self) -> SqliteQuery<'q, T> {
        bound!(sqlx::query_as(self.sql), self.values)
    }

    fn postgres<T: Row>(self) -> PostgresQuery<'q, T> {
        bound!(sqlx::query_as(self.postgres), self.values)
    }
}
