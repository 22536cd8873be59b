//! Queries that find invalid data. They read the tables and do not rely on the constraints.

use sqlx::{AssertSqlSafe, PgConnection};

/// A rule for the stored data, and a query that finds what violates it.
pub struct Invariant {
    /// The rule.
    pub name: &'static str,
    /// Returns a row for each violation: a number to order by, and a description.
    sql: &'static str,
}

/// What violates an invariant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// How many violations there are.
    pub count: i64,
    /// Descriptions of the first 10.
    pub examples: Vec<String>,
}

/// The rules that sound data follows.
pub const INVARIANTS: [Invariant; 21] = [
    Invariant {
        name: "every instance's model and tenant exist",
        sql: "select instance_id,
                  format('instance %s: model %s or tenant %s does not exist',
                      instance_id, model_id, tenant_id)
              from cmdb.instance
              where not exists (select from cmdb.model where id = model_id)
                  or not exists (select from cmdb.tenant where id = instance.tenant_id)",
    },
    Invariant {
        name: "every instance has one document, which has its tenant",
        sql: "select instance_id,
                  format('instance %s of model %s: %s', instance_id,
                      coalesce((select key from cmdb.model where id = model_id), '(unknown)'),
                      case
                          when documents is null then 'it has no document'
                          when instance.tenant_id is null
                          then 'it does not exist, but has a document'
                          when documents > 1 then format('it has %s documents', documents)
                          else 'its document belongs to another tenant'
                      end)
              from cmdb.instance
              full join (
                  select model_id, instance_id, min(tenant_id) as tenant_id, count(*) as documents
                  from cmdb.instance_document group by model_id, instance_id
              ) document using (model_id, instance_id)
              where (documents, instance.tenant_id)
                  is distinct from (1::bigint, document.tenant_id)",
    },
    Invariant {
        name: "every document has the id, the name, the model and the tenant of its instance",
        sql: "select instance_id,
                  format('instance %s of model %s: its document has not %s', instance_id, model.key,
                      expected)
              from cmdb.instance
              join cmdb.instance_document using (model_id, instance_id)
              join cmdb.model on model.id = model_id
              join cmdb.tenant on tenant.id = instance.tenant_id
              cross join cmdb.new_document(model.key, tenant.key, instance_id, instance.name)
                  expected
              where not document @> expected",
    },
    Invariant {
        name: "a reserved name is the one of its instance",
        sql: "select instance_id,
                  format('instance %s of model %s: the name %s is reserved', instance_id,
                      model.key, unique_name)
              from cmdb.instance
              join cmdb.instance_document using (model_id, instance_id)
              join cmdb.model on model.id = model_id
              where unique_name
                  <> coalesce(cmdb.unique_name(model.key, document, instance.name), '')",
    },
    Invariant {
        name: "no two instances of a model and a tenant have the same reserved name",
        sql: "select min(instance_id),
                  format('instances %s of model %s have the name %s',
                      string_agg(instance_id::text, ', ' order by instance_id),
                      coalesce((select key from cmdb.model where id = model_id), '(unknown)'),
                      unique_name)
              from cmdb.instance_document
              where unique_name is not null
              group by model_id, tenant_id, unique_name having count(*) > 1",
    },
    Invariant {
        name: "every link's model association exists",
        sql: "select id,
                  format('link %s: model association %s does not exist', id, model_association_id)
              from cmdb.instance_association link
              where not exists (
                  select from cmdb.model_association where id = link.model_association_id)",
    },
    Invariant {
        name: "every link's source and target instances exist",
        sql: "select link.id,
                  format('link %s: %s instance %s of model %s does not exist',
                      link.id, role, wanted.instance_id, coalesce(model.key, '(unknown)'))
              from cmdb.instance_association link
              join cmdb.model_association association on association.id = link.model_association_id
              cross join lateral (values
                  ('source', source_model_id, source_id), ('target', target_model_id, target_id)
              ) wanted (role, model_id, instance_id)
              left join cmdb.model on model.id = wanted.model_id
              where not exists (
                  select from cmdb.instance
                  where (instance.model_id, instance.instance_id)
                      = (wanted.model_id, wanted.instance_id))",
    },
    Invariant {
        name: "every link's tenant sees its source and target instances",
        sql: "select link.id,
                  format('link %s: %s instance %s of model %s belongs to another tenant',
                      link.id, role, end_of_link.instance_id, model.key)
              from cmdb.instance_association link
              join cmdb.model_association association on association.id = link.model_association_id
              cross join lateral (values
                  ('source', source_model_id, source_id), ('target', target_model_id, target_id)
              ) end_of_link (role, model_id, instance_id)
              join cmdb.model on model.id = end_of_link.model_id
              join cmdb.instance using (model_id, instance_id)
              where instance.tenant_id <> link.tenant_id
                  and not (instance.tenant_id = 0 and is_built_in)",
    },
    Invariant {
        name: "every link's tenant exists",
        sql: "select id, format('link %s: tenant %s does not exist', id, tenant_id)
              from cmdb.instance_association link
              where not exists (select from cmdb.tenant where id = link.tenant_id)",
    },
    Invariant {
        name: "no two links of a model association have the same source and target",
        sql: "select min(id),
                  format('links %s have the same source and target',
                      string_agg(id::text, ', ' order by id))
              from cmdb.instance_association
              group by model_association_id, source_id, target_id having count(*) > 1",
    },
    Invariant {
        name: "in a 1:1 model association, no two links have the same source",
        sql: "select min(link.id),
                  format('%s is 1:1, but links %s have source %s', min(association.key),
                      string_agg(link.id::text, ', ' order by link.id), source_id)
              from cmdb.instance_association link
              join cmdb.model_association association
                  on association.id = model_association_id and mapping = '1:1'
              group by model_association_id, source_id having count(*) > 1",
    },
    Invariant {
        name: "in a 1:1 or 1:n model association, no two links have the same target",
        sql: "select min(link.id),
                  format('%s is %s, but links %s have target %s', min(association.key),
                      min(mapping), string_agg(link.id::text, ', ' order by link.id), target_id)
              from cmdb.instance_association link
              join cmdb.model_association association
                  on association.id = model_association_id and mapping in ('1:1', '1:n')
              group by model_association_id, target_id having count(*) > 1",
    },
    Invariant {
        name: "no link is in two audit records of creations, or in two of deletions",
        sql: "select lower,
                  format('audit record %s shares %s ids between %s and %s with another record',
                      id, change, lower, upper - 1)
              from (
                  select id, change, lower(ids), upper(ids),
                      max(upper(ids)) over (
                          partition by change order by lower(ids), id
                          rows between unbounded preceding and 1 preceding) as highest_upper_before
                  from cmdb.audit_log
                  cross join lateral (values
                      ('created', association_ids), ('deleted', deleted_ids)
                  ) changed (change, id_ranges)
                  cross join unnest(id_ranges) ids
              ) id_range
              where highest_upper_before > lower",
    },
    Invariant {
        name: "no stored link is in an audit record of a deletion",
        sql: "select id, format('link %s is stored, but a request deleted it', id)
              from cmdb.instance_association
              where id <@ (select range_agg(deleted_ids) from cmdb.audit_log)",
    },
    Invariant {
        name: "every request that undid another deleted links that the other had created",
        sql: "select id,
                  format('audit record %s: request %s, which it undid, did not create links %s',
                      id, undone_record_id, deleted_ids)
              from cmdb.audit_log undo
              where undone_record_id is not null and not exists (
                      select from cmdb.audit_log
                      where id = undo.undone_record_id and association_ids @> undo.deleted_ids)
                  and (deleted_ids <@ (
                      select range_agg(association_ids) from cmdb.audit_log
                      where origin = 'purge')) is not true",
    },
    Invariant {
        name: "every idempotency record names the links that its request created or deleted",
        sql: "select 1::bigint,
                  format(
                      'idempotency key %s of app %s and user %s: '
                      'request %s did not create or delete links %s',
                      key, app, user_name, request_id, association_ids + deleted_ids)
              from cmdb.idempotency_record record
              where not (isempty(association_ids) and isempty(deleted_ids)) and not exists (
                  select from cmdb.audit_log logged
                  where (logged.request_id, logged.association_ids, logged.deleted_ids)
                      = (record.request_id, record.association_ids, record.deleted_ids))",
    },
    Invariant {
        name: "the next association id is higher than every assigned one",
        sql: "select highest.id,
                  format('id %s is assigned, but the sequence is at %s', highest.id, last_value)
              from (
                  select greatest(
                      (select max(id) from cmdb.instance_association),
                      (select max(upper(association_ids)) - 1 from cmdb.audit_log),
                      (select max(upper(deleted_ids)) - 1 from cmdb.audit_log)) as id
              ) highest, cmdb.instance_association_id_seq
              where highest.id > last_value or (highest.id = last_value and not is_called)",
    },
    // An import may bring back a deleted instance, but ids are assigned once.
    Invariant {
        name: "no instance is in two audit records of creations",
        sql: "select instance_id,
                  format('instance %s of model %s is in the audit records %s', instance_id,
                      coalesce((select key from cmdb.model where model.id = resource_id),
                          '(unknown)'),
                      string_agg(audit_log.id::text, ', ' order by audit_log.id))
              from cmdb.audit_log
              cross join unnest(instance_ids) instance_id
              where before is null
              group by resource_id, instance_id having count(*) > 1",
    },
    Invariant {
        name: "the next id of an instance is higher than every one assigned before",
        sql: "select highest,
                  format('id %s is assigned, but the sequence %s is at %s', highest, name,
                      last_value)
              from (
                  select coalesce(key = 'host', false) as is_host, max(assigned_id) as highest
                  from (
                      select resource_id as model_id, assigned_id
                      from cmdb.audit_log
                      cross join unnest(instance_ids) assigned_id
                      where before is null
                      union all
                      select model_id, max(instance_id) from cmdb.instance group by model_id
                  ) assigned
                  left join cmdb.model on model.id = model_id
                  where key = 'host' or is_built_in is not true
                  group by is_host
              ) assigned
              join (
                  select false as is_host, 'instance_id_seq' as name, last_value, is_called
                  from cmdb.instance_id_seq
                  union all
                  select true, 'host_id_seq', last_value, is_called from cmdb.host_id_seq
              ) sequence using (is_host)
              where highest > last_value or highest = last_value and not is_called",
    },
    Invariant {
        name: "cached data has a version",
        sql: "select 1::bigint, 'cache_version has no row'
              where not exists (select from cmdb.cache_version)",
    },
    Invariant {
        name: "the unique keys of links apply to their mappings",
        sql: "select 1::bigint, format('index %s does not apply where %s', name, condition)
              from (values
                  ('instance_association_pair_key', '((model_association_id & 3) <> 1)'),
                  ('instance_association_source_key', '((model_association_id & 3) = 1)'),
                  ('instance_association_target_key', '((model_association_id & 3) <> 3)')
              ) expected (name, condition)
              join pg_index on indexrelid = to_regclass('cmdb.' || name)
              where pg_get_expr(indpred, indrelid) is distinct from condition",
    },
];

