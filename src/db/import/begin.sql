-- What is decided from here on depends on what is stored, so nobody else may write links, import, or delete what
-- links refer to.
lock table instance_association in share row exclusive mode;

analyze staged_model, staged_kind, staged_model_association, staged_instance, staged_link;

insert into tenant (key)
select account from staged_model
union select account from staged_model_association
union select account from staged_instance
union select account from staged_link
on conflict (key) do nothing;
