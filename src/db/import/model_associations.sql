-- Merges the staged model associations. Of valid rows with the same tenant and key, those with the
-- lowest export number are kept; the last of these is merged.

create temporary table candidate_model_association on commit drop as
with resolved as (
    select staged.*, tenant.id as tenant_id, source.id as source_model_id,
        target.id as target_model_id, kind.id as kind_id, stored.id as stored_id,
        stored.name as stored_name, stored.on_delete as stored_on_delete,
        stored.is_predefined as stored_is_predefined,
        (stored.source_model_id, stored.target_model_id, stored.mapping)
            is distinct from (source.id, target.id, staged.mapping) as differs
    from staged_model_association staged
    join cmdb.tenant on tenant.key = staged.tenant
    left join cmdb.model source on source.key = staged.source_model
    left join cmdb.model target on target.key = staged.target_model
    -- The tenant's own kind is preferred to that of tenant "0".
    left join lateral (
        select id from cmdb.association_kind
        where key = staged.kind and tenant_id in (tenant.id, 0)
        order by tenant_id = 0
        limit 1
    ) kind on true
    left join cmdb.model_association stored
        on stored.key = staged.key and stored.tenant_id = tenant.id
),
checked as (
    select *,
        case
            when source_model_id is null then format('model %s does not exist', source_model)
            when target_model_id is null then format('model %s does not exist', target_model)
            when kind_id is null then format('association kind %s does not exist', kind)
            when differs and exists (
                select from cmdb.instance_association_by_mapping
                where model_association_id = stored_id)
            then format('model association %s has links and is stored with other models or '
                'another mapping', key)
        end as reason
    from resolved
)
select *, first_value(export_number) over by_number as kept_number,
    row_number() over by_number as rank
from checked
window by_number as (
    partition by tenant_id, key, reason is null
    order by export_number nulls last, file desc, line desc);

insert into rejected_row
select file, line,
    coalesce(reason, format('another row of model association %s has a lower id', key))
from candidate_model_association
where reason is not null or export_number is distinct from kept_number;

delete from candidate_model_association where reason is not null or rank > 1;

insert into row_warning
select file, line, warning from candidate_model_association where warning is not null;

-- Models and mapping cannot be updated, so a model association without links is replaced.
delete from cmdb.model_association
where id in (select stored_id from candidate_model_association where differs);

with merged as (
    insert into cmdb.model_association
        (key, tenant_id, name, source_model_id, target_model_id, association_kind_id, mapping,
         on_delete, is_predefined)
    select key, tenant_id, coalesce(name, stored_name, ''), source_model_id,
        target_model_id, kind_id, mapping, coalesce(on_delete, stored_on_delete, 'none'),
        coalesce(is_predefined, stored_is_predefined)
    from candidate_model_association
    on conflict (key, tenant_id) do update
        set name = excluded.name, association_kind_id = excluded.association_kind_id,
            on_delete = excluded.on_delete, is_predefined = excluded.is_predefined
        where (model_association.name, model_association.association_kind_id,
                model_association.on_delete, model_association.is_predefined)
            is distinct from (excluded.name, excluded.association_kind_id,
                excluded.on_delete, excluded.is_predefined)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, tenant_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join candidate_model_association using (key, tenant_id)
group by file;
