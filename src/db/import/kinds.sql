-- Merges the staged association kinds. Of rows with the same tenant and key, those with the lowest
-- export number are kept; the last of these is merged.
with ranked as (
    select staged_kind.*, tenant.id as tenant_id,
        first_value(export_number) over by_number as kept_number,
        row_number() over by_number as rank
    from staged_kind join cmdb.tenant on tenant.key = staged_kind.tenant
    window by_number as (
        partition by tenant.id, staged_kind.key
        order by export_number nulls last, file desc, line desc)
),
rejected as (
    insert into rejected_row
    select file, line, format('another row of association kind %s has a lower id', key)
    from ranked where export_number is distinct from kept_number
),
merged as (
    insert into cmdb.association_kind
        (key, tenant_id, name, source_text, target_text, direction, is_predefined)
    select key, tenant_id, coalesce(ranked.name, stored.name, key),
        coalesce(ranked.source_text, stored.source_text, ''),
        coalesce(ranked.target_text, stored.target_text, ''),
        coalesce(ranked.direction, stored.direction, 'src_to_dest'),
        coalesce(ranked.is_predefined, stored.is_predefined)
    from ranked left join cmdb.association_kind stored using (key, tenant_id)
    where rank = 1
    on conflict (key, tenant_id) do update
        set name = excluded.name, source_text = excluded.source_text,
            target_text = excluded.target_text, direction = excluded.direction,
            is_predefined = excluded.is_predefined
        where (association_kind.name, association_kind.source_text, association_kind.target_text,
                association_kind.direction, association_kind.is_predefined)
            is distinct from (excluded.name, excluded.source_text, excluded.target_text,
                excluded.direction, excluded.is_predefined)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, tenant_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked using (key, tenant_id)
where rank = 1
group by file;
