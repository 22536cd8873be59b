-- Finds the staged links that are not stored as they are. An export contains each link twice, in
-- the files of both models, so equal rows are one link.

-- What staged links name. A model association of the link's tenant is preferred to one of tenant
-- "0".
create temporary table link_name on commit drop as
select distinct on (name.model_association, name.tenant, name.source_model, name.target_model)
    name.*, link_tenant.id as tenant_id, association.id as model_association_id,
    association.mapping, association.source_model_id, association.target_model_id,
    source.key as stored_source_model, source.is_built_in as source_is_built_in,
    target.key as stored_target_model, target.is_built_in as target_is_built_in,
    (source.key, target.key) = (name.source_model, name.target_model) as has_these_models
from (
    select distinct model_association, tenant, source_model, target_model from staged_link
) name
join cmdb.tenant link_tenant on link_tenant.key = name.tenant
left join cmdb.model_association association
    on association.key = name.model_association and association.tenant_id in (link_tenant.id, 0)
left join cmdb.model source on source.id = association.source_model_id
left join cmdb.model target on target.id = association.target_model_id
order by name.model_association, name.tenant, name.source_model, name.target_model,
    association.tenant_id = 0;

alter table link_name add column name_id integer generated always as identity;
analyze link_name;

create temporary table changed_link on commit drop as
select distinct on (name_id, id, source_id, target_id)
    link.file, link.line, name.name_id, link.id, link.source_id, link.target_id
from staged_link link
join link_name name using (model_association, tenant, source_model, target_model)
left join cmdb.instance_association stored on stored.id = link.id
where has_these_models is not true
    or (stored.model_association_id, stored.tenant_id, stored.source_id, stored.target_id)
        is distinct from
        (name.model_association_id, name.tenant_id, link.source_id, link.target_id)
order by name_id, id, source_id, target_id, file, line;

analyze changed_link;

