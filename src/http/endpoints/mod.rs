//! The list of endpoints, and what an endpoint is. The routes of both APIs, the `Allow` header,
//! the API description, the labels of metrics and the names for `app limit --api` follow from it.

mod add_host_to_resource_pool;
mod add_instance_association;
mod batch_create_inst;
mod batch_create_instance_association;
mod batch_delete_inst;
mod batch_update_inst;
mod check_instance_associations;
mod count_instance_associations;
mod count_object_instances;
mod count_topo_association_type;
mod create_association_type;
mod create_inst;
mod create_instance_associations_atomic;
mod create_object;
mod create_object_association;
mod delete_association_type;
mod delete_inst;
mod delete_instance_association;
mod delete_object;
mod delete_object_association;
mod delete_related_inst_asso;
mod entry;
mod find_association_type;
mod find_biz_instance_association;
mod find_inst_association_topo;
mod find_instance_association;
mod find_instance_association_request;
mod find_instassociation_with_inst;
mod find_object_association;
mod find_topo_association_type;
mod list_hosts_without_biz;
mod search_inst;
mod search_inst_association_topo;
mod search_inst_asst_object_inst_base_info;
mod search_inst_by_object;
mod search_instance_associations;
mod search_object_instances;
mod search_objects;
mod search_related_inst_asso;
mod undo_instance_association_request;
mod update_association_type;
mod update_inst;
mod update_object;
mod update_object_association;

use axum::http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use self::add_host_to_resource_pool::AddHostToResourcePool;
use self::add_instance_association::AddInstanceAssociation;
use self::batch_create_inst::BatchCreateInst;
use self::batch_create_instance_association::BatchCreateInstanceAssociation;
use self::batch_delete_inst::BatchDeleteInst;
use self::batch_update_inst::BatchUpdateInst;
use self::check_instance_associations::CheckInstanceAssociations;
use self::count_instance_associations::CountInstanceAssociations;
use self::count_object_instances::CountObjectInstances;
use self::count_topo_association_type::CountTopoAssociationType;
use self::create_association_type::CreateAssociationType;
use self::create_inst::CreateInst;
use self::create_instance_associations_atomic::CreateInstanceAssociationsAtomic;
use self::create_object::CreateObject;
use self::create_object_association::CreateObjectAssociation;
use self::delete_association_type::DeleteAssociationType;
use self::delete_inst::DeleteInst;
use self::delete_instance_association::DeleteInstanceAssociation;
use self::delete_object::DeleteObject;
use self::delete_object_association::DeleteObjectAssociation;
use self::delete_related_inst_asso::DeleteRelatedInstAsso;
pub use self::entry::EndpointEntry;
use self::entry::{cmdb_only, entry};
use self::find_association_type::FindAssociationType;
use self::find_biz_instance_association::FindBizInstanceAssociation;
use self::find_inst_association_topo::FindInstAssociationTopo;
use self::find_instance_association::FindInstanceAssociation;
use self::find_instance_association_request::FindInstanceAssociationRequest;
use self::find_instassociation_with_inst::FindInstassociationWithInst;
use self::find_object_association::FindObjectAssociation;
use self::find_topo_association_type::FindTopoAssociationType;
use self::list_hosts_without_biz::ListHostsWithoutBiz;
use self::search_inst::SearchInst;
use self::search_inst_association_topo::SearchInstAssociationTopo;
use self::search_inst_asst_object_inst_base_info::SearchInstAsstObjectInstBaseInfo;
use self::search_inst_by_object::SearchInstByObject;
use self::search_instance_associations::SearchInstanceAssociations;
use self::search_object_instances::SearchObjectInstances;
use self::search_objects::SearchObjects;
use self::search_related_inst_asso::SearchRelatedInstAsso;
use self::undo_instance_association_request::UndoInstanceAssociationRequest;
use self::update_association_type::UpdateAssociationType;
use self::update_inst::UpdateInst;
use self::update_object::UpdateObject;
use self::update_object_association::UpdateObjectAssociation;
use super::success::Success;
use crate::domain::error::RequestError;
use crate::service;
use crate::service::context::RequestContext;

