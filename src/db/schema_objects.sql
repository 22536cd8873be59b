-- The objects of the schema: what they are and whether they are in force. Definitions contain no
-- text that PostgreSQL generates from an expression, because that differs between its versions.
with relation as (
    select oid, relname, relpersistence,
        case relkind when 'r' then 'table' when 'v' then 'view' else 'sequence' end as kind
    from pg_catalog.pg_class
    where relnamespace = pg_catalog.to_regnamespace('cmdb') and relkind in ('r', 'v', 'S')
        and relname <> '_sqlx_migrations'
),
object (kind, relation, name, definition, state) as (
    select kind, '', relname, case when relpersistence <> 'p' then 'not logged' end, null
    from relation
    union all
    select 'column', relname, attname,
        concat_ws(' ', typname, case when attnotnull then 'not null' end,
            case when collname <> 'default' then collname end,
            case when atthasdef or attidentity <> '' then 'default' end,
            case when attgenerated <> '' then 'generated' end),
        null
    from relation
    join pg_catalog.pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
    join pg_catalog.pg_type on pg_type.oid = atttypid
    left join pg_catalog.pg_collation on pg_collation.oid = attcollation
    where kind <> 'sequence'
    union all
    select 'index', relation.relname, pg_class.relname,
        concat_ws(' ', case when indisunique then 'unique' end,
            (select string_agg(
                    attname || case when position > indnkeyatts then ' included' else '' end, ','
                    order by position)
                from unnest(indkey) with ordinality key (number, position)
                join pg_catalog.pg_attribute on attrelid = indrelid and attnum = number),
            case when indnullsnotdistinct then 'nulls not distinct' end,
            case when indexprs is not null then 'expressions' end,
            case when indpred is not null then 'partial' end),
        case when not indisvalid then 'invalid' end
    from relation
    join pg_catalog.pg_index on indrelid = relation.oid
    join pg_catalog.pg_class on pg_class.oid = indexrelid
    union all
    select 'constraint', relation.relname, conname,
        concat_ws(' ', contype, confrelation.relname,
            (select string_agg(attname, ',' order by position)
                from unnest(conkey) with ordinality key (number, position)
                join pg_catalog.pg_attribute on attrelid = conrelid and attnum = number)),
        case
            when not convalidated then 'not validated'
            when exists (
                select from pg_catalog.pg_trigger
                where tgconstraint = pg_constraint.oid and tgisinternal
                    and tgenabled not in ('O', 'A')) then 'disabled'
        end
    from relation
    join pg_catalog.pg_constraint on conrelid = relation.oid
    left join relation confrelation on confrelation.oid = confrelid
    where contype in ('p', 'u', 'c', 'f')
    union all
    select 'trigger', relname, tgname,
        concat_ws(' ', proname, tgtype,
            (select string_agg(attname, ',' order by attname)
                from pg_catalog.pg_attribute
                where attrelid = tgrelid and attnum = any (tgattr)),
            case when tgqual is not null then 'when' end,
            case when tginitdeferred then 'deferred' end),
        case when tgenabled not in ('O', 'A') then 'disabled' end
    from relation
    join pg_catalog.pg_trigger on tgrelid = relation.oid and not tgisinternal
    join pg_catalog.pg_proc on pg_proc.oid = tgfoid
    union all
    select 'function', '', proname,
        concat_ws(' ', pg_catalog.md5(prosrc), case when prosecdef then 'security definer' end,
            array_to_string(proconfig, ';')),
        null
    from pg_catalog.pg_proc
    where pronamespace = pg_catalog.to_regnamespace('cmdb')
)
select kind as "kind!", relation::text as "relation!", name::text as "name!",
    coalesce(definition, '') as "definition!", state
from object
order by kind, relation::text collate "C", name::text collate "C"
