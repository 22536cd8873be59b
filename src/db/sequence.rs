//! The sequences of ids. Replication and restores can leave one behind the rows of its table: then
//! it assigns ids that exist.

use sqlx::PgConnection;

/// A sequence that will assign an id that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceBehind {
    /// Its name, without the schema.
    pub name: String,
    /// The highest id that exists.
    pub highest: i64,
}

impl SequenceBehind {
    /// The statement that repairs it.
    pub fn cure(&self) -> String {
        format!("select setval('cmdb.{}', {})", self.name, self.highest)
    }
}

/// Finds the sequences that are behind the rows of their tables.
pub async fn list_behind(conn: &mut PgConnection) -> sqlx::Result<Vec<SequenceBehind>> {
    sqlx::query_as!(
        SequenceBehind,
        r#"select sequence as "name!", highest as "highest!"
           from (values
               ('instance_association_id_seq', (select max(id) from cmdb.instance_association)),
               ('audit_log_id_seq', (select max(id) from cmdb.audit_log)),
               ('tenant_id_seq', (select max(id) from cmdb.tenant)),
               ('model_id_seq', (select max(id) from cmdb.model)),
               ('association_kind_id_seq', (select max(id) from cmdb.association_kind)),
               -- The ids of model associations are four times these numbers, plus the mapping.
               ('model_association_number_seq', (select max(id) >> 2 from cmdb.model_association)),
               ('app_id_seq', (select max(id) from cmdb.app)),
               ('app_secret_id_seq', (select max(id) from cmdb.app_secret)),
               ('permission_grant_id_seq', (select max(id) from cmdb.permission_grant))
           ) assigned (sequence, highest)
           join pg_sequences on schemaname = 'cmdb' and sequencename = sequence
           where highest > coalesce(last_value, 0)
           order by sequence"#
    )
    .fetch_all(conn)
    .await
}
