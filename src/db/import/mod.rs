//! Feeding an export: rows are staged as they come, then merged set-wise, one collection after another.
//!
//! The merging is a script for each collection, beside this file. They work on temporary tables, so they
//! cannot be checked at compile time as other queries are; the tests of the import run every one.

use std::fmt::Write;

use futures_util::TryStreamExt;
use sqlx::FromRow;
use sqlx::PgConnection;

/// Rows that are staged and merged together, in the order of merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Models.
    Models,
    /// Association kinds.
    Kinds,
    /// Instances.
    Instances,
    /// Model associations.
    ModelAssociations,
    /// Association ids that were given away.
    HighestIds,
    /// Links.
    Links,
}

impl Stage {
    /// All of them, in the order of merging.
    pub const ALL: [Self; 6] = [
        Self::Models,
        Self::Kinds,
        Self::Instances,
        Self::ModelAssociations,
        Self::HighestIds,
        Self::Links,
    ];

    fn copy(self) -> &'static str {
        match self {
            Self::HighestIds => "copy staged_highest_id from stdin",
            Self::Models => "copy staged_model from stdin",
            Self::Kinds => "copy staged_kind from stdin",
            Self::ModelAssociations => "copy staged_model_association from stdin",
            Self::Instances => "copy staged_instance from stdin",
            Self::Links => "copy staged_link from stdin",
        }
    }

    fn merge(self) -> &'static str {
        match self {
            Self::HighestIds => include_str!("highest_ids.sql"),
            Self::Models => include_str!("models.sql"),
            Self::Kinds => include_str!("kinds.sql"),
            Self::ModelAssociations => include_str!("model_associations.sql"),
            Self::Instances => include_str!("instances.sql"),
            Self::Links => include_str!("links.sql"),
        }
    }
}

/// The columns of a staged row after its file and line, in the text format of COPY.
#[derive(Debug, Default)]
pub struct Row(String);

impl Row {
    /// Adds a text. NUL, which Postgres cannot hold, is dropped: names may have it, keys were checked.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.push('\t');
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                '\0' => {}
                other => self.0.push(other),
            }
        }
        self
    }

    /// Adds an integer.
    #[must_use]
    pub fn integer(mut self, integer: i64) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "\t{integer}");
        self
    }

    /// Adds a text or null.
    #[must_use]
    pub fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// Adds an integer or null.
    #[must_use]
    pub fn optional_integer(self, integer: Option<i64>) -> Self {
        match integer {
            Some(integer) => self.integer(integer),
            None => self.null(),
        }
    }

    fn null(mut self) -> Self {
        self.0.push_str("\t\\N");
        self
    }

    /// Appends the whole line to `chunk`.
    pub fn write_to(&self, chunk: &mut String, file: usize, line: u64) {
        let _ = writeln!(chunk, "{file}\t{line}{}", self.0);
    }
}

/// A row of the export that could not stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// The number of its file.
    pub file: usize,
    /// The line on which it begins.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What a merge did with the rows of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// The number of the file.
    pub file: usize,
    /// New rows.
    pub added: u64,
    /// Stored rows that say something else now.
    pub updated: u64,
}

/// Whether nothing was ever stored here but what the migrations bring: 12 models, 6 kinds, 1 association.
pub async fn is_empty(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select not exists (select from instance) and not exists (select from instance_association)
               and not exists (select from app) and not exists (select from audit_log)
               and not exists (select from model where export_number is not null)
               and (select count(*) from model) = 12 and (select count(*) from association_kind) = 6
               and (select count(*) from model_association) = 1 as "empty!""#
    )
    .fetch_one(conn)
    .await
}

/// Makes the tables that rows are staged in. They go with the transaction.
pub async fn create_stages(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("stages.sql")).execute(conn).await.map(drop)
}

/// Stages rows, as [`Row::write_to`] wrote them.
pub async fn stage(conn: &mut PgConnection, stage: Stage, rows: String) -> sqlx::Result<()> {
    let mut copy = conn.copy_in_raw(stage.copy()).await?;
    copy.send(rows.into_bytes()).await?;
    copy.finish().await.map(drop)
}

/// Reports rows that were found unfit before they were staged, and the association ids that they have.
pub async fn insert_left_out(
    conn: &mut PgConnection,
    rows: &[RejectedRow],
    given_ids: &[i64],
) -> sqlx::Result<()> {
    let files: Vec<i32> = rows.iter().map(|row| i32::try_from(row.file).unwrap_or(-1)).collect();
    let lines: Vec<i64> = rows.iter().map(|row| i64::try_from(row.line).unwrap_or(-1)).collect();
    let reasons: Vec<&str> = rows.iter().map(|row| row.reason.as_str()).collect();
    sqlx::query(
        "with given as (insert into staged_highest_id select -1, 0, id from unnest($4::bigint[]) id)
         insert into left_out select * from unnest($1::integer[], $2::bigint[], $3::text[])",
    )
    .bind(files)
    .bind(lines)
    .bind(reasons)
    .bind(given_ids)
    .execute(conn)
    .await
    .map(drop)
}

/// Holds back whoever writes links until the transaction ends, and makes the accounts that rows name.
pub async fn begin_merging(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("begin.sql")).execute(conn).await.map(drop)
}

/// Merges what was staged; what it did, by file.
pub async fn merge(conn: &mut PgConnection, stage: Stage) -> sqlx::Result<Vec<MergeCounts>> {
    let rows = sqlx::raw_sql(stage.merge()).fetch_all(conn).await?;
    let merged = |row| {
        let (file, added, updated): (i32, i64, i64) = FromRow::from_row(row)?;
        Ok(MergeCounts { file: unsigned(file), added: unsigned(added), updated: unsigned(updated) })
    };
    rows.iter().map(merged).collect()
}

/// Hands every row that was left out to `take`, in the order of files and lines.
pub async fn for_each_left_out(
    conn: &mut PgConnection,
    mut take: impl FnMut(RejectedRow),
) -> sqlx::Result<()> {
    let mut rows =
        sqlx::query_as("select file, line, reason from left_out order by file, line").fetch(conn);
    while let Some((file, line, reason)) = rows.try_next().await? {
        let (file, line): (i32, i64) = (file, line);
        take(RejectedRow { file: unsigned(file), line: unsigned(line), reason });
    }
    Ok(())
}

/// A number or count as Postgres has it: signed, and never negative.
fn unsigned<S, U: TryFrom<S> + Default>(number: S) -> U {
    U::try_from(number).unwrap_or_default()
}
