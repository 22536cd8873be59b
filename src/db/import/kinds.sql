-- Merges the staged association kinds. Of rows with the same key, those with the lowest export
-- number are kept; the last of these is merged.
with ranked as (
    select *, first_value(export_number) over by_number as kept_number,
        row_number() over by_number as rank
    from staged_kind
    window by_number as (
        partition by key order by export_number nulls last, file desc, line desc)
),
rejected as (
    insert into rejected_row
    select file, line, format('another row of association kind %s has a lower id', key)
    from ranked where export_number is distinct from kept_number
),
merged as (
    insert into association_kind (key, name)
    select key, coalesce(ranked.name, stored.name, key)
    from ranked left join association_kind stored using (key)
    where rank = 1
    on conflict (key) do update set name = excluded.name
        where association_kind.name is distinct from excluded.name
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked using (key)
where rank = 1
group by file;
