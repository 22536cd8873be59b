-- The ids of links and their tenants, null for a link that does not exist.
--
--   model association:  $1 id; $1 & 3 is the mapping: 1 is 1:1, 2 is 1:n, 3 is n:n
--   links:              $2 source ids, $3 target ids
with
-- Each scalar subquery is one search in a unique index: no other index fits its conditions as well,
-- so the plan does not depend on statistics.
found as (
    select position,
        case when $1 & 3 = 1 then
            (select array[link.id, link.tenant_id] from cmdb.instance_association link
                where link.model_association_id = $1 and link.source_id = wanted.source_id
                    and link.target_id = wanted.target_id
                    and link.model_association_id & 3 = 1)
        else
            (select array[link.id, link.tenant_id] from cmdb.instance_association link
                where link.model_association_id = $1 and link.source_id = wanted.source_id
                    and link.target_id = wanted.target_id
                    and link.model_association_id & 3 <> 1)
        end as link
    from unnest($2::bigint[], $3::bigint[]) with ordinality
        wanted (source_id, target_id, position)
)
select coalesce(array_agg(link[1] order by position), '{}') as "ids!: Vec<Option<i64>>",
    coalesce(array_agg(link[2] order by position), '{}') as "tenants!: Vec<Option<i64>>"
from found
