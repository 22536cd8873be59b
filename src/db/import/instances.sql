set local cmdb.documents_are_written = 'yes';

-- Merges the staged instances that change something. One that another client has created since the
-- differences were found stays as it is, and counts as added.
insert into cmdb.instance (model_id, instance_id, tenant_id, name)
select model_id, instance_id, tenant_id, name
from candidate_instance
where reason is null and not is_stored
order by model_id, instance_id
on conflict (model_id, instance_id) do nothing;

update cmdb.instance set name = candidate.name
from candidate_instance candidate
where candidate.reason is null and candidate.is_stored and candidate.is_renamed
    and (instance.model_id, instance.instance_id) = (candidate.model_id, candidate.instance_id);

-- A name is reserved for an instance unless another one has it. Of staged instances with the
-- same name, the one with the lowest id keeps it.
create temporary table named_instance on commit drop as
select candidate.model_id, candidate.instance_id, candidate.tenant_id, is_stored, staged_row,
    document_hash, document_hash is not null and candidate.name is not null as is_complete,
    case
        when model.key = 'host' then cmdb.unique_name(
            'host', (select document from staged_instance where ctid = staged_row), null)
        else cmdb.unique_name(model.key, null, candidate.name)
    end as unique_name
from candidate_instance candidate
join cmdb.model on model.id = candidate.model_id
where candidate.reason is null;

-- Where the name or the document is not exported, those that are stored stay.
update cmdb.instance_document stored
set document = case
        when is_complete
        then (select document from staged_instance where ctid = staged_row)
        else coalesce(
            (select document from staged_instance where ctid = staged_row), stored.document
        ) || cmdb.new_document(model.key, tenant.key, instance.instance_id, instance.name)
    end,
    import_hash = document_hash, unique_name = null
from named_instance named
join cmdb.instance using (model_id, instance_id)
join cmdb.model on model.id = model_id
join cmdb.tenant on tenant.id = instance.tenant_id
where is_stored
    and (stored.model_id, stored.instance_id) = (named.model_id, named.instance_id);

insert into cmdb.instance_document
    (model_id, instance_id, tenant_id, unique_name, import_hash, document)
select named.model_id, named.instance_id, named.tenant_id, case when rank = 1 then unique_name end,
    document_hash,
    case
        when is_complete
        then (select document from staged_instance where ctid = staged_row)
        else coalesce(
            (select document from staged_instance where ctid = staged_row), '{}'
        ) || cmdb.new_document(
            (select key from cmdb.model where id = named.model_id),
            (select key from cmdb.tenant where id = named.tenant_id),
            named.instance_id,
            (select name from cmdb.instance
            where (instance.model_id, instance.instance_id) = (named.model_id, named.instance_id)))
    end
from (
    select named.*,
        row_number() over (
            partition by named.model_id, named.tenant_id, named.unique_name
            order by named.instance_id
        ) + case when holder.instance_id is null then 0 else 1 end as rank
    from named_instance named
    left join cmdb.instance_document holder
        on (holder.model_id, holder.tenant_id, holder.unique_name)
            = (named.model_id, named.tenant_id, named.unique_name)
    where not is_stored
    order by named.model_id, named.instance_id
    -- Documents are read after the sort.
    offset 0
) named
on conflict (model_id, instance_id) do nothing;

update cmdb.instance_document stored
set unique_name = named.unique_name
from (
    select distinct on (model_id, tenant_id, unique_name) *
    from named_instance
    where is_stored and unique_name is not null
    order by model_id, tenant_id, unique_name, instance_id
) named
where (stored.model_id, stored.instance_id) = (named.model_id, named.instance_id)
    and not exists (
        select from cmdb.instance_document holder
        where (holder.model_id, holder.tenant_id, holder.unique_name)
            = (named.model_id, named.tenant_id, named.unique_name));

select file, count(*) filter (where not is_stored) as added,
    count(*) filter (where is_stored) as updated
from candidate_instance
where reason is null
group by file;

analyze cmdb.instance;

