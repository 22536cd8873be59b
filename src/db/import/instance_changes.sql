-- Finds the staged instances that are rejected or change something. Rows with the same model and id
-- are one instance. Its tenant is the stored one, or else that of the first row. Its name is that
-- of the last row with this tenant. Documents stay in the stage: no other table or sort has them.
create temporary table candidate_instance on commit drop as
with resolved as (
    select staged.ctid as staged_row, file, line, model, staged.instance_id, staged.name,
        document_hash, model.id as model_id, tenant.id as tenant_id,
        coalesce(
            stored.tenant_id,
            first_value(tenant.id) over (
                partition by model.id, staged.instance_id order by staged.file, staged.line)
        ) as kept_tenant_id,
        stored.instance_id is not null as is_stored, stored.name as stored_name,
        stored_document.import_hash
    from staged_instance staged
    join cmdb.tenant on tenant.key = staged.tenant
    left join cmdb.model on model.key = staged.model
    left join cmdb.instance stored
        on stored.model_id = model.id and stored.instance_id = staged.instance_id
    left join cmdb.instance_document stored_document
        on stored_document.model_id = model.id
            and stored_document.instance_id = staged.instance_id
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
select file, line, model_id, instance_id, tenant_id, name, is_stored, reason, staged_row,
    document_hash, name is not null and name is distinct from stored_name as is_renamed
from ranked
where reason is not null
    or rank = 1 and (not is_stored or name is not null and name is distinct from stored_name
        or document_hash is distinct from import_hash and document_hash is not null);

insert into rejected_row
select file, line, reason from candidate_instance where reason is not null;

