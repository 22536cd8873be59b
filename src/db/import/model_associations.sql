-- Merges the staged model associations. Of valid rows with the same tenant and key, those with the
-- lowest export number are kept; the last of these is merged.

-- One with other models, another kind, mapping or number may be replaced, unless it has links. No
-- writer may create its first link meanwhile.
do $$
begin
    if exists (
        select
        from staged_model_association staged
        join cmdb.tenant on tenant.key = staged.tenant
        join cmdb.model_association stored
            on stored.key = staged.key and stored.tenant_id = tenant.id
        left join cmdb.model source on source.key = staged.source_model
        left join cmdb.model target on target.key = staged.target_model
        where (stored.source_model_id, stored.target_model_id, stored.association_kind_id,
                stored.mapping)
                is distinct from (source.id, target.id, (
                    select id from cmdb.association_kind
                    where key = staged.kind and tenant_id in (tenant.id, 0)
                    order by tenant_id = 0
                    limit 1
                ), staged.mapping)
            or stored.id >> 2 <> staged.export_number
    ) then
        lock table cmdb.instance_association in share row exclusive mode;
    end if;
end
$$;

create temporary table candidate_model_association on commit drop as
with resolved as (
    select staged.*, tenant.id as tenant_id, source.id as source_model_id,
        target.id as target_model_id, kind.id as kind_id, stored.id as stored_id,
        stored.name as stored_name, stored.on_delete as stored_on_delete,
        stored.is_predefined as stored_is_predefined,
        (stored.source_model_id, stored.target_model_id, stored.association_kind_id,
            stored.mapping)
            is distinct from (source.id, target.id, kind.id, staged.mapping) as differs
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
                select from cmdb.instance_association_by_source
                where model_association_id = stored_id)
            then format('model association %s has links and is stored with other models, '
                'another kind or another mapping', key)
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

-- Models, kind, mapping and number cannot be updated, so a model association without links is
-- replaced.
-- One that has audit records keeps its number: another could be assigned the number later.
-- A deletion blocks writers of links, also if it finds no row.
do $$
declare
    replaced integer[] := array(
        select stored_id from candidate_model_association candidate
        where stored_id is not null and (differs
            or (stored_id >> 2 <> export_number and export_number between 1 and 500000000
                and not exists (
                    select from cmdb.model_association where id >> 2 = candidate.export_number)
                and not exists (
                    select from cmdb.instance_association_by_source
                    where model_association_id = stored_id)
                and not exists (
                    select from cmdb.audit_log
                    where model_association_id = stored_id
                        or stored_id = any (model_association_ids)
                        or resource_type = 'model_association' and resource_id = stored_id))));
begin
    if cardinality(replaced) > 0 then
        delete from cmdb.model_association where id = any (replaced);
    end if;
end
$$;

-- A new model association gets its number in the export, or null if that is invalid or taken.
create temporary table new_model_association on commit drop as
with numbered as (
    select candidate.*,
        row_number() over (partition by export_number order by file, line) as turn
    from candidate_model_association candidate
    where not exists (
        select from cmdb.model_association
        where (key, tenant_id) = (candidate.key, candidate.tenant_id))
)
select key, tenant_id,
    case when turn = 1 and export_number between 1 and 500000000
        and not exists (
            select from cmdb.model_association where id >> 2 = numbered.export_number)
    then export_number end as number
from numbered;

-- Moves the sequence past these numbers and past every one that BlueKing CMDB assigned.
do $$
begin
    perform setval('cmdb.model_association_number_seq', highest.number)
    from (
        select max(number) as number
        from (
            select number from new_model_association
            union all select max(id >> 2) from cmdb.model_association
            union all select id from staged_assigned_id
            where collection = 'cc_ObjAsst' and id <= 500000000
        ) assigned
    ) highest
    where highest.number >= (select last_value from cmdb.model_association_number_seq)
        and highest.number > 0;
end
$$;

with merged as (
    insert into cmdb.model_association
        (id, key, tenant_id, name, source_model_id, target_model_id, association_kind_id, mapping,
         exported_mapping, on_delete, is_predefined)
    -- A null id is assigned by a trigger. A stored id leads to the update.
    select
        coalesce(
            stored.id,
            added.number * 4
                + case candidate.mapping when '1:1' then 1 when '1:n' then 2 else 3 end),
        key, tenant_id, coalesce(candidate.name, stored_name, ''), candidate.source_model_id,
        candidate.target_model_id, kind_id, candidate.mapping, candidate.exported_mapping,
        coalesce(candidate.on_delete, stored_on_delete, 'none'),
        coalesce(candidate.is_predefined, stored_is_predefined)
    from candidate_model_association candidate
    left join new_model_association added using (key, tenant_id)
    left join cmdb.model_association stored using (key, tenant_id)
    on conflict (key, tenant_id) do update
        set name = excluded.name, exported_mapping = excluded.exported_mapping,
            on_delete = excluded.on_delete, is_predefined = excluded.is_predefined
        where (model_association.name, model_association.exported_mapping,
                model_association.on_delete, model_association.is_predefined)
            is distinct from (excluded.name, excluded.exported_mapping, excluded.on_delete,
                excluded.is_predefined)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, tenant_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join candidate_model_association using (key, tenant_id)
group by file;

insert into row_warning
select file, line,
    format('id %s is invalid or taken, imported with id %s', export_number, stored.id >> 2)
from candidate_model_association
join cmdb.model_association stored using (key, tenant_id)
where export_number <> stored.id >> 2;
