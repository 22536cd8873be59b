-- Moves the sequence of association ids past every id that BlueKing CMDB assigned, including those
-- of rejected rows, because no id is assigned twice. A DO block: a SELECT would return
-- a row.
do $$
begin
    perform setval('cmdb.instance_association_id_seq', highest.id)
    from (
        select max(id) as id
        from (
            select id from staged_assigned_id where collection = 'cc_InstAsst'
            union all select id from staged_link
            union all select assigned_id from rejected_row
            union all select max(id) from cmdb.instance_association
        ) assigned
    ) highest
    where highest.id >= (select last_value from cmdb.instance_association_id_seq);
end
$$;
