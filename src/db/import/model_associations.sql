create temporary table candidate_model_association on commit drop as
select staged.file, staged.line, staged.number, staged.key, staged.name, staged.mapping,
    account.id as account_id, source.id as source_model_id, target.id as target_model_id, kind.id as kind_id,
    stored.id as stored_id,
    (stored.source_model_id, stored.target_model_id, stored.mapping)
        is distinct from (source.id, target.id, staged.mapping) as differs,
    case
        when source.id is null then format('model %s does not exist', staged.source_model)
        when target.id is null then format('model %s does not exist', staged.target_model)
        when kind.id is null then format('association kind %s does not exist', staged.kind)
        when stored.id is not null
            and (stored.source_model_id, stored.target_model_id, stored.mapping)
                is distinct from (source.id, target.id, staged.mapping)
            and exists (select from instance_association where model_association_id = stored.id)
        then format('the stored model association %s means something else and has links', staged.key)
    end as reason
from staged_model_association staged
join tenant account on account.key = staged.account
left join model source on source.key = staged.source_model
left join model target on target.key = staged.target_model
left join association_kind kind on kind.key = staged.kind
left join model_association stored
    on stored.key = staged.key and stored.tenant_id = account.id;

-- Of what can stand, two rows of one key are one if they have one number; else the lower number stands.
create temporary table ranked_model_association on commit drop as
select *, first_value(number) over in_order as kept, row_number() over in_order as rank
from candidate_model_association
where reason is null
window in_order as (partition by account_id, key order by number nulls last, file desc, line desc);

insert into left_out
select file, line, reason from candidate_model_association where reason is not null
union all
select file, line, format('model association %s has a row with a lower id', key)
from ranked_model_association where number is distinct from kept;

-- What a stored one without links means may change, but that makes it another one.
delete from model_association
where id in (select stored_id from ranked_model_association where rank = 1 and differs);

with merged as (
    insert into model_association
        (key, tenant_id, name, source_model_id, target_model_id, association_kind_id, mapping)
    select key, account_id, coalesce(name, ''), source_model_id, target_model_id, kind_id, mapping
    from ranked_model_association
    where rank = 1
    on conflict (key, tenant_id) do update
        set name = coalesce(nullif(excluded.name, ''), model_association.name),
            association_kind_id = excluded.association_kind_id
        where (model_association.name, model_association.association_kind_id) is distinct from
            (coalesce(nullif(excluded.name, ''), model_association.name), excluded.association_kind_id)
    returning key, tenant_id as account_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked_model_association using (key, account_id)
where rank = 1
group by file;
