//! The import of an export: rows are copied into temporary tables (stages), and then merged.
//!
//! The scripts beside this file create and merge the stages. They use temporary tables, so sqlx
//! cannot check them at compile time; the tests of the import run each of them.

use std::fmt::{Display, Write};

use futures_util::Stream;
use sqlx::{FromRow, PgConnection};

/// A temporary table of rows that are merged together. Files are read in the order of their stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the other stages are named after their rows")]
pub enum Stage {
    Classifications,
    Models,
    Kinds,
    Instances,
    ModelAssociations,
    /// The highest ids that BlueKing CMDB has assigned.
    AssignedIds,
    Links,
}

impl Stage {
    fn table(self) -> &'static str {
        match self {
            Self::Classifications => "staged_classification",
            Self::Models => "staged_model",
            Self::Kinds => "staged_kind",
            Self::Instances => "staged_instance",
            Self::ModelAssociations => "staged_model_association",
            Self::AssignedIds => "staged_assigned_id",
            Self::Links => "staged_link",
        }
    }
}

/// A row of a stage without its file and line, in the text format of COPY.
#[derive(Debug, Default)]
pub struct Row(String);

impl Row {
    /// Adds a value without its NUL characters, which a text column cannot store. Keys have none:
    /// they were checked.
    #[must_use]
    pub fn value(mut self, value: impl Display) -> Self {
        self.0.push('\t');
        for character in value.to_string().chars() {
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

    /// Adds a value or null.
    #[must_use]
    pub fn optional(mut self, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            return self.value(value);
        }
        self.0.push_str("\t\\N");
        self
    }

    /// Appends the row, with its file and line, to the input of a COPY.
    pub fn write_to(&self, copy: &mut String, file: i32, line: i64) {
        // Writing to a String cannot fail.
        let _ = writeln!(copy, "{file}\t{line}{}", self.0);
    }
}

/// The rows of a part of a file, as [`Row::write_to`] writes them.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Rows of the file's stage.
    pub rows: String,
    /// Rows that are invalid in any database: the reason, and the association id or null.
    pub rejected_rows: String,
    /// What is imported otherwise than it is in the export.
    pub warnings: String,
}

impl Chunk {
    /// Its size, in bytes.
    pub fn length(&self) -> usize {
        self.rows.len() + self.rejected_rows.len() + self.warnings.len()
    }
}

/// How many rows of a file were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct MergeCounts {
    /// The number of the file.
    pub file: i32,
    /// Rows that were inserted.
    pub added: i64,
    /// Rows that changed a stored row.
    pub updated: i64,
}

/// A row of the export that is rejected, or that is imported with a warning.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ReportedRow {
    /// The number of the file.
    pub file: i32,
    /// The line on which the row's document begins.
    pub line: i64,
    /// Why the row is not imported, or how it is imported.
    pub reason: String,
    /// Whether the row is not imported.
    pub is_rejected: bool,
}

/// Whether the database has no inventory and no application but the data of the migrations: 12
/// models, 6 association kinds and 1 model association, perhaps changed by an import.
pub async fn is_empty(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select not exists (select from cmdb.instance)
               and not exists (select from cmdb.instance_association)
               and not exists (select from cmdb.app) and not exists (select from cmdb.audit_log)
               and (select count(*) from cmdb.model) = 12
               and (select count(*) from cmdb.association_kind) = 6
               and (select count(*) from cmdb.model_association) = 1 as "is_empty!""#
    )
    .fetch_one(conn)
    .await
}

/// Whether no instance is stored, so that an import creates most of its rows.
pub async fn has_no_instance(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select not exists (select from cmdb.instance) as "has_none!""#)
        .fetch_one(conn)
        .await
}

/// Creates the stages. They are dropped when the transaction ends.
pub async fn create_stages(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("create_stages.sql")).execute(conn).await.map(drop)
}

/// Copies rows into a stage, and those that are invalid into the rejected ones.
pub async fn copy(conn: &mut PgConnection, stage: Stage, chunk: Chunk) -> sqlx::Result<()> {
    for (table, rows) in [
        (stage.table(), chunk.rows),
        ("rejected_row", chunk.rejected_rows),
        ("row_warning", chunk.warnings),
    ] {
        if !rows.is_empty() {
            let mut copy = conn.copy_in_raw(&format!("copy {table} from stdin")).await?;
            copy.send(rows.into_bytes()).await?;
            copy.finish().await?;
        }
    }
    Ok(())
}

/// Merges the stages into the stored data. Blocks other writers of model associations, and, once
/// the rows that change something are known, writers of links, until the transaction ends.
pub async fn merge(conn: &mut PgConnection) -> sqlx::Result<Vec<MergeCounts>> {
    let scripts = concat!(
        include_str!("begin_merging.sql"),
        include_str!("classifications.sql"),
        include_str!("models.sql"),
        include_str!("kinds.sql"),
        include_str!("model_associations.sql"),
        include_str!("instance_changes.sql"),
        include_str!("link_changes.sql"),
        include_str!("lock_links.sql"),
        include_str!("instances.sql"),
        include_str!("assigned_ids.sql"),
        include_str!("links.sql"),
    );
    let rows = sqlx::raw_sql(scripts).fetch_all(conn).await?;
    rows.iter().map(MergeCounts::from_row).collect()
}

/// The rejected rows and the warnings, in the order of files and lines. There may be millions.
pub fn reported_rows(conn: &mut PgConnection) -> impl Stream<Item = sqlx::Result<ReportedRow>> {
    sqlx::query_as(
        "select file, line, reason, true as is_rejected from rejected_row
         union all select file, line, warning, false from row_warning
         order by file, line",
    )
    .fetch(conn)
}
