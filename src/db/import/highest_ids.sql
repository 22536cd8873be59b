-- An id is never given twice: not one that the original gave, nor one that a row left out has.
do $$
begin
    perform setval('instance_association_id_seq', highest.id)
    from (
        select max(id) as id
        from (
            select id from staged_highest_id
            union all select id from staged_link
            union all select max(id) from instance_association
        ) given
    ) highest
    where highest.id >= (select last_value from instance_association_id_seq);
end
$$;