/// Every endpoint: name, method and path at the CMDB API. The variables of a path are fields of the
/// body at the gateway API.
pub static ENDPOINTS: &[EndpointEntry] = &[
    entry::<BatchCreateInstanceAssociation>(
        "batch_create_instance_association",
        Method::POST,
        "/api/v3/createmany/instassociation",
    ),
    entry::<AddInstanceAssociation>(
        "add_instance_association",
        Method::POST,
        "/api/v3/create/instassociation",
    ),
    entry::<DeleteInstanceAssociation>(
        "delete_instance_association",
        Method::DELETE,
        "/api/v3/delete/instassociation/{bk_obj_id}/{id}",
    ),
    entry::<DeleteRelatedInstAsso>(
        "delete_related_inst_asso",
        Method::DELETE,
        "/api/v3/delete/instassociation/batch",
    ),
    entry::<SearchInstanceAssociations>(
        "search_instance_associations",
        Method::POST,
        "/api/v3/search/instance_associations/object/{bk_obj_id}",
    ),
    entry::<CountInstanceAssociations>(
        "count_instance_associations",
        Method::POST,
        "/api/v3/count/instance_associations/object/{bk_obj_id}",
    ),
    entry::<FindInstanceAssociation>(
        "find_instance_association",
        Method::POST,
        "/api/v3/find/instassociation",
    ),
    entry::<SearchRelatedInstAsso>(
        "search_related_inst_asso",
        Method::POST,
        "/api/v3/find/instassociation/related",
    ),
    entry::<SearchInstAssociationTopo>(
        "search_inst_association_topo",
        Method::POST,
        "/api/v3/find/insttopo/object/{bk_obj_id}/inst/{bk_inst_id}",
    ),
    entry::<SearchInstAsstObjectInstBaseInfo>(
        "search_inst_asst_object_inst_base_info",
        Method::POST,
        "/api/v3/findmany/inst/association/association_object/inst_base_info",
    ),
    entry::<FindObjectAssociation>(
        "find_object_association",
        Method::POST,
        "/api/v3/find/objectassociation",
    ),
    cmdb_only::<FindBizInstanceAssociation>(
        "find_biz_instance_association",
        Method::POST,
        "/api/v3/find/instassociation/biz/{bk_biz_id}",
    ),
    cmdb_only::<FindInstAssociationTopo>(
        "find_inst_association_topo",
        Method::POST,
        "/api/v3/find/instassttopo/object/{bk_obj_id}/inst/{inst_id}",
    ),
    cmdb_only::<FindTopoAssociationType>(
        "find_topo_association_type",
        Method::POST,
        "/api/v3/find/topoassociationtype",
    ),
    cmdb_only::<CountTopoAssociationType>(
        "count_topo_association_type",
        Method::POST,
        "/api/v3/count/topoassociationtype",
    ),
    entry::<CreateObject>("create_object", Method::POST, "/api/v3/create/object"),
    entry::<SearchObjects>("search_objects", Method::POST, "/api/v3/find/object"),
    entry::<UpdateObject>("update_object", Method::PUT, "/api/v3/update/object/{id}"),
    entry::<DeleteObject>("delete_object", Method::DELETE, "/api/v3/delete/object/{id}"),
    cmdb_only::<CreateObjectAssociation>(
        "create_object_association",
        Method::POST,
        "/api/v3/create/objectassociation",
    ),
    cmdb_only::<UpdateObjectAssociation>(
        "update_object_association",
        Method::PUT,
        "/api/v3/update/objectassociation/{association_id}",
    ),
    cmdb_only::<DeleteObjectAssociation>(
        "delete_object_association",
        Method::DELETE,
        "/api/v3/delete/objectassociation/{id}",
    ),
    cmdb_only::<FindAssociationType>(
        "find_association_type",
        Method::POST,
        "/api/v3/find/associationtype",
    ),
    cmdb_only::<CreateAssociationType>(
        "create_association_type",
        Method::POST,
        "/api/v3/create/associationtype",
    ),
    cmdb_only::<UpdateAssociationType>(
        "update_association_type",
        Method::PUT,
        "/api/v3/update/associationtype/{id}",
    ),
    cmdb_only::<DeleteAssociationType>(
        "delete_association_type",
        Method::DELETE,
        "/api/v3/delete/associationtype/{id}",
    ),
    entry::<CreateInst>("create_inst", Method::POST, "/api/v3/create/instance/object/{bk_obj_id}"),
    entry::<BatchCreateInst>(
        "batch_create_inst",
        Method::POST,
        "/api/v3/createmany/instance/object/{bk_obj_id}",
    ),
    entry::<UpdateInst>(
        "update_inst",
        Method::PUT,
        "/api/v3/update/instance/object/{bk_obj_id}/inst/{bk_inst_id}",
    ),
    entry::<BatchUpdateInst>(
        "batch_update_inst",
        Method::PUT,
        "/api/v3/updatemany/instance/object/{bk_obj_id}",
    ),
    entry::<DeleteInst>(
        "delete_inst",
        Method::DELETE,
        "/api/v3/delete/instance/object/{bk_obj_id}/inst/{bk_inst_id}",
    ),
    entry::<BatchDeleteInst>(
        "batch_delete_inst",
        Method::DELETE,
        "/api/v3/deletemany/instance/object/{bk_obj_id}",
    ),
    entry::<SearchObjectInstances>(
        "search_object_instances",
        Method::POST,
        "/api/v3/search/instances/object/{bk_obj_id}",
    ),
    entry::<CountObjectInstances>(
        "count_object_instances",
        Method::POST,
        "/api/v3/count/instances/object/{bk_obj_id}",
    ),
    entry::<FindInstassociationWithInst>(
        "find_instassociation_with_inst",
        Method::POST,
        "/api/v3/find/instassociation/object/{bk_obj_id}/inst/detail",
    ),
    entry::<SearchInst>(
        "search_inst",
        Method::POST,
        "/api/v3/find/instassociation/object/{bk_obj_id}",
    ),
    entry::<SearchInstByObject>(
        "search_inst_by_object",
        Method::POST,
        "/api/v3/inst/search/{bk_supplier_account}/{bk_obj_id}",
    ),
    entry::<AddHostToResourcePool>(
        "add_host_to_resource_pool",
        Method::POST,
        "/api/v3/hosts/add/resource",
    ),
    entry::<ListHostsWithoutBiz>(
        "list_hosts_without_biz",
        Method::POST,
        "/api/v3/hosts/list_hosts_without_app",
    ),
    entry::<CheckInstanceAssociations>(
        "check_instance_associations",
        Method::POST,
        "/api/v3/check/instassociation",
    ),
    entry::<CreateInstanceAssociationsAtomic>(
        "create_instance_associations_atomic",
        Method::POST,
        "/api/v3/createmany/instassociation/atomic",
    ),
    entry::<FindInstanceAssociationRequest>(
        "find_instance_association_request",
        Method::POST,
        "/api/v3/find/instassociation/request",
    ),
    entry::<UndoInstanceAssociationRequest>(
        "undo_instance_association_request",
        Method::POST,
        "/api/v3/delete/instassociation/request",
    ),
];

