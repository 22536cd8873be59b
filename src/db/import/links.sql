-- Merges the staged links that change something. Of conflicting links, a stored one is kept, else
-- the one with the lowest id.

create temporary table candidate_link on commit drop as
with checked as (
    select link.*, name.model_association, name.tenant_id, name.model_association_id, name.mapping,
        stored.id is not null as is_stored,
        case
            when name.model_association_id is null
            then format('model association %s does not exist', name.model_association)
            when not name.has_these_models
            then format('model association %s is from %s to %s, not from %s to %s',
                name.model_association, name.stored_source_model, name.stored_target_model,
                name.source_model, name.target_model)
            when source.instance_id is null
            then format('source instance %s of model %s does not exist',
                link.source_id, name.source_model)
            when target.instance_id is null
            then format('target instance %s of model %s does not exist',
                link.target_id, name.target_model)
            -- Everybody sees instances of tenant "0" (id 0) of a built-in model.
            when source.tenant_id <> name.tenant_id
                and not (source.tenant_id = 0 and name.source_is_built_in)
            then format('source instance %s of model %s belongs to another tenant',
                link.source_id, name.source_model)
            when target.tenant_id <> name.tenant_id
                and not (target.tenant_id = 0 and name.target_is_built_in)
            then format('target instance %s of model %s belongs to another tenant',
                link.target_id, name.target_model)
            when (stored.model_association_id, stored.tenant_id, stored.source_id, stored.target_id)
                <> (name.model_association_id, name.tenant_id, link.source_id, link.target_id)
            then format('another stored link has id %s', link.id)
            when stored.id is null and link.id <@ (
                select range_agg(association_ids) from cmdb.audit_log where origin <> 'import')
            then format('id %s was assigned to a link that a request created', link.id)
            when stored.id is null and link.id <@ (
                select range_agg(deleted_ids) from cmdb.audit_log)
            then format('link %s was deleted by a request', link.id)
        end as reason
    from changed_link link
    join link_name name using (name_id)
    left join cmdb.instance source
        on source.model_id = name.source_model_id and source.instance_id = link.source_id
    left join cmdb.instance target
        on target.model_id = name.target_model_id and target.instance_id = link.target_id
    left join cmdb.instance_association stored on stored.id = link.id
)
select * from checked where reason is not null or not is_stored;


-- Of different valid rows with one id, the first is kept.
update candidate_link link
set reason = format('another row of %s has id %s',
    case when link.file = kept.file then 'this file' else 'another file' end, link.id)
from (
    select distinct on (id) id, file, line
    from candidate_link
    where reason is null and id in (
        select id from candidate_link where reason is null group by id having count(*) > 1)
    order by id, file, line
) kept
where link.id = kept.id and (link.file, link.line) <> (kept.file, kept.line)
    and link.reason is null;

analyze candidate_link;

-- Whether valid rows conflict with each other or with stored links. Few imports have conflicts.
create temporary table conflict on commit drop as
select exists (
        select from candidate_link where reason is null and mapping <> '1:1'
        group by model_association_id, source_id, target_id having count(*) > 1)
    or exists (
        select from candidate_link where reason is null and mapping <> 'n:n'
        group by model_association_id, target_id having count(*) > 1)
    or exists (
        select from candidate_link where reason is null and mapping = '1:1'
        group by model_association_id, source_id having count(*) > 1)
    or exists (
        select
        from candidate_link
        join cmdb.instance_association stored using (model_association_id, source_id, target_id)
        where reason is null and stored.model_association_id & 3 <> 1)
    or exists (
        select
        from candidate_link
        join cmdb.instance_association stored using (model_association_id, target_id)
        where reason is null and stored.model_association_id & 3 <> 3)
    or exists (
        select
        from candidate_link
        join cmdb.instance_association stored using (model_association_id, source_id)
        where reason is null and stored.model_association_id & 3 = 1)
    as is_there;

-- Rows are inserted in the order of their ids. What they refer to was found above, and nobody can
-- delete it, so the trigger need not check it.
insert into cmdb.instance_association (id, model_association_id, tenant_id, source_id, target_id)
select id, model_association_id, tenant_id, source_id, target_id
from candidate_link
where reason is null and not (select is_there from conflict)
    and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
order by id;

-- With conflicts, each row is checked by the unique indexes, which takes half as long again. It is
-- skipped if it conflicts with a stored link or with one that has a lower id.
insert into cmdb.instance_association (id, model_association_id, tenant_id, source_id, target_id)
select id, model_association_id, tenant_id, source_id, target_id
from candidate_link
where reason is null and (select is_there from conflict)
    and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
order by id
on conflict do nothing;

update candidate_link skipped
set reason = (
    select case
        when (source_id, target_id) = (skipped.source_id, skipped.target_id)
        then format('link %s has the same source and target', id)
        else format('%s is %s, and link %s has the same %s',
            skipped.model_association, skipped.mapping, id,
            case when target_id = skipped.target_id then 'target' else 'source' end)
    end
    from (
        select id, source_id, target_id
        from cmdb.instance_association
        where model_association_id = skipped.model_association_id
            and source_id = skipped.source_id and target_id = skipped.target_id
            and model_association_id & 3 <> 1
        union all
        select id, source_id, target_id
        from cmdb.instance_association
        where model_association_id = skipped.model_association_id and target_id = skipped.target_id
            and model_association_id & 3 <> 3
        union all
        select id, source_id, target_id
        from cmdb.instance_association
        where model_association_id = skipped.model_association_id and source_id = skipped.source_id
            and model_association_id & 3 = 1
    ) conflicting
    order by id
    limit 1)
where (select is_there from conflict) and reason is null
    and not exists (select from cmdb.instance_association where id = skipped.id);

insert into rejected_row
select file, line, reason from candidate_link where reason is not null;

-- One audit record for each million of ids bounds the size of a record. A link that an earlier
-- import created, and that was deleted since, is in a record of that import already.
insert into cmdb.audit_log (origin, tenant_id, model_association_id, association_ids)
select 'import', tenant_id, model_association_id, range_agg(int8range(id, id, '[]'))
from candidate_link
where reason is null and (id <@ (
    select range_agg(association_ids) from cmdb.audit_log where origin = 'import')) is not true
group by tenant_id, model_association_id, id / 1000000;

select file, count(*) as added, 0::bigint as updated
from candidate_link
where reason is null
group by file;

analyze cmdb.model_association, cmdb.instance_association;
