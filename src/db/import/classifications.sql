-- Merges the staged classifications, and adds those that staged models name.
with added as (
    insert into cmdb.classification (key)
    select distinct key from staged_classification
    on conflict (key) do nothing
    returning key
)
select file, count(*) as added, 0::bigint as updated
from (
    select distinct on (key) file, key from added join staged_classification using (key)
    order by key, file, line
) first_row
group by file;

insert into cmdb.classification (key)
select distinct classification from staged_model where classification is not null
on conflict (key) do nothing;
