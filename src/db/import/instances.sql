-- Rows of one id are one instance, of which the last row says the name; but it is one account's: the stored one's,
-- else the first row's.
create temporary table candidate_instance on commit drop as
select staged.*, account.id as account_id, model.id as model_id, stored.tenant_id as stored_account_id,
    first_value(account.id) over (partition by model.id, staged.instance_id order by staged.file, staged.line)
        as first_account_id
from staged_instance staged
join tenant account on account.key = staged.account
left join model on model.key = staged.model
left join instance stored on stored.model_id = model.id and stored.instance_id = staged.instance_id;

insert into left_out
select file, line, format('model %s does not exist', model) from candidate_instance where model_id is null
union all
select file, line, format('%s %s is an instance of another account', model, instance_id)
from candidate_instance
where model_id is not null and account_id <> coalesce(stored_account_id, first_account_id);

create temporary table ranked_instance on commit drop as
select file, model_id, instance_id, account_id, name,
    row_number() over (partition by model_id, instance_id order by file desc, line desc) as rank
from candidate_instance
where model_id is not null and account_id = coalesce(stored_account_id, first_account_id);

with merged as (
    insert into instance (model_id, instance_id, tenant_id, name)
    select model_id, instance_id, account_id, name
    from ranked_instance
    where rank = 1
    order by model_id, instance_id
    on conflict (model_id, instance_id) do update set name = excluded.name
        where excluded.name is not null and instance.name is distinct from excluded.name
    returning model_id, instance_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked_instance using (model_id, instance_id)
where rank = 1
group by file;

analyze instance;
