-- What every batch goes through, made cheaper.

select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- 200 pairs are 3.2 kB. Compressing them costs more time than it saves bytes.
alter table audit_log set (toast_tuple_target = 8160);

create function guard_may_skip() returns boolean language plpgsql set search_path from current as $$
begin
    if current_setting('cmdb.guard_may_skip', true) is distinct from 'yes'
        or current_setting('transaction_isolation') <> 'read committed'
        or not pg_has_role(session_user, (select relowner from pg_class where oid = 'instance_association'::regclass), 'usage')
    then
        return false;
    end if;
    perform set_config('cmdb.guard_may_skip', '', true);
    return true;
end
$$;

comment on function guard_may_skip() is
    'Whether the statement that wrote links looked for their instances itself, under the lock that it holds on '
    'instance_association, and says so, once. Only whose table it is is believed: he could drop the guard as well.';

drop trigger instance_association_guard_insert on instance_association;
create trigger instance_association_guard_insert after insert on instance_association
    referencing new table as written for each statement
    when (not guard_may_skip()) execute function instance_association_guard();

create table cache_version (
    is_current boolean not null default true,
    version bigint not null default hashtextextended(gen_random_uuid()::text, 0),
    constraint cache_version_pkey primary key (is_current),
    constraint cache_version_is_current_check check (is_current)
);

comment on table cache_version is
    'One row, whose mark changes with every change of what servers remember: applications, secrets, grants, models, model '
    'associations, accounts. The statement that writes a batch compares it, so that nothing is done on what was.';

insert into cache_version default values;

-- At the end of a transaction, once: so nobody waits for this row while he holds it.
create function bump_cache_version() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if current_setting('cmdb.cache_version_bumped', true) is distinct from 'yes' then
        perform set_config('cmdb.cache_version_bumped', 'yes', true);
        update cache_version set version = default;
    end if;
    return null;
end
$$;

comment on function bump_cache_version() is 'Makes servers look again.';

do $$
declare
    remembered text;
begin
    foreach remembered in array
        array['app', 'app_secret', 'permission_grant', 'model', 'model_association', 'tenant']
    loop
        execute format(
            'create constraint trigger %1$s_bump_cache_version after %2$s update or delete on %1$s
                deferrable initially deferred for each row execute function bump_cache_version()',
            -- A new account has nothing yet.
            remembered, case remembered when 'tenant' then '' else 'insert or' end);
        execute format(
            'create trigger %1$s_bump_cache_version_truncate after truncate on %1$s for each statement execute function bump_cache_version()',
            remembered);
    end loop;
end
$$;
