-- Merges the staged instances. Rows with the same model and id are one instance. Its tenant is the
-- stored one, or else that of the first row. Its name is that of the last row with this tenant.

create temporary table candidate_instance on commit drop as
with resolved as (
    select staged.*, model.id as model_id, tenant.id as tenant_id,
        coalesce(
            stored.tenant_id,
            first_value(tenant.id) over (
                partition by model.id, staged.instance_id order by staged.file, staged.line)
        ) as kept_tenant_id
    from staged_instance staged
    join cmdb.tenant on tenant.key = staged.tenant
    left join cmdb.model on model.key = staged.model
    left join cmdb.instance stored
        on stored.model_id = model.id and stored.instance_id = staged.instance_id
)
select file, line, model_id, instance_id, tenant_id, name,
    case
        when model_id is null then format('model %s does not exist', model)
        when tenant_id <> kept_tenant_id
        then format('instance %s of model %s belongs to another tenant', instance_id, model)
    end as reason
from resolved;

insert into rejected_row
select file, line, reason from candidate_instance where reason is not null;

with latest as (
    select distinct on (model_id, instance_id) *
    from candidate_instance
    where reason is null
    order by model_id, instance_id, file desc, line desc
),
merged as (
    insert into cmdb.instance (model_id, instance_id, tenant_id, name)
    select model_id, instance_id, tenant_id, name from latest
    on conflict (model_id, instance_id) do update set name = excluded.name
        where excluded.name is not null and instance.name is distinct from excluded.name
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning model_id, instance_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join latest using (model_id, instance_id)
group by file;

analyze cmdb.instance;
