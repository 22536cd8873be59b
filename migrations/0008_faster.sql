-- What every batch goes through, made cheaper.

select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- 200 pairs are 3.2 kB. Compressing them costs more time than it saves bytes.
alter table audit_log set (toast_tuple_target = 8160);

create function links_are_proven() returns boolean language plpgsql set search_path from current as $$
begin
    if current_setting('cmdb.links_are_proven', true) is distinct from 'yes'
        or current_setting('transaction_isolation') <> 'read committed'
        or not pg_has_role(session_user, (select relowner from pg_class where oid = 'instance_association'::regclass), 'usage')
    then
        return false;
    end if;
    perform set_config('cmdb.links_are_proven', '', true);
    return true;
end
$$;

comment on function links_are_proven() is
    'Whether the statement that wrote links looked for their instances itself, under the lock that it holds on '
    'instance_association, and says so, once. Only whose table it is is believed: he could drop the guard as well.';

drop trigger instance_association_guard_insert on instance_association;
create trigger instance_association_guard_insert after insert on instance_association
    referencing new table as written for each statement
    when (not links_are_proven()) execute function instance_association_guard();
