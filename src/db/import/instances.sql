-- Merges the staged instances that change something. One that another client has created since the
-- differences were found stays as it is, and counts as added.
insert into cmdb.instance (model_id, instance_id, tenant_id, name)
select model_id, instance_id, tenant_id, name
from candidate_instance
where reason is null and not is_stored
order by model_id, instance_id
on conflict (model_id, instance_id) do nothing;

update cmdb.instance set name = candidate.name
from candidate_instance candidate
where candidate.reason is null and candidate.is_stored
    and (instance.model_id, instance.instance_id) = (candidate.model_id, candidate.instance_id);

select file, count(*) filter (where not is_stored) as added,
    count(*) filter (where is_stored) as updated
from candidate_instance
where reason is null
group by file;

analyze cmdb.instance;

