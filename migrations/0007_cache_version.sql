-- The version of the data that servers cache.

create table cmdb.cache_version (
    is_current boolean not null default true,
    version bigint not null default hashtextextended(gen_random_uuid()::text, 0),
    constraint cache_version_pkey primary key (is_current),
    constraint cache_version_is_current_check check (is_current)
);

comment on table cmdb.cache_version is
    'One row. A transaction that changes a table that servers cache, or that removes instances, '
    'sets a new, random version. The statement that writes links compares it with the version of '
    'the cached data.';
comment on column cmdb.cache_version.is_current is 'Always true.';
comment on constraint cache_version_pkey on cmdb.cache_version is
    'With the check: there is at most one row.';
comment on constraint cache_version_is_current_check on cmdb.cache_version is
    'With the primary key: there is at most one row.';

insert into cmdb.cache_version default values;

-- The row triggers below are deferred, so a transaction locks the row only while it commits. The
-- setting cmdb.cache_version_bumped is the id of the last transaction of this session that changed
-- the version, so that each does so once.
create function cmdb.bump_cache_version() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('cmdb.cache_version_bumped', true)
        is distinct from pg_current_xact_id()::text
    then
        perform set_config('cmdb.cache_version_bumped', pg_current_xact_id()::text, true);
        update cmdb.cache_version set version = default;
    end if;
    return null;
end
$$;

comment on function cmdb.bump_cache_version() is
    'Sets a new cache version, once in a transaction, so that servers reload what they cache.';

do $$
declare
    cached_table text;
begin
    foreach cached_table in array
        array['app', 'app_secret', 'permission_grant', 'model', 'association_kind',
            'model_association', 'tenant']
    loop
        execute format(
            'create constraint trigger %1$s_bump_cache_version
                after insert or update or delete on cmdb.%1$s
                deferrable initially deferred
                for each row execute function cmdb.bump_cache_version()',
            cached_table);
        execute format(
            'create trigger %1$s_bump_cache_version_truncate after truncate on cmdb.%1$s
                for each statement execute function cmdb.bump_cache_version()',
            cached_table);
    end loop;
end
$$;

-- Servers remember which instances exist. New instances and new names change nothing for them.
create constraint trigger instance_bump_cache_version
    after delete or update of model_id, instance_id, tenant_id on cmdb.instance
    deferrable initially deferred
    for each row execute function cmdb.bump_cache_version();
create trigger instance_bump_cache_version_truncate after truncate on cmdb.instance
    for each statement execute function cmdb.bump_cache_version();