/// Changes of links without an audit record: SQL clients made them, or the record was deleted. They
/// are allowed.
pub const UNAUDITED: [Invariant; 2] = [
    Invariant {
        name: "every link was written by the server or an import",
        sql: "select id, format('link %s is in no audit record', id)
              from cmdb.instance_association
              where (id <@ (select range_agg(association_ids) from cmdb.audit_log)) is not true",
    },
    // The stored ids are merged to ranges before range_agg, which needs memory for each element.
    Invariant {
        name: "every link that is gone was deleted by the server",
        sql: "select id,
                  format('link %s is gone, but in no audit record of a deletion', id)
              from (
                  select range_agg(association_ids) as created, range_agg(deleted_ids) as deleted
                  from cmdb.audit_log
              ) logged
              cross join (
                  select range_agg(ids) as ids
                  from (
                      select int8range(min(id), max(id), '[]') as ids
                      from (
                          select id, id - row_number() over (order by id) as island
                          from cmdb.instance_association
                      ) numbered
                      group by island
                  ) island
              ) stored
              cross join unnest(created - deleted - coalesce(stored.ids, '{}')) gone
              cross join generate_series(lower(gone), upper(gone) - 1) id",
    },
];

/// Finds what violates an invariant.
pub async fn find_violations(
    conn: &mut PgConnection, invariant: &Invariant,
) -> sqlx::Result<Violations> {
    let sql = format!(
        "select count(*) over (), description from ({}) violation (position, description)
         order by position, description limit 10",
        invariant.sql
    );
    let rows: Vec<(i64, String)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await?;
    Ok(Violations {
        count: rows.first().map_or(0, |(count, _)| *count),
        examples: rows.into_iter().map(|(_, example)| example).collect(),
    })
}
