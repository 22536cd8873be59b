-- Applications that call the API, and their secrets.

create table cmdb.app (
    id integer generated always as identity,
    code text collate "C" not null,
    trusts_username boolean not null default false,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    apis text[],
    tenants text[],
    constraint app_pkey primary key (id),
    constraint app_code_key unique (code),
    constraint app_code_check
        check (char_length(code) between 1 and 128 and code !~ '[\u0001-\u001f\u007f-\u009f]')
);

comment on table cmdb.app is 'An application that may call the API.';
comment on column cmdb.app.code is 'The name that the application sends (bk_app_code).';
comment on column cmdb.app.trusts_username is
    'Whether bk_username, sent by this application, identifies the user without further proof.';
comment on column cmdb.app.enabled is 'Whether its requests are accepted.';
comment on column cmdb.app.apis is 'The names of the endpoints that it may call. Null: all.';
comment on column cmdb.app.tenants is 'The keys of the tenants that it may act for. Null: all.';
comment on constraint app_pkey on cmdb.app is 'No two applications have the same id.';
comment on constraint app_code_key on cmdb.app is 'No two applications have the same code.';
comment on constraint app_code_check on cmdb.app is
    'A code has 1 to 128 characters, none of them a control character.';

create table cmdb.app_secret (
    id integer generated always as identity,
    app_id integer not null,
    salt bytea not null,
    hash bytea not null,
    created_at timestamptz not null default now(),
    constraint app_secret_pkey primary key (id),
    constraint app_secret_app_fk foreign key (app_id) references cmdb.app (id) on delete cascade,
    constraint app_secret_salt_check check (octet_length(salt) = 16),
    constraint app_secret_hash_check check (octet_length(hash) = 32)
);

create index app_secret_app_idx on cmdb.app_secret (app_id);

comment on table cmdb.app_secret is
    'A secret of an application. The newest two are valid, so that a secret can be rotated.';
comment on column cmdb.app_secret.hash is
    'HMAC-SHA-256 of the secret, keyed with the salt. Secrets are long and random, so a fast hash '
    'is safe.';
comment on constraint app_secret_pkey on cmdb.app_secret is
    'A secret has an id of its own. Newer secrets have higher ids.';
comment on constraint app_secret_app_fk on cmdb.app_secret is
    'The application exists. Its secrets are deleted with it.';
comment on constraint app_secret_salt_check on cmdb.app_secret is 'A salt has 16 bytes.';
comment on constraint app_secret_hash_check on cmdb.app_secret is 'A hash has 32 bytes.';
comment on index cmdb.app_secret_app_idx is 'Serves searches for the secrets of an application.';
