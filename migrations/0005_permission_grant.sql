-- Permissions of users to edit instances.

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

comment on table permission_grant is 'Allows a user to edit instances.';
comment on column permission_grant.model_id is 'The model of the instances. Null: all models.';
comment on column permission_grant.instance_id is
    'The instance that the user may edit. Null: all instances of the model.';
