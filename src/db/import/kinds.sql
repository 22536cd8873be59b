with ranked as (
    select *, first_value(number) over in_order as kept, row_number() over in_order as rank
    from staged_kind
    window in_order as (partition by key order by number nulls last, file desc, line desc)
),
rejected as (
    insert into left_out
    select file, line, format('association kind %s has a row with a lower id', key)
    from ranked where number is distinct from kept
),
named as (
    select ranked.*, coalesce(ranked.name, stored.name, ranked.key) as full_name
    from ranked left join association_kind stored using (key)
    where rank = 1
),
merged as (
    insert into association_kind (key, name)
    select key, full_name from named
    on conflict (key) do update set name = excluded.name
        where association_kind.name is distinct from excluded.name
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join named using (key)
group by file;
