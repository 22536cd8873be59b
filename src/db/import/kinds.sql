-- Merges the staged association kinds. Of rows with the same tenant and key, those with the lowest
-- export number are kept; the last of these is merged.
create temporary table ranked_kind on commit drop as
select staged_kind.*, tenant.id as tenant_id,
    first_value(export_number) over by_number as kept_number,
    row_number() over by_number as rank
from staged_kind join cmdb.tenant on tenant.key = staged_kind.tenant
window by_number as (
    partition by tenant.id, staged_kind.key
    order by export_number nulls last, file desc, line desc);

insert into rejected_row
select file, line, format('another row of association kind %s has a lower id', key)
from ranked_kind where export_number is distinct from kept_number;

delete from ranked_kind where rank > 1;

-- A kind of the migrations leaves its number to an imported kind.
update cmdb.association_kind kind
set export_number = highest.number + kind.id
from (
    select greatest(
        (select max(number) from cmdb.association_kind),
        (select last_value from cmdb.association_kind_id_seq),
        (select max(export_number) from ranked_kind where export_number <= 1000000000)) as number
) highest
where is_predefined and kind.export_number is null
    and kind.number in (select export_number from ranked_kind)
    and (key, tenant_id) not in (select key, tenant_id from ranked_kind);

-- As in models.sql.
create temporary table numbered_kind on commit drop as
with candidate as (
    select ranked.key, ranked.tenant_id, stored.export_number as stored_export_number,
        stored.number as stored_number, ranked.file, ranked.line,
        coalesce(
            case when ranked.export_number between 1 and 1000000000 then ranked.export_number end,
            stored.export_number) as wanted
    from ranked_kind ranked left join cmdb.association_kind stored using (key, tenant_id)
),
winner as (
    select distinct on (wanted) key, tenant_id, wanted
    from candidate
    where wanted is not null and not exists (
        select from cmdb.association_kind other
        where other.number = wanted and not exists (
            select from candidate
            where (candidate.key, candidate.tenant_id) = (other.key, other.tenant_id)
                and candidate.wanted is not null))
    order by wanted, stored_number is distinct from wanted, file, line
),
highest as (
    select greatest(
        (select max(number) from cmdb.association_kind),
        (select last_value from cmdb.association_kind_id_seq),
        (select max(wanted) from winner),
        (select max(id) from staged_assigned_id
            where collection = 'cc_AsstDes' and id <= 1000000000)) as number
)
select candidate.key, candidate.tenant_id,
    case
        when winner.key is not null then winner.wanted
        when stored_number not in (select wanted from winner) then stored_export_number
        when candidate.wanted is not null or stored_number is not null
        then highest.number + row_number() over (order by candidate.file, candidate.line)
    end as export_number
from candidate left join winner using (key, tenant_id), highest;

do $$
begin
    perform setval('cmdb.association_kind_id_seq', greatest(
        (select last_value from cmdb.association_kind_id_seq),
        (select max(number) from cmdb.association_kind),
        (select max(export_number) from numbered_kind),
        (select max(id) from staged_assigned_id
            where collection = 'cc_AsstDes' and id <= 1000000000)));
end
$$;

with merged as (
    insert into cmdb.association_kind
        (id, key, tenant_id, name, source_text, target_text, direction, is_predefined,
         export_number)
    select coalesce(stored.id, nextval('cmdb.association_kind_id_seq')), key, tenant_id,
        coalesce(ranked.name, stored.name, key),
        coalesce(ranked.source_text, stored.source_text, ''),
        coalesce(ranked.target_text, stored.target_text, ''),
        coalesce(ranked.direction, stored.direction, 'src_to_dest'),
        coalesce(ranked.is_predefined, stored.is_predefined),
        numbered.export_number
    from ranked_kind ranked
    join numbered_kind numbered using (key, tenant_id)
    left join cmdb.association_kind stored using (key, tenant_id)
    order by ranked.file, ranked.line
    on conflict (key, tenant_id) do update
        set name = excluded.name, source_text = excluded.source_text,
            target_text = excluded.target_text, direction = excluded.direction,
            is_predefined = excluded.is_predefined, export_number = excluded.export_number
        where (association_kind.name, association_kind.source_text, association_kind.target_text,
                association_kind.direction, association_kind.is_predefined,
                association_kind.export_number)
            is distinct from (excluded.name, excluded.source_text, excluded.target_text,
                excluded.direction, excluded.is_predefined, excluded.export_number)
    -- xmax is 0 in an inserted row, and the updating transaction in an updated one.
    returning key, tenant_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked_kind using (key, tenant_id)
group by file;

insert into row_warning
select file, line,
    format('id %s is invalid or taken, imported with id %s', ranked.export_number, stored.number)
from ranked_kind ranked join cmdb.association_kind stored using (key, tenant_id)
where ranked.export_number <> stored.number;
