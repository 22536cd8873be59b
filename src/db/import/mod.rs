//! The import of an export: rows are copied into temporary tables (stages), and then merged.
//!
//! Each stage is merged by a script beside this file. The scripts read temporary tables, so sqlx
//! cannot check them at compile time; the tests of the import run each of them.

use std::fmt::Write;

use sqlx::{FromRow, PgConnection};

/// A temporary table of rows that are merged together. The order is that of merging.
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
    /// Association ids that BlueKing CMDB has assigned.
    AssignedIds,
    /// Links.
    Links,
}

impl Stage {
    /// All stages, in the order of merging.
    pub const ALL: [Self; 6] = [
        Self::Models,
        Self::Kinds,
        Self::Instances,
        Self::ModelAssociations,
        Self::AssignedIds,
        Self::Links,
    ];

    fn copy_statement(self) -> &'static str {
        match self {
            Self::Models => "copy staged_model from stdin",
            Self::Kinds => "copy staged_kind from stdin",
            Self::Instances => "copy staged_instance from stdin",
            Self::ModelAssociations => "copy staged_model_association from stdin",
            Self::AssignedIds => "copy staged_assigned_id from stdin",
            Self::Links => "copy staged_link from stdin",
        }
    }

    fn merge_script(self) -> &'static str {
        match self {
            Self::Models => include_str!("models.sql"),
            Self::Kinds => include_str!("kinds.sql"),
            Self::Instances => include_str!("instances.sql"),
            Self::ModelAssociations => include_str!("model_associations.sql"),
            Self::AssignedIds => include_str!("assigned_ids.sql"),
            Self::Links => include_str!("links.sql"),
        }
    }
}

/// A row of a stage without its file and line, in the text format of COPY.
#[derive(Debug, Default)]
pub struct Row(String);

impl Row {
    /// Adds a text without its NUL characters, which a text column cannot store. Only names can
    /// have them: keys were checked.
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

    /// Appends the row, with its file and line, to the input of a COPY.
    pub fn write_to(&self, copy: &mut String, file: usize, line: u64) {
        let _ = writeln!(copy, "{file}\t{line}{}", self.0);
    }
}

/// A row of the export that is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// The number of the file.
    pub file: usize,
    /// The line on which the row's document begins.
    pub line: u64,
    /// Why the row is not imported.
    pub reason: String,
}

/// How many rows of a file a merge wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// The number of the file.
    pub file: usize,
    /// Rows that were inserted.
    pub added: u64,
    /// Rows that changed a stored row.
    pub updated: u64,
}

/// Whether the database holds nothing but the built-in data of the migrations: 12 models, 6
/// association kinds and 1 model association.
pub async fn is_empty(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select not exists (select from instance)
               and not exists (select from instance_association)
               and not exists (select from app) and not exists (select from audit_log)
               and not exists (select from model where export_number is not null)
               and (select count(*) from model) = 12 and (select count(*) from association_kind) = 6
               and (select count(*) from model_association) = 1 as "is_empty!""#
    )
    .fetch_one(conn)
    .await
}

/// Creates the stages. They are dropped when the transaction ends.
pub async fn create_stages(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("create_stages.sql")).execute(conn).await.map(drop)
}

/// Copies rows, as [`Row::write_to`] wrote them, into a stage.
pub async fn stage(conn: &mut PgConnection, stage: Stage, rows: String) -> sqlx::Result<()> {
    let mut copy = conn.copy_in_raw(stage.copy_statement()).await?;
    copy.send(rows.into_bytes()).await?;
    copy.finish().await.map(drop)
}

/// Stores rows that were rejected before they were staged, and the association ids in them.
pub async fn insert_rejected_rows(
    conn: &mut PgConnection,
    rows: &[RejectedRow],
    assigned_ids: &[i64],
) -> sqlx::Result<()> {
    let files: Vec<i32> = rows.iter().map(|row| i32::try_from(row.file).unwrap_or(-1)).collect();
    let lines: Vec<i64> = rows.iter().map(|row| i64::try_from(row.line).unwrap_or(-1)).collect();
    let reasons: Vec<&str> = rows.iter().map(|row| row.reason.as_str()).collect();
    sqlx::query(
        "with assigned as (
             insert into staged_assigned_id select -1, 0, id from unnest($4::bigint[]) id
         )
         insert into rejected_row select * from unnest($1::integer[], $2::bigint[], $3::text[])",
    )
    .bind(files)
    .bind(lines)
    .bind(reasons)
    .bind(assigned_ids)
    .execute(conn)
    .await
    .map(drop)
}

/// Blocks other writers of links until the transaction ends. Inserts the tenants of staged rows.
pub async fn begin_merging(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("begin_merging.sql")).execute(conn).await.map(drop)
}

/// Merges a stage into the stored data.
pub async fn merge(conn: &mut PgConnection, stage: Stage) -> sqlx::Result<Vec<MergeCounts>> {
    let rows = sqlx::raw_sql(stage.merge_script()).fetch_all(conn).await?;
    let counts = |row| {
        let (file, added, updated): (i32, i64, i64) = FromRow::from_row(row)?;
        Ok(MergeCounts { file: unsigned(file), added: unsigned(added), updated: unsigned(updated) })
    };
    rows.iter().map(counts).collect()
}

/// Passes each rejected row to `take`, in the order of files and lines.
pub async fn for_each_rejected_row(
    conn: &mut PgConnection,
    mut take: impl FnMut(RejectedRow),
) -> sqlx::Result<()> {
    // A cursor, because millions of rows may be rejected. It is closed when the transaction ends.
    let declare = "declare rejected_rows cursor for
                   select file, line, reason from rejected_row order by file, line";
    sqlx::query(declare).execute(&mut *conn).await?;
    loop {
        let rows: Vec<(i32, i64, String)> =
            sqlx::query_as("fetch 1000 from rejected_rows").fetch_all(&mut *conn).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for (file, line, reason) in rows {
            take(RejectedRow { file: unsigned(file), line: unsigned(line), reason });
        }
    }
}

/// Converts a number of the database that is never negative.
fn unsigned<S, U: TryFrom<S> + Default>(number: S) -> U {
    U::try_from(number).unwrap_or_default()
}
