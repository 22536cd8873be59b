-- The stored state that each detail of a batch depends on, and the cache version.
--
--   model association:  $1 id; $1 & 3 is the mapping: 1 is 1:1, 2 is 1:n, 3 is n:n
--   its models:         $2 source model, $3 whether it is built in, $4 target model, $5 likewise
--   caller:             $6 tenant, null if it is not stored
--   details:            $7 source ids, $8 target ids
with
-- Each scalar subquery is one search in a unique index: no other index fits its conditions as well,
-- so the plan does not depend on statistics.
linked as materialized (
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
    from unnest($7::bigint[], $8::bigint[]) with ordinality
        given (source_id, target_id, position)
),
-- Instances are not looked up for a pair that is linked already: its error is known. Everybody sees
-- instances of tenant "0" (id 0) of a built-in model. Sorted once, for all arrays.
detail as (
    select linked.*,
        (source_of_target = source_id) is not true and (
            select true from cmdb.instance
            where model_id = $2 and instance_id = source_id
                and (tenant_id = $6 or tenant_id = 0 and $3)
        ) is null as source_missing,
        (source_of_target = source_id) is not true and (
            select true from cmdb.instance
            where model_id = $4 and instance_id = target_id
                and (tenant_id = $6 or tenant_id = 0 and $5)
        ) is null as target_missing
    from linked
    order by position
)
select (select version from cmdb.cache_version) as "version!: CacheVersion",
    array_agg(source_missing) as "source_missing!: Vec<bool>",
    array_agg(target_missing) as "target_missing!: Vec<bool>",
    array_agg(source_of_target) as "source_of_target!: Vec<Option<i64>>",
    array_agg(target_of_source) as "target_of_source!: Vec<Option<i64>>"
from detail
