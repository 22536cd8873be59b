-- Permissions of users to edit and to view instances.

create table cmdb.permission_grant (
    id integer generated always as identity,
    user_name text collate "C" not null,
    action text collate "C" not null default 'edit',
    model_id integer,
    instance_id bigint,
    created_at timestamptz not null default now(),
    constraint permission_grant_pkey primary key (id),
    constraint permission_grant_key unique nulls not distinct (
        user_name, model_id, instance_id, action),
    constraint permission_grant_user_name_check check (
        char_length(user_name) between 1 and 128
        and user_name !~ '[\u0001-\u001f\u007f-\u009f]'),
    constraint permission_grant_instance_check check (instance_id is null or model_id is not null),
    constraint permission_grant_action_check check (action in ('edit', 'view')),
    constraint permission_grant_view_check check (action = 'edit' or instance_id is null),
    constraint permission_grant_model_fk foreign key (model_id) references cmdb.model (id)
);

comment on table cmdb.permission_grant is
    'Allows a user to edit or to view instances, for every tenant. A grant for one instance '
    'remains when the instance is deleted, and applies to a later one with the same id.';
comment on column cmdb.permission_grant.action is
    'What the user may do: edit or view. Who may edit all instances of a model may view it, too.';
comment on column cmdb.permission_grant.model_id is 'The model of the instances. Null: all models.';
comment on column cmdb.permission_grant.instance_id is
    'The instance that the user may edit. Null: all instances of the model.';
comment on constraint permission_grant_pkey on cmdb.permission_grant is
    'No two grants have the same id.';
comment on constraint permission_grant_key on cmdb.permission_grant is
    'No user has the same grant twice.';
comment on constraint permission_grant_user_name_check on cmdb.permission_grant is
    'A name has 1 to 128 characters, none of them a control character.';
comment on constraint permission_grant_instance_check on cmdb.permission_grant is
    'An instance is named together with its model.';
comment on constraint permission_grant_action_check on cmdb.permission_grant is
    'The action is edit or view.';
comment on constraint permission_grant_view_check on cmdb.permission_grant is
    'A grant to view is for all instances of a model.';
comment on constraint permission_grant_model_fk on cmdb.permission_grant is 'The model exists.';
