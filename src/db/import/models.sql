-- Merges the staged models. Of rows with the same key, those with the lowest export number
-- are kept; the last of these is merged.
with ranked as (
    select *, first_value(export_number) over by_number as kept_number,
        row_number() over by_number as rank
    from staged_model
    window by_number as (
        partition by key order by export_number nulls last, file desc, line desc)
),
rejected as (
    insert into rejected_row
    select file, line, format('another row of model %s has a lower id', key)
    from ranked where export_number is distinct from kept_number
),
merged as (
    insert into cmdb.model
        (key, name, tenant_id, classification, icon, is_hidden, is_paused, export_number)
    select ranked.key, coalesce(ranked.name, stored.name, ranked.key), tenant.id,
        coalesce(ranked.classification, stored.classification, ''),
        coalesce(ranked.icon, stored.icon, ''),
        coalesce(ranked.is_hidden, stored.is_hidden, false),
        coalesce(ranked.is_paused, stored.is_paused, false),
        coalesce(ranked.export_number, stored.export_number)
    from ranked
    join cmdb.tenant on tenant.key = ranked.tenant
    left join cmdb.model stored on stored.key = ranked.key
    where rank = 1
    on conflict (key) do update
        set name = excluded.name, tenant_id = excluded.tenant_id,
            classification = excluded.classification, icon = excluded.icon,
            is_hidden = excluded.is_hidden, is_paused = excluded.is_paused,
            export_number = excluded.export_number
        where (model.name, model.tenant_id, model.classification, model.icon, model.is_hidden,
                model.is_paused, model.export_number)
            is distinct from (excluded.name, excluded.tenant_id, excluded.classification,
                excluded.icon, excluded.is_hidden, excluded.is_paused, excluded.export_number)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked using (key)
where rank = 1
group by file;
