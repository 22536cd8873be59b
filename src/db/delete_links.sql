-- Deletes links by their ids, with their audit record and idempotency record, if the cache version
-- is as expected; otherwise writes nothing.
--
--   links:              $1 ids in ascending order, $2 tenant, null if it is not stored, $3 model at
--                       either end, null if it is not stored
--   caller:             $4 cache version on which the request was authorized, null if nothing was
--                       looked up
--   audit record:       $5 request id, $6 app, $7 user, $11 audit record of the request that is
--                       undone, or null
--   idempotency record: $8 key or null, $9 request hash, $10 language, $12 how many links the
--                       request has created that is undone, or null
with
staleness as materialized (
    select $4::bigint is not null
        and not exists (select from cmdb.cache_version where version = $4) as is_stale
),
-- Side effect: locks the links in the order of their ids, so that deletions of the same links do
-- not deadlock. A subquery that locks rows is not joined in another order, so each id is one search
-- in the primary key. A link that another transaction has just deleted is left out.
found as materialized (
    select link.id
    from unnest($1::bigint[]) wanted (id)
    cross join lateral (
        select id from cmdb.instance_association
        where id = wanted.id and tenant_id = $2 and not (select is_stale from staleness)
            and model_association_id = any (array(
                select id from cmdb.model_association
                where $3::integer in (source_model_id, target_model_id)))
        for update
    ) link
),
-- The array makes PostgreSQL look up the links by their ids, whatever their number is.
deleted as (
    delete from cmdb.instance_association where id = any (array(select id from found))
    returning id, model_association_id, source_id, target_id
),
audit_record as (
    insert into cmdb.audit_log
        (origin, request_id, app, user_name, tenant_id, association_ids, deleted_ids,
         model_association_ids, source_ids, target_ids, undone_record_id)
    select 'request', $5, $6, $7, $2, '{}', range_agg(int8range(id, id, '[]')),
        array_agg(model_association_id), array_agg(source_id), array_agg(target_id), $11::bigint
    from (select * from deleted order by id) deleted
    having count(*) > 0
),
new_idempotency_record as (
    insert into cmdb.idempotency_record
        (app, user_name, key, request_hash, request_id, language, association_ids, refusals,
         deleted_ids, undone_record_id, gone)
    select $6, $7, $8::text, $9, $5, $10, '{}', '{}',
        coalesce(range_agg(int8range(id, id, '[]')), '{}'), $11, $12::bigint - count(*)
    from deleted
    having $8::text is not null and not (select is_stale from staleness)
)
select (select count(*) from deleted) as "deleted!", (select is_stale from staleness) as "is_stale!"
