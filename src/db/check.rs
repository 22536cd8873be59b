//! Looking for what the stored data must never be, without trusting what keeps it so.

use sqlx::PgConnection;

/// Something that must hold, and a query for what breaks it: how much that is in all, and some of it in words.
pub struct Invariant {
    /// What must hold.
    pub name: &'static str,
    sql: &'static str,
}

/// What breaks an invariant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// How much there is.
    pub count: i64,
    /// The first of it, in words.
    pub examples: Vec<String>,
}

/// Whatever must hold for the data to be sound.
pub const INVARIANTS: [Invariant; 11] = [
    Invariant {
        name: "every link is under a model association",
        sql: "select count(*) over (), format('link %s is under model association number %s', id, model_association_id)
              from instance_association link
              where not exists (select from model_association a where a.id = link.model_association_id)
              order by id limit 10",
    },
    Invariant {
        name: "every link's source instance exists",
        sql: "select count(*) over (), format('link %s is from instance %s of %s', link.id, source_id, model.key)
              from instance_association link
              join model_association association on association.id = link.model_association_id
              left join model on model.id = association.source_model_id
              where not exists (
                  select from instance i
                  where i.model_id = association.source_model_id and i.instance_id = link.source_id)
              order by link.id limit 10",
    },
    Invariant {
        name: "every link's target instance exists",
        sql: "select count(*) over (), format('link %s is to instance %s of %s', link.id, target_id, model.key)
              from instance_association link
              join model_association association on association.id = link.model_association_id
              left join model on model.id = association.target_model_id
              where not exists (
                  select from instance i
                  where i.model_id = association.target_model_id and i.instance_id = link.target_id)
              order by link.id limit 10",
    },
    Invariant {
        name: "every link's account exists",
        sql: "select count(*) over (), format('link %s is of account number %s', id, tenant_id)
              from instance_association link
              where not exists (select from tenant a where a.id = link.tenant_id)
              order by id limit 10",
    },
    Invariant {
        name: "a pair stands once under its model association",
        sql: "select count(*) over (), format('links %s are one pair', string_agg(id::text, ', ' order by id))
              from instance_association
              group by model_association_id, source_id, target_id having count(*) > 1
              order by min(id) limit 10",
    },
    Invariant {
        name: "under 1:1 a source is the source of one link",
        sql: "select count(*) over (), format('%s is 1:1, and links %s are from instance %s', min(association.key),
                  string_agg(link.id::text, ', ' order by link.id), source_id)
              from instance_association link
              join model_association association on association.id = model_association_id and mapping = '1:1'
              group by model_association_id, source_id having count(*) > 1
              order by min(link.id) limit 10",
    },
    Invariant {
        name: "under 1:1 and 1:n a target is the target of one link",
        sql: "select count(*) over (), format('%s is %s, and links %s are to instance %s', min(association.key),
                  min(mapping), string_agg(link.id::text, ', ' order by link.id), target_id)
              from instance_association link
              join model_association association
                  on association.id = model_association_id and mapping in ('1:1', '1:n')
              group by model_association_id, target_id having count(*) > 1
              order by min(link.id) limit 10",
    },
    Invariant {
        name: "no link is in two audit records",
        sql: "select count(*) over (), format('audit record %s has ids of another one between %s and %s', id, lower, upper - 1)
              from (
                  select id, lower(ids), upper(ids),
                      max(upper(ids)) over (order by lower(ids), id rows between unbounded preceding and 1 preceding) as before
                  from audit_log, unnest(association_ids) ids
              ) record
              where before > lower
              order by lower limit 10",
    },
    Invariant {
        name: "an answer that is kept names what its request created",
        sql: "select count(*) over (), format('the answer under key %s of %s for %s names links %s that its request did not create',
                  key, app, user_name, association_ids)
              from idempotency_record record
              where not isempty(association_ids) and not exists (
                  select from audit_log
                  where (audit_log.request_id, audit_log.association_ids) = (record.request_id, record.association_ids))
              order by key limit 10",
    },
    Invariant {
        name: "the next association id is a new one",
        sql: "select 1::bigint, format('id %s was given, and the sequence stands at %s', highest.id, last_value)
              from (
                  select greatest(
                      (select max(id) from instance_association),
                      (select max(upper(association_ids)) - 1 from audit_log)) as id
              ) highest, instance_association_id_seq
              where highest.id > last_value or (highest.id = last_value and not is_called)",
    },
    Invariant {
        name: "the indexes, constraints and triggers that keep this so are in force",
        sql: "with wanted (kind, owner, name) as (values
                  ('index', 'instance_association', 'instance_association_pkey'),
                  ('index', 'instance_association', 'instance_association_source_key'),
                  ('index', 'instance_association', 'instance_association_target_key'),
                  ('index', 'instance', 'instance_pkey'),
                  ('index', 'model_association', 'model_association_pkey'),
                  ('constraint', 'model_association', 'model_association_id_check'),
                  ('constraint', 'model_association', 'model_association_mapping_check'),
                  ('trigger', 'model_association', 'model_association_assign_id'),
                  ('trigger', 'instance_association', 'instance_association_guard_insert'),
                  ('trigger', 'instance_association', 'instance_association_guard_update'),
                  ('trigger', 'instance', 'instance_wait'),
                  ('trigger', 'instance', 'instance_wait_update'),
                  ('trigger', 'instance', 'instance_restrict_linked_delete'),
                  ('trigger', 'instance', 'instance_restrict_linked_delete_update'),
                  ('trigger', 'instance', 'instance_restrict_linked_delete_truncate'),
                  ('trigger', 'model_association', 'model_association_wait'),
                  ('trigger', 'model_association', 'model_association_restrict_linked_delete'),
                  ('trigger', 'model_association', 'model_association_restrict_linked_delete_truncate'),
                  ('trigger', 'app', 'app_bump_cache_version'),
                  ('trigger', 'app_secret', 'app_secret_bump_cache_version'),
                  ('trigger', 'permission_grant', 'permission_grant_bump_cache_version'),
                  ('trigger', 'model', 'model_bump_cache_version'),
                  ('trigger', 'model_association', 'model_association_bump_cache_version'),
                  ('trigger', 'tenant', 'tenant_bump_cache_version'),
                  ('trigger', 'tenant', 'tenant_keep'),
                  ('trigger', 'tenant', 'tenant_keep_update')
              ),
              in_force (kind, owner, name) as (
                  select 'index', indrelid, relname
                  from pg_index join pg_class on pg_class.oid = indexrelid where indisunique and indisvalid
                  union all
                  select 'constraint', conrelid, conname from pg_constraint where convalidated
                  union all
                  select 'trigger', tgrelid, tgname from pg_trigger where tgenabled in ('O', 'A')
              )
              select count(*) over (), format('the %s %s of %s is missing or disabled', kind, name, owner)
              from wanted
              where not exists (
                  select from in_force
                  where (in_force.kind, in_force.owner, in_force.name::text)
                      = (wanted.kind, to_regclass(wanted.owner), wanted.name))
              order by name limit 10",
    },
];

/// Links that no audit record has: somebody wrote them past the server.
pub const UNAUDITED: Invariant = Invariant {
    name: "every link was written by the server or an import",
    // Each link is matched with the last record that begins at or before it: one sort, whatever the sizes.
    sql: "with record as (
              select lower(ids), upper(ids) from audit_log, unnest(association_ids) ids
          ),
          placed as (
              select id, max(begins) over (order by coalesce(begins, id), id nulls first) as begins
              from (
                  select null::bigint as id, lower as begins from record
                  union all
                  select id, null from instance_association
              ) entry
          )
          select count(*) over (), format('link %s is in no audit record', placed.id)
          from placed left join record on record.lower = placed.begins
          where placed.id is not null and (record.upper is null or record.upper <= placed.id)
          order by placed.id limit 10",
};

/// What breaks an invariant now.
pub async fn find(conn: &mut PgConnection, invariant: &Invariant) -> sqlx::Result<Violations> {
    let rows: Vec<(i64, String)> = sqlx::query_as(invariant.sql).fetch_all(conn).await?;
    Ok(Violations {
        count: rows.first().map_or(0, |(count, _)| *count),
        examples: rows.into_iter().map(|(_, example)| example).collect(),
    })
}
