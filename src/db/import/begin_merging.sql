-- Blocks other imports and other writers of models, kinds and model associations until this
-- transaction ends, and inserts the tenants that staged rows name. Writers of links go on until
-- lock_links.sql.
lock table cmdb.model, cmdb.association_kind, cmdb.model_association in share row exclusive mode;

-- Millions of staged rows are sorted and joined.
set local work_mem = '64MB';

analyze staged_model, staged_kind, staged_model_association, staged_link,
    staged_instance (tenant, model, instance_id);

-- PostgreSQL checks constraints before it looks for conflicts, and the tenant "0" has a fixed id.
insert into cmdb.tenant (key)
select distinct tenant from (
    select distinct tenant from staged_model
    union all select distinct tenant from staged_kind
    union all select distinct tenant from staged_model_association
    union all select distinct tenant from staged_instance
    union all select distinct tenant from staged_link
) staged
where not exists (select from cmdb.tenant where key = staged.tenant)
on conflict (key) do nothing;

