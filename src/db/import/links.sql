-- Merges the staged links. Of conflicting links, a stored one is kept, else the one with the lowest
-- id.

-- The ids of links that requests and imports created, including deleted links.
create temporary table audited_id_range on commit drop as
select lower(ids) as lower, upper(ids) as upper, origin
from audit_log, unnest(association_ids) ids;
create index on audited_id_range (lower);
analyze audited_id_range;

create temporary table candidate_link on commit drop as
-- The files of both models contain a link, so equal rows count as one.
with distinct_link as (
    select distinct on (
        id, model_association, tenant, source_model, target_model, source_id, target_id) *
    from staged_link
    order by id, model_association, tenant, source_model, target_model, source_id, target_id,
        file, line
),
-- A model association of the link's tenant is preferred to one of tenant "0".
resolved as (
    select model_association, tenant,
        (select association.id
            from model_association association
            join tenant owner on owner.id = association.tenant_id
            where association.key = name.model_association and owner.key in (name.tenant, '0')
            order by owner.key = name.tenant desc
            limit 1) as model_association_id
    from (select distinct model_association, tenant from distinct_link) name
)
select link.*, owner.id as tenant_id, association.id as model_association_id,
    association.mapping, stored.id is not null as is_stored, audited.origin as audited_origin,
    case
        when association.id is null
        then format('model association %s does not exist', link.model_association)
        when (source.key, target.key) <> (link.source_model, link.target_model)
        then format('model association %s is from %s to %s, not from %s to %s',
            link.model_association, source.key, target.key, link.source_model, link.target_model)
        when (select true from instance
            where model_id = association.source_model_id and instance_id = link.source_id) is null
        then format('source instance %s of model %s does not exist',
            link.source_id, link.source_model)
        when (select true from instance
            where model_id = association.target_model_id and instance_id = link.target_id) is null
        then format('target instance %s of model %s does not exist',
            link.target_id, link.target_model)
        when (stored.model_association_id, stored.source_id, stored.target_id)
            <> (association.id, link.source_id, link.target_id)
        then format('another stored link has id %s', link.id)
        when stored.id is null and audited.origin = 'request'
        then format('id %s was assigned to a link that a request created', link.id)
    end as reason
from distinct_link link
join resolved using (model_association, tenant)
join tenant owner on owner.key = link.tenant
left join model_association association on association.id = resolved.model_association_id
left join model source on source.id = association.source_model_id
left join model target on target.id = association.target_model_id
left join instance_association stored on stored.id = link.id
left join lateral (
    select origin from (
        select origin, upper from audited_id_range
        where lower <= link.id order by lower desc limit 1
    ) last_range
    where last_range.upper > link.id
) audited on true;

-- Of different valid rows with one id, the first is kept.
update candidate_link link
set reason = format('another row of %s has id %s',
    case when link.file = kept.file then 'this file' else 'another file' end, link.id)
from (
    select distinct on (id) id, file, line
    from candidate_link where reason is null order by id, file, line
) kept
where link.id = kept.id and (link.file, link.line) <> (kept.file, kept.line)
    and link.reason is null;

analyze candidate_link;

insert into rejected_row
select file, line, reason from candidate_link where reason is not null;

create temporary table added_link (
    id bigint not null, model_association_id integer not null, tenant_id integer not null
) on commit drop;

-- Rows are inserted in the order of their ids, each checked by the unique indexes, so a row is
-- skipped if it conflicts with a stored link or with one that has a lower id.
with added as (
    insert into instance_association (id, model_association_id, tenant_id, source_id, target_id)
    select id, model_association_id, tenant_id, source_id, target_id
    from candidate_link
    where reason is null and not is_stored
    order by id
    on conflict do nothing
    returning id, model_association_id, tenant_id
)
insert into added_link select * from added;

insert into rejected_row
select skipped.file, skipped.line,
    case
        when (conflicting.source_id, conflicting.target_id) = (skipped.source_id, skipped.target_id)
        then format('link %s has the same source and target', conflicting.id)
        else format('%s is %s, and link %s has the same %s',
            skipped.model_association, skipped.mapping, conflicting.id,
            case when conflicting.target_id = skipped.target_id then 'target' else 'source' end)
    end
from candidate_link skipped
cross join lateral (
    select id, source_id, target_id
    from instance_association
    where model_association_id = skipped.model_association_id and target_id = skipped.target_id
        and (model_association_id & 3 < 3 or source_id = skipped.source_id)
    union all
    select id, source_id, target_id
    from instance_association
    where model_association_id = skipped.model_association_id and source_id = skipped.source_id
        and model_association_id & 3 = 1
    order by id
    limit 1
) conflicting
where skipped.reason is null and not skipped.is_stored
    and not exists (select from added_link where added_link.id = skipped.id);

-- One audit record for each million of ids bounds the size of a record. A link that an earlier
-- import created, and that was deleted since, is in a record of that import already.
insert into audit_log (origin, tenant_id, model_association_id, association_ids)
select 'import', tenant_id, model_association_id, range_agg(int8range(id, id, '[]'))
from added_link
where id not in (select id from candidate_link where audited_origin = 'import')
group by tenant_id, model_association_id, id / 1000000;

select file, count(*) as added, 0::bigint as updated
from added_link join candidate_link using (id)
where reason is null
group by file;

analyze model_association, instance_association;
