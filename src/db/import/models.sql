-- Merges the staged models. Of rows with one key, those with the lowest export number are kept; of
-- these, the last row counts.
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
-- A row without a name leaves the stored name.
named as (
    select ranked.*, coalesce(ranked.name, stored.name, ranked.key) as new_name
    from ranked left join model stored using (key)
    where rank = 1
),
merged as (
    insert into model (key, name, tenant_id, export_number)
    select named.key, new_name, tenant.id, export_number
    from named join tenant on tenant.key = named.tenant
    on conflict (key) do update
        set name = excluded.name,
            tenant_id = excluded.tenant_id,
            export_number = coalesce(excluded.export_number, model.export_number)
        where (model.name, model.tenant_id, model.export_number) is distinct from (
            excluded.name, excluded.tenant_id,
            coalesce(excluded.export_number, model.export_number))
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join named using (key)
group by file;
