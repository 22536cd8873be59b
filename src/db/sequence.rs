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
    pub fn repair_statement(&self) -> String {
        format!("select setval('cmdb.{}', {})", self.name, self.highest)
    }
}

/// Finds the sequences that are behind the rows of their tables.
pub async fn list_behind(conn: &mut PgConnection) -> sqlx::Result<Vec<SequenceBehind>> {
    // The next value is after `last_value`, or is `last_value` itself while `is_called` is false.
    sqlx::query_as!(
        SequenceBehind,
        r#"select sequence as "name!", highest as "highest!"
           from (
               select 'instance_association_id_seq', last_value, is_called,
                   (select max(id) from cmdb.instance_association)
               from cmdb.instance_association_id_seq
               union all
               select 'audit_log_id_seq', last_value, is_called,
                   (select max(id) from cmdb.audit_log)
               from cmdb.audit_log_id_seq
               union all
               select 'tenant_id_seq', last_value, is_called, (select max(id) from cmdb.tenant)
               from cmdb.tenant_id_seq
               union all
               -- The id of a new model is its number, too.
               select 'model_id_seq', last_value, is_called,
                   (select max(greatest(id, number)) from cmdb.model)
               from cmdb.model_id_seq
               union all
               select 'association_kind_id_seq', last_value, is_called,
                   (select max(greatest(id, number)) from cmdb.association_kind)
               from cmdb.association_kind_id_seq
               union all
               -- The ids of model associations are four times these numbers, plus the mapping.
               select 'model_association_number_seq', last_value, is_called,
                   (select max(id) >> 2 from cmdb.model_association)
               from cmdb.model_association_number_seq
               union all
               select 'app_id_seq', last_value, is_called, (select max(id) from cmdb.app)
               from cmdb.app_id_seq
               union all
               select 'app_secret_id_seq', last_value, is_called,
                   (select max(id) from cmdb.app_secret)
               from cmdb.app_secret_id_seq
               union all
               select 'permission_grant_id_seq', last_value, is_called,
                   (select max(id) from cmdb.permission_grant)
               from cmdb.permission_grant_id_seq
               union all
               select 'instance_id_seq', last_value, is_called,
                   (select max((
                       select instance_id from cmdb.instance where model_id = model.id
                       order by model_id desc, instance_id desc limit 1))
                   from cmdb.model where not is_built_in)
               from cmdb.instance_id_seq
               union all
               select 'host_id_seq', last_value, is_called,
                   (select instance_id from cmdb.instance
                   where model_id = (select id from cmdb.model where key = 'host')
                   order by model_id desc, instance_id desc limit 1)
               from cmdb.host_id_seq
           ) assigned (sequence, last_value, is_called, highest)
           where highest > last_value or (highest = last_value and not is_called)
           order by sequence"#
    )
    .fetch_all(conn)
    .await
}
