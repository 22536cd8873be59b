-- Blocks other writers, and inserts the tenants that staged rows name. Merging depends on the
-- stored rows: until this transaction ends, other transactions that write links or model
-- associations, delete what links refer to, or import must wait. A transaction that deletes a model
-- association locks the tables in this order, too.
lock table cmdb.model_association, cmdb.instance_association in share row exclusive mode;

analyze staged_model, staged_kind, staged_model_association, staged_instance, staged_link;

-- PostgreSQL checks constraints before it looks for conflicts, and the tenant "0" has a fixed id.
insert into cmdb.tenant (key)
select tenant from (
    select tenant from staged_model
    union select tenant from staged_kind
    union select tenant from staged_model_association
    union select tenant from staged_instance
    union select tenant from staged_link
) staged
where not exists (select from cmdb.tenant where key = staged.tenant)
on conflict (key) do nothing;
