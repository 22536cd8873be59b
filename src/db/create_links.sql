-- Creates the accepted details of a batch, their audit record and the answer that is kept, if the facts are as foreseen, else reports them.
--   $1 model association   $2 account's key   $3 source model   $4 target model
--   $5 source ids, $6 target ids, $7 accepted: one for each detail
--   $8 source missing, $9 target missing, $10 source of target, $11 target of source: what was foreseen for
--      each detail, or nothing at all
--   $12 request id   $13 app   $14 user
--   $15 the key to keep the answer under, or null; then $16 request_hash, $17 language, $18 the code of each detail's refusal
--   $19, $20 how many different sources and targets that is
--   $21 the mark of the epoch in which all that was found
with
account as materialized (
    select (select id from tenant where key = $2) as id
),
-- Scalar subqueries, so that each is an index lookup whatever the planner believes about sizes. The odd-looking
-- conditions repeat the expressions of the two unique indexes.
place as materialized (
    select given.*,
        (select link.source_id from instance_association link
            where link.model_association_id = $1 and link.target_id = given.target_id
                and case when link.model_association_id & 3 = 3 then link.source_id else 0 end
                  = case when $1 & 3 = 3 then given.source_id else 0 end
        ) as source_of_target,
        case when $1 & 3 = 1 then
            (select link.target_id from instance_association link
                where link.model_association_id = $1 and link.source_id = given.source_id
                    and case when link.model_association_id & 3 = 1 then 0 else link.target_id end = 0)
        end as target_of_source
    from unnest($5::bigint[], $6::bigint[], $7::boolean[]) with ordinality
        given (source_id, target_id, accepted, position)
),
-- Whether instances are looked for one by one. If nothing is in the way, it is enough to count them.
search as materialized (
    select cardinality($8::boolean[]) > 0
        or exists (
            select from place where not accepted or source_of_target is not null or target_of_source is not null)
        or $19 <> (
            select count(*) from instance
            where model_id = $3 and instance_id = any ($5) and tenant_id in (0, account.id))
        or $20 <> (
            select count(*) from instance
            where model_id = $4 and instance_id = any ($6) and tenant_id in (0, account.id)) as is_due
    from account
),
-- Where a pair stands, its instances do not matter. An id that was not given is nobody's, so no pair of it stands.
detail as materialized (
    select place.*,
        is_due and (source_of_target = source_id) is not true and (select true from instance
            where model_id = $3 and instance_id = source_id and tenant_id in (0, account.id)
        ) is null as source_missing,
        is_due and (source_of_target = source_id) is not true and (select true from instance
            where model_id = $4 and instance_id = target_id and tenant_id in (0, account.id)
        ) is null as target_missing
    from account, search, place
),
era as materialized (
    select version <> $21 as is_over from cache_version
),
unforeseen as materialized (
    select from era where is_over
    union all
    select
    from detail
    left join unnest($8::boolean[], $9::boolean[], $10::bigint[], $11::bigint[]) with ordinality
        foreseen (source_missing, target_missing, source_of_target, target_of_source, position) using (position)
    where (select is_due from search) and (
        (detail.source_missing, detail.target_missing)
            is distinct from (coalesce(foreseen.source_missing, false), coalesce(foreseen.target_missing, false))
        or (detail.source_of_target, detail.target_of_source)
            is distinct from (foreseen.source_of_target, foreseen.target_of_source))
),
-- Under 1:1 batches take turns. The number is this lock's own.
turn as materialized (
    select pg_advisory_xact_lock(1668113506, $1) where $1 & 3 = 1
),
-- An account gets a number when something is created under it.
added_account as (
    insert into tenant (key)
    select $2 from account
    where account.id is null and exists (select from detail where accepted) and not exists (select from unforeseen)
    on conflict (key) do update set key = excluded.key
    returning id
),
signed as materialized (
    select id from account where id is not null union all select id from added_account
),
-- Ids follow the order of the details.
numbered as materialized (
    select nextval('instance_association_id_seq') as id, source_id, target_id
    from detail
    where accepted and not exists (select from unforeseen) and (select count(*) from turn) >= 0
        -- All of them were looked for in this snapshot: the guard need not do it again.
        and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
    order by position
),
-- Links are written in the order of targets, in which batches wait for each other.
written as (
    insert into instance_association (id, model_association_id, tenant_id, source_id, target_id)
    select numbered.id, $1, signed.id, source_id, target_id
    from numbered, signed
    order by target_id, source_id
    returning id
),
audited as (
    insert into audit_log
        (origin, request_id, app, user_name, tenant_id, model_association_id,
         association_ids, source_ids, target_ids)
    select 'request', $12, $13, $14, (select id from signed), $1, range_agg(int8range(id, id, '[]')),
        array_agg(source_id), array_agg(target_id)
    from (select * from numbered order by id) numbered
    having count(*) > 0
),
kept as (
    insert into idempotency_record
        (app, user_name, key, request_hash, request_id, language, association_ids, refusals)
    select $13, $14, $15::text, $16, $12, $17, coalesce(range_agg(int8range(id, id, '[]')), '{}'), $18
    from numbered
    having $15::text is not null and not exists (select from unforeseen)
)
-- The new ids, or if something was not foreseen, the facts of each detail.
select (select array_agg(id order by id) from written) as created, (select is_over from era) as "is_over!",
    array_agg(source_missing order by position) as "source_missing: Vec<bool>",
    array_agg(target_missing order by position) as "target_missing: Vec<bool>",
    array_agg(source_of_target order by position) as "source_of_target: Vec<Option<i64>>",
    array_agg(target_of_source order by position) as "target_of_source: Vec<Option<i64>>"
from detail
where exists (select from unforeseen)
