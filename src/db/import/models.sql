-- Merges the staged models. Of rows with the same key, those with the lowest export number
-- are kept; the last of these is merged.
create temporary table ranked_model on commit drop as
select *, first_value(export_number) over by_number as kept_number,
    row_number() over by_number as rank
from staged_model
window by_number as (
    partition by key order by export_number nulls last, file desc, line desc);

insert into rejected_row
select file, line, format('another row of model %s has a lower id', key)
from ranked_model where export_number is distinct from kept_number;

delete from ranked_model where rank > 1;

-- A model of the migrations leaves its number to an imported model.
update cmdb.model
set export_number = highest.number + model.id
from (
    select greatest(
        (select max(number) from cmdb.model), (select last_value from cmdb.model_id_seq),
        (select max(export_number) from ranked_model where export_number <= 1000000000)) as number
) highest
where created_by = 'cc_system' and created_at is null
    and model.number in (select export_number from ranked_model)
    and key not in (select key from ranked_model);

-- A model gets its number in the export, unless that is invalid or the number of another model.
-- Then a stored model keeps the number that it has, and a new one gets a new number.
create temporary table numbered_model on commit drop as
with candidate as (
    select ranked.key, stored.export_number as stored_export_number,
        stored.number as stored_number, ranked.file, ranked.line,
        coalesce(
            case when ranked.export_number between 1 and 1000000000 then ranked.export_number end,
            stored.export_number) as wanted
    from ranked_model ranked left join cmdb.model stored using (key)
),
winner as (
    select distinct on (wanted) key, wanted
    from candidate
    where wanted is not null and not exists (
        select from cmdb.model other
        where other.number = wanted and not exists (
            select from candidate where candidate.key = other.key and candidate.wanted is not null))
    order by wanted, stored_number is distinct from wanted, file, line
),
highest as (
    select greatest(
        (select max(number) from cmdb.model),
        (select last_value from cmdb.model_id_seq),
        (select max(wanted) from winner),
        (select max(id) from staged_assigned_id
            where collection = 'cc_ObjDes' and id <= 1000000000)) as number
)
select candidate.key,
    case
        when winner.key is not null then winner.wanted
        when stored_number not in (select wanted from winner) then stored_export_number
        when candidate.wanted is not null or stored_number is not null
        then highest.number + row_number() over (order by candidate.file, candidate.line)
    end as export_number
from candidate left join winner using (key), highest;

-- The ids of new models are higher than all numbers. A DO block: a SELECT would return a row.
do $$
begin
    perform setval('cmdb.model_id_seq', greatest(
        (select last_value from cmdb.model_id_seq),
        (select max(number) from cmdb.model),
        (select max(export_number) from numbered_model),
        (select max(id) from staged_assigned_id
            where collection = 'cc_ObjDes' and id <= 1000000000)));
end
$$;

with merged as (
    insert into cmdb.model
        (id, key, name, has_unique_name, tenant_id, classification, icon, is_hidden, is_paused,
         is_predefined, position, description, sort_number, created_by, created_at, updated_by,
         updated_at, export_number)
    -- A stored id leads to the update, and none is assigned.
    select coalesce(stored.id, nextval('cmdb.model_id_seq')), ranked.key,
        coalesce(ranked.name, stored.name, ranked.key), false, tenant.id,
        coalesce(ranked.classification, stored.classification),
        coalesce(ranked.icon, stored.icon, ''),
        coalesce(ranked.is_hidden, stored.is_hidden, false),
        coalesce(ranked.is_paused, stored.is_paused, false),
        coalesce(ranked.is_predefined, stored.is_predefined, false),
        coalesce(ranked.position, stored.position, ''),
        coalesce(ranked.description, stored.description, ''),
        coalesce(
            case when ranked.sort_number between 1 and 1000000000 then ranked.sort_number end,
            stored.sort_number, 0),
        coalesce(ranked.created_by, stored.created_by, ''),
        coalesce(ranked.created_at, stored.created_at),
        coalesce(ranked.updated_by, stored.updated_by, ''),
        coalesce(ranked.updated_at, stored.updated_at),
        numbered.export_number
    from ranked_model ranked
    join numbered_model numbered using (key)
    join cmdb.tenant on tenant.key = ranked.tenant
    left join cmdb.model stored on stored.key = ranked.key
    order by ranked.file, ranked.line
    on conflict (key) do update
        set name = excluded.name,
            has_unique_name = model.has_unique_name and model.name = excluded.name,
            tenant_id = excluded.tenant_id, classification = excluded.classification,
            icon = excluded.icon, is_hidden = excluded.is_hidden, is_paused = excluded.is_paused,
            is_predefined = excluded.is_predefined, position = excluded.position,
            description = excluded.description, sort_number = excluded.sort_number,
            created_by = excluded.created_by, created_at = excluded.created_at,
            updated_by = excluded.updated_by, updated_at = excluded.updated_at,
            export_number = excluded.export_number
        where (model.name, model.tenant_id, model.classification, model.icon, model.is_hidden,
                model.is_paused, model.is_predefined, model.position, model.description,
                model.sort_number, model.created_by, model.created_at, model.updated_by,
                model.updated_at, model.export_number)
            is distinct from (excluded.name, excluded.tenant_id, excluded.classification,
                excluded.icon, excluded.is_hidden, excluded.is_paused, excluded.is_predefined,
                excluded.position, excluded.description, excluded.sort_number,
                excluded.created_by, excluded.created_at, excluded.updated_by,
                excluded.updated_at, excluded.export_number)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked_model using (key)
group by file;

-- Models without a place come after the others of their classification. BlueKing CMDB assigns
-- places since version 3.12.
update cmdb.model
set sort_number = placed.last + placed.rank
from (
    select id, coalesce(max(sort_number) over (partition by classification), 0) as last,
        row_number() over (partition by classification, sort_number = 0 order by number) as rank
    from cmdb.model
) placed
where model.id = placed.id and sort_number = 0;

-- Also those of other models, whose name this import has left to them. A longer name does not fit
-- into the index.
update cmdb.model
set has_unique_name = true
where not has_unique_name and char_length(name) <= 128
    and not exists (
        select from cmdb.model other
        where other.name = model.name and other.id <> model.id
            and (other.has_unique_name or other.id < model.id));

insert into row_warning
select file, line, format('model %s has the name of another model', ranked.key)
from ranked_model ranked join cmdb.model stored using (key)
where not stored.has_unique_name
    and exists (
        select from cmdb.model other where other.name = stored.name and other.id <> stored.id);

insert into row_warning
select file, line,
    format('id %s is invalid or taken, imported with id %s', ranked.export_number, stored.number)
from ranked_model ranked join cmdb.model stored using (key)
where ranked.export_number <> stored.number;
