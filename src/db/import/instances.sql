-- Merges the staged instances that change something.
with merged as (
    insert into cmdb.instance (model_id, instance_id, tenant_id, name)
    select model_id, instance_id, tenant_id, name
    from candidate_instance
    where reason is null
    order by model_id, instance_id
    on conflict (model_id, instance_id) do update set name = excluded.name
        where excluded.name is not null and instance.name is distinct from excluded.name
            and instance.tenant_id = excluded.tenant_id
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning model_id, instance_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged
join (select * from candidate_instance where reason is null) candidate
    using (model_id, instance_id)
group by file;

analyze cmdb.instance;

