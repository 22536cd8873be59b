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

-- The same for the ids of instances, which requests may assign meanwhile.
do $$
begin
    perform cmdb.skip_ids('cmdb.instance_id_seq', greatest(
        (select max(id) from staged_assigned_id where collection = 'cc_ObjectBase'),
        (select max((
             select instance_id from cmdb.instance
             where model_id = model.id order by instance_id desc limit 1))
         from cmdb.model where not is_built_in)));
    perform cmdb.skip_ids('cmdb.host_id_seq', greatest(
        (select max(id) from staged_assigned_id where collection = 'cc_HostBase'),
        (select max(instance_id)
         from cmdb.instance join cmdb.model on model.id = model_id
         where model.key = 'host')));
end
$$;
