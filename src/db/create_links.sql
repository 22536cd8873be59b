-- Creates the accepted details of a batch as links, with their audit record and idempotency record,
-- if the stored state is as expected; otherwise writes nothing and returns the stored state.
--
--   model association:  $1 id; $1 & 3 is the mapping: 1 is 1:1, 2 is 1:n, 3 is n:n
--   its models:         $2 source model, $3 whether it is built in, $4 target model, $5 likewise
--   caller:             $6 tenant, null if it is not stored; $7 cache version on which the request
--                       was authorized
--   details:            $8 source ids, $9 target ids, $10 accepted (one each for every detail),
--                       $11 number of distinct sources, $12 number of distinct targets
--   expected state:     $13 source missing, $14 target missing, $15 source of target,
--                       $16 target of source (one each for every detail; all empty: no stored
--                       state prevents a link)
--   audit record:       $17 request id, $18 app, $19 user
--   idempotency record: $20 key or null, $21 request hash, $22 language,
--                       $23 error code of each detail, null if it is accepted
with
-- The links that a detail may conflict with. Each scalar subquery is one search in a unique index:
-- no other index fits its conditions as well, so the plan does not depend on statistics.
existing as materialized (
    select given.*,
        case when $1 & 3 = 3 then
            (select link.source_id from cmdb.instance_association link
                where link.model_association_id = $1 and link.source_id = given.source_id
                    and link.target_id = given.target_id
                    and link.model_association_id & 3 <> 1)
        else
            (select link.source_id from cmdb.instance_association link
                where link.model_association_id = $1 and link.target_id = given.target_id
                    and link.model_association_id & 3 <> 3)
        end as source_of_target,
        case when $1 & 3 = 1 then
            (select link.target_id from cmdb.instance_association link
                where link.model_association_id = $1 and link.source_id = given.source_id
                    and link.model_association_id & 3 = 1)
        end as target_of_source
    from unnest($8::bigint[], $9::bigint[], $10::boolean[]) with ordinality
        given (source_id, target_id, accepted, position)
),
-- Whether the state of each detail must be compared with the expected state. That is not necessary
-- if no state was sent, every detail is accepted, no link conflicts, and as many visible instances
-- exist as the details name. Everybody sees instances of tenant "0" (id 0) of a built-in model.
comparison as materialized (
    select cardinality($13::boolean[]) > 0
        or exists (
            select from existing
            where not accepted or source_of_target is not null or target_of_source is not null)
        or $11 <> (
            select count(*) from cmdb.instance
            where model_id = $2 and instance_id = any ($8)
                and (tenant_id = $6 or tenant_id = 0 and $3))
        or $12 <> (
            select count(*) from cmdb.instance
            where model_id = $4 and instance_id = any ($9)
                and (tenant_id = $6 or tenant_id = 0 and $5))
        as is_needed
),
-- Instances are not looked up for a pair that is linked already: its error is known.
detail as materialized (
    select existing.*,
        is_needed and (source_of_target = source_id) is not true and (
            select true from cmdb.instance
            where model_id = $2 and instance_id = source_id
                and (tenant_id = $6 or tenant_id = 0 and $3)
        ) is null as source_missing,
        is_needed and (source_of_target = source_id) is not true and (
            select true from cmdb.instance
            where model_id = $4 and instance_id = target_id
                and (tenant_id = $6 or tenant_id = 0 and $5)
        ) is null as target_missing
    from comparison, existing
),
staleness as materialized (
    select not exists (select from cmdb.cache_version where version = $7) as is_stale
),
-- One row for each reason to write nothing.
mismatch as materialized (
    select from staleness where is_stale
    union all
    select from existing where accepted and $6::integer is null
    union all
    select
    from detail
    left join unnest($13::boolean[], $14::boolean[], $15::bigint[], $16::bigint[]) with ordinality
        expected (source_missing, target_missing, source_of_target, target_of_source, position)
        using (position)
    where (select is_needed from comparison) and (
        (detail.source_missing, detail.target_missing) is distinct from
            (coalesce(expected.source_missing, false), coalesce(expected.target_missing, false))
        or (detail.source_of_target, detail.target_of_source) is distinct from
            (expected.source_of_target, expected.target_of_source))
),
-- Side effect: under 1:1, takes an advisory lock on the model association until the commit, because
-- no order of inserts avoids deadlocks between two unique keys. 1668113506 is "cmdb" in ASCII; it
-- tells this lock from other advisory locks.
advisory_lock as materialized (
    select pg_advisory_xact_lock(1668113506, $1) where $1 & 3 = 1
),
-- Ids ascend in the order of the details. Two conditions are always true and have side effects: the
-- count takes the advisory lock, and set_config lets the trigger of 0002_instance_association.sql
-- skip its check once, since this statement has found all instances.
new_link as materialized (
    select nextval('cmdb.instance_association_id_seq') as id, source_id, target_id
    from detail
    where accepted and not exists (select from mismatch)
        and (select count(*) from advisory_lock) >= 0
        and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
    order by position
),
-- Inserted in the order of targets, so that concurrent batches lock keys in the same order.
inserted as (
    insert into cmdb.instance_association
        (id, model_association_id, tenant_id, source_id, target_id)
    select id, $1, $6, source_id, target_id
    from new_link
    order by target_id, source_id
    returning id
),
audit_record as (
    insert into cmdb.audit_log
        (origin, request_id, app, user_name, tenant_id, model_association_id,
         association_ids, source_ids, target_ids)
    select 'request', $17, $18, $19, $6, $1,
        range_agg(int8range(id, id, '[]')), array_agg(source_id), array_agg(target_id)
    from (select * from new_link order by id) new_link
    having count(*) > 0
),
new_idempotency_record as (
    insert into cmdb.idempotency_record
        (app, user_name, key, request_hash, request_id, language, association_ids, refusals)
    select $18, $19, $20::text, $21, $17, $22,
        coalesce(range_agg(int8range(id, id, '[]')), '{}'), $23
    from new_link
    having $20::text is not null and not exists (select from mismatch)
)
-- One row: the new ids, null if there are none; and on a mismatch the state of each detail.
select (select array_agg(id order by id) from inserted) as created,
    (select is_stale from staleness) as "is_stale!",
    array_agg(source_missing order by position) as "source_missing: Vec<bool>",
    array_agg(target_missing order by position) as "target_missing: Vec<bool>",
    array_agg(source_of_target order by position) as "source_of_target: Vec<Option<i64>>",
    array_agg(target_of_source order by position) as "target_of_source: Vec<Option<i64>>"
from detail
where exists (select from mismatch)
