-- Creates links with their audit record and idempotency record, if nothing is in the way; otherwise
-- writes nothing and returns no row.
--
--   model association:  $1 id; $1 & 3 is the mapping: 1 is 1:1, 2 is 1:n, 3 is n:n
--   its models:         $2 source model, $3 whether it is built in, $4 target model, $5 likewise
--   caller:             $6 tenant, null if it is not stored; $7 cache version on which the request
--                       was authorized
--   links:              $8 source ids, $9 target ids
--   instances:          $10 sources and $11 targets that are looked up, each once; the others were
--                       found by an earlier batch under this cache version, and
--                       $19 audit record of the last such batch, null if there is none, $20 its
--                       request id
--   audit record:       $12 request id, $13 app, $14 user, $21 reason or null, $22 index of each
--                       link's detail, null if they are 0, 1, 2 and so on
--   idempotency record: $15 key or null, $16 request hash, $17 language,
--                       $18 error code of each detail, null if it is one of the links,
--                       $23 what was in the way of each detail, as JSON, or null
with
-- One row if nothing is in the way. Each search for a link is a scalar subquery that only one
-- unique index serves, so the plan does not depend on statistics.
clear as materialized (
    select
    where exists (select from cmdb.cache_version where version = $7)
        and not exists (
            select
            from unnest($8::bigint[], $9::bigint[]) pair (source_id, target_id)
            where case when $1 & 3 = 3 then
                    (select true from cmdb.instance_association link
                        where link.model_association_id = $1 and link.source_id = pair.source_id
                            and link.target_id = pair.target_id
                            and link.model_association_id & 3 <> 1)
                else
                    (select true from cmdb.instance_association link
                        where link.model_association_id = $1 and link.target_id = pair.target_id
                            and link.model_association_id & 3 <> 3)
                end
                or $1 & 3 = 1 and
                    (select true from cmdb.instance_association link
                        where link.model_association_id = $1 and link.source_id = pair.source_id
                            and link.model_association_id & 3 = 1))
        -- Everybody sees instances of tenant "0" (id 0) of a built-in model.
        and cardinality($10::bigint[]) = (
            select count(*) from cmdb.instance
            where model_id = $2 and instance_id = any ($10)
                and (tenant_id = $6 or tenant_id = 0 and $3))
        and cardinality($11::bigint[]) = (
            select count(*) from cmdb.instance
            where model_id = $4 and instance_id = any ($11)
                and (tenant_id = $6 or tenant_id = 0 and $5))
        -- A database that has lost its last commits has lost that record, too.
        and ($19::bigint is null
            or exists (
                select from cmdb.audit_log
                -- These conditions leave the primary key as the only index that serves the search.
                where id = $19 and origin = 'request' and request_id is not distinct from $20))
        -- Two conditions are always true and have side effects. Under 1:1 the statement takes an
        -- advisory lock on the model association until the commit, because no order of inserts
        -- avoids deadlocks between two unique keys; 1668113506 is "cmdb" in ASCII and tells this
        -- lock from other advisory locks. set_config lets the trigger of
        -- 0002_instance_association.sql skip its check: this statement has looked the instances up,
        -- or knows them.
        and case when $1 & 3 = 1
            then (select count(pg_advisory_xact_lock(1668113506, $1))) = 1
            else true
        end
        and set_config('cmdb.guard_may_skip', 'yes', true) = 'yes'
),
-- Ids ascend in the order of the links.
new_link as materialized (
    select nextval('cmdb.instance_association_id_seq') as id, source_id, target_id
    from clear, unnest($8::bigint[], $9::bigint[]) with ordinality
        link (source_id, target_id, position)
    order by position
),
-- Inserted in the order of targets, so that concurrent batches lock keys in the same order.
inserted as (
    insert into cmdb.instance_association
        (id, model_association_id, tenant_id, source_id, target_id)
    select id, $1, $6, source_id, target_id
    from new_link
    order by target_id, source_id
),
-- One row. The ids are null if there are no links.
new_id as materialized (
    select array_agg(id order by id) as ids, range_agg(int8range(id, id, '[]')) as ranges
    from new_link
),
audit_record as (
    insert into cmdb.audit_log
        (origin, request_id, app, user_name, tenant_id, model_association_id,
         association_ids, source_ids, target_ids, reason, detail_indexes, idempotency_key)
    select 'request', $12, $13, $14, $6, $1, ranges, $8, $9, $21, $22::smallint[], $15
    from new_id
    where ids is not null
    returning id
),
new_idempotency_record as (
    insert into cmdb.idempotency_record
        (app, user_name, key, request_hash, request_id, language, association_ids, refusals,
         explanations)
    select $13, $14, $15, $16, $12, $17, coalesce(ranges, '{}'), $18, $23::text::jsonb
    from clear, new_id
    where $15::text is not null
)
select coalesce(ids, '{}') as "ids!", (select id from audit_record) as audit_record_id
from clear, new_id
