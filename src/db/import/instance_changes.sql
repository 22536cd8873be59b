-- Finds the staged instances that are rejected or change something. Rows with the same model and id
-- are one instance. Its tenant is the stored one, or else that of the first row. Its name is that
-- of the last row with this tenant.
create temporary table candidate_instance on commit drop as
with resolved as (
    select staged.*, model.id as model_id, tenant.id as tenant_id,
        coalesce(
            stored.tenant_id,
            first_value(tenant.id) over (
                partition by model.id, staged.instance_id order by staged.file, staged.line)
        ) as kept_tenant_id,
        stored.instance_id is not null as is_stored, stored.name as stored_name
    from staged_instance staged
    join cmdb.tenant on tenant.key = staged.tenant
    left join cmdb.model on model.key = staged.model
    left join cmdb.instance stored
        on stored.model_id = model.id and stored.instance_id = staged.instance_id
),
checked as (
    select *,
        case
            when model_id is null then format('model %s does not exist', model)
            when tenant_id <> kept_tenant_id
            then format('instance %s of model %s belongs to another tenant', instance_id, model)
        end as reason
    from resolved
),
ranked as (
    select *,
        row_number() over (
            partition by model_id, instance_id, reason is null order by file desc, line desc
        ) as rank
    from checked
)
select file, line, model_id, instance_id, tenant_id, name, is_stored, reason
from ranked
where reason is not null
    or rank = 1 and (not is_stored or name is not null and name is distinct from stored_name);

insert into rejected_row
select file, line, reason from candidate_instance where reason is not null;

