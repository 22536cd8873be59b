-- Two rows of one key are one model if they have one number; else the lower number stands.
with ranked as (
    select *, first_value(number) over in_order as kept, row_number() over in_order as rank
    from staged_model
    window in_order as (partition by key order by number nulls last, file desc, line desc)
),
rejected as (
    insert into left_out
    select file, line, format('model %s has a row with a lower id', key)
    from ranked where number is distinct from kept
),
-- A row of key fields only does not take away a name that is stored.
named as (
    select ranked.*, coalesce(ranked.name, stored.name, ranked.key) as full_name
    from ranked left join model stored using (key)
    where rank = 1
),
merged as (
    insert into model (key, name, tenant_id, export_number)
    select named.key, full_name, account.id, number
    from named join tenant account on account.key = named.account
    on conflict (key) do update
        set name = excluded.name,
            tenant_id = excluded.tenant_id,
            export_number = coalesce(excluded.export_number, model.export_number)
        where (model.name, model.tenant_id, model.export_number) is distinct from
            (excluded.name, excluded.tenant_id, coalesce(excluded.export_number, model.export_number))
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join named using (key)
group by file;
