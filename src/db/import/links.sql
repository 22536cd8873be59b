-- Ids that requests were given: a link of one of them that is gone leaves its id taken.
create temporary table given_id on commit drop as
select lower(ids) as lower, upper(ids) as upper, origin from audit_log, unnest(association_ids) ids;
create index on given_id (lower);
analyze given_id;

-- A link is in the files of both its models, so equal rows are one.
create temporary table candidate_link on commit drop as
with row as (
    select distinct on (id, key, account, source_model, target_model, source_id, target_id) *
    from staged_link
    order by id, key, account, source_model, target_model, source_id, target_id, file, line
),
named as (
    select key, account,
        (select association.id
            from model_association association
            join tenant owner on owner.id = association.tenant_id
            where association.key = distinct_name.key and owner.key in (distinct_name.account, '0')
            order by owner.key = distinct_name.account desc
            limit 1) as model_association_id
    from (select distinct key, account from row) distinct_name
)
select row.*, owner.id as account_id, association.id as model_association_id, association.mapping,
    stored.id is not null as stored, given.origin as given_by,
    case
        when association.id is null then format('model association %s does not exist', row.key)
        when (source.key, target.key) <> (row.source_model, row.target_model) then
            format('model association %s is from %s to %s, not from %s to %s',
                row.key, source.key, target.key, row.source_model, row.target_model)
        when (select true from instance
                where model_id = association.source_model_id and instance_id = row.source_id) is null
        then format('source instance %s %s does not exist', row.source_model, row.source_id)
        when (select true from instance
                where model_id = association.target_model_id and instance_id = row.target_id) is null
        then format('target instance %s %s does not exist', row.target_model, row.target_id)
        when (stored.model_association_id, stored.source_id, stored.target_id)
                <> (association.id, row.source_id, row.target_id)
        then format('id %s is the id of another stored link', row.id)
        when stored.id is null and given.origin = 'request'
        then format('id %s was the id of a link that a request created', row.id)
    end as reason
from row
join named using (key, account)
join tenant owner on owner.key = row.account
left join model_association association on association.id = named.model_association_id
left join model source on source.id = association.source_model_id
left join model target on target.id = association.target_model_id
left join instance_association stored on stored.id = row.id
left join lateral (
    select origin from (
        select origin, upper from given_id where lower <= row.id order by lower desc limit 1
    ) last
    where last.upper > row.id
) given on true;

-- Of different rows of one id, the first that can stand has it.
update candidate_link other
set reason = format('id %s is the id of another link in %s', other.id,
    case when other.file = first.file then 'this file' else 'another file' end)
from (
    select distinct on (id) id, file, line from candidate_link where reason is null order by id, file, line
) first
where other.id = first.id and (other.file, other.line) <> (first.file, first.line) and other.reason is null;

analyze candidate_link;

insert into left_out select file, line, reason from candidate_link where reason is not null;

-- In the order of ids and one at a time: the keys of the table keep the stored over the new, and the lower
-- id over the higher.
create temporary table added_link (
    id bigint not null, model_association_id integer not null, tenant_id integer not null
) on commit drop;

with added as (
    insert into instance_association (id, model_association_id, tenant_id, source_id, target_id)
    select id, model_association_id, account_id, source_id, target_id
    from candidate_link
    where reason is null and not stored
    order by id
    on conflict do nothing
    returning id, model_association_id, tenant_id
)
insert into added_link select * from added;

insert into left_out
select refused.file, refused.line,
    case
        when standing.source_id = refused.source_id and standing.target_id = refused.target_id
            then format('link %s is the same pair', standing.id)
        else format('%s is %s, and link %s holds its place', refused.key, refused.mapping, standing.id)
    end
from candidate_link refused
cross join lateral (
    select id, source_id, target_id
    from instance_association
    where model_association_id = refused.model_association_id and target_id = refused.target_id
        and (model_association_id & 3 < 3 or source_id = refused.source_id)
    union all
    select id, source_id, target_id
    from instance_association
    where model_association_id = refused.model_association_id and source_id = refused.source_id
        and model_association_id & 3 = 1
    order by id
    limit 1
) standing
where refused.reason is null and not refused.stored
    and not exists (select from added_link where added_link.id = refused.id);

-- One record for each million of ids, so that a record stays of a bounded size. A link that comes back is in the record
-- of the import that brought it first.
insert into audit_log (origin, tenant_id, model_association_id, association_ids)
select 'import', tenant_id, model_association_id, range_agg(int8range(id, id, '[]'))
from added_link
where id not in (select id from candidate_link where given_by = 'import')
group by tenant_id, model_association_id, id / 1000000;

select file, count(*) as added, 0::bigint as updated
from added_link join candidate_link using (id)
where reason is null
group by file;

analyze model_association, instance_association;