/// An endpoint: what it takes, what it does and what it answers. The pipeline calls `check`,
/// `cost`, `find_replay` and `handle` in this order.
pub(super) trait Endpoint: Send + 'static {
    /// The endpoint's fields of the body, as they are sent, and the variables of its path, which
    /// are of the type [`PathVariable`](super::path::PathVariable).
    type Body: DeserializeOwned + ToSchema + Send;

    /// What the body asks for, after its checks.
    type Input: Send + Sync;

    /// The `data` of the answer.
    type Data: Serialize + ToSchema + Send + 'static;

    /// What the endpoint does, in a few words.
    const SUMMARY: &'static str;

    /// What else callers must know, in Markdown.
    const DESCRIPTION: &'static str;

    /// Whether an empty body and `null` are refused at the CMDB API, too. Otherwise they count as
    /// `{}` there.
    const REQUIRES_BODY: bool = false;

    /// Whether the endpoint changes nothing, so that a replica can answer it.
    const ONLY_READS: bool = false;

    /// The field whose value is the whole body, if there is one.
    const WHOLE_BODY: Option<&'static str> = None;

    /// The field that the original's gateway sets to the user.
    const USER_FIELD: Option<&'static str> = None;

    /// Checks what can be checked without any I/O: presence, counts, ranges.
    fn check(body: Self::Body) -> Result<Self::Input, RequestError>;

    /// How much of the rate limit the request uses.
    fn cost(_: &Self::Input) -> usize {
        1
    }

    /// The stored answer to a request that was sent before with its `Idempotency-Key`. Endpoints
    /// that change nothing store none.
    fn find_replay(
        _: &RequestContext<'_>, _: &Self::Input,
    ) -> impl Future<Output = Result<Option<Success<Self::Data>>, service::Error>> + Send {
        async { Ok(None) }
    }

    /// Whether the answer says how long its steps took.
    fn reports_timing(_: &Self::Input) -> bool {
        false
    }

    /// Serves the request.
    fn handle(
        cx: &RequestContext<'_>, input: &Self::Input,
    ) -> impl Future<Output = Result<Success<Self::Data>, service::Error>> + Send;

    /// An example of a request's own fields and of its `data`, on the demo inventory.
    fn example() -> (Value, Value);

    /// One of each error with which these functions refuse a request.
    fn errors() -> Vec<RequestError>;
}
