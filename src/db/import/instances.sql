create temporary table ranked_instance on commit drop as
select staged.file, staged.line, staged.model, staged.instance_id, staged.name,
    account.id as account_id, model.id as model_id,
    row_number() over (partition by model.id, staged.instance_id order by staged.file desc, staged.line desc) as rank
from staged_instance staged
join supplier_account account on account.key = staged.account
left join model on model.key = staged.model;

insert into left_out
select file, line, format('model %s does not exist', model) from ranked_instance where model_id is null;

with merged as (
    insert into instance (model_id, instance_id, supplier_account_id, name)
    select model_id, instance_id, account_id, name
    from ranked_instance
    where rank = 1 and model_id is not null
    order by model_id, instance_id
    on conflict (model_id, instance_id) do update
        set supplier_account_id = excluded.supplier_account_id, name = coalesce(excluded.name, instance.name)
        where (instance.supplier_account_id, instance.name) is distinct from
            (excluded.supplier_account_id, coalesce(excluded.name, instance.name))
    returning model_id, instance_id, xmax = 0 as added
)
select file, count(*) filter (where added) as added, count(*) filter (where not added) as updated
from merged join ranked_instance using (model_id, instance_id)
where rank = 1
group by file;

analyze instance;
