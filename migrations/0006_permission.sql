-- Who may do what: applications may be limited, and users are granted what they may edit.

alter table app
    add column apis text[],
    add column tenants text[];

comment on column app.apis is 'The names of the APIs that it may call; null: all.';
comment on column app.tenants is 'The accounts that it may call for; null: all.';

create table permission_grant (
    id integer generated always as identity,
    user_name text not null,
    model_id integer,
    instance_id bigint,
    created_at timestamptz not null default now(),
    constraint permission_grant_pkey primary key (id),
    constraint permission_grant_key unique nulls not distinct (user_name, model_id, instance_id),
    constraint permission_grant_user_name_check check (char_length(user_name) between 1 and 128),
    constraint permission_grant_instance_check check (instance_id is null or model_id is not null),
    constraint permission_grant_model_fk foreign key (model_id) references model (id)
);

comment on table permission_grant is 'That a user may edit instances.';
comment on column permission_grant.model_id is 'Of which model; null: of all.';
comment on column permission_grant.instance_id is 'Which one; null: all of the model.';
