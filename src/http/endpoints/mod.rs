//! The list of endpoints, and what an endpoint is. The routes of both APIs, the `Allow` header,
//! the API description, the labels of metrics and the names for `app limit --api` follow from it.

mod add_instance_association;
pub mod batch_create_instance_association;
mod count_instance_associations;
mod count_topo_association_type;
mod create_association_type;
mod create_object;
mod create_object_association;
mod delete_association_type;
mod delete_instance_association;
mod delete_object;
mod delete_object_association;
mod delete_related_inst_asso;
mod find_association_type;
mod find_biz_instance_association;
mod find_inst_association_topo;
mod find_instance_association;
mod find_object_association;
mod find_topo_association_type;
mod search_inst_association_topo;
mod search_inst_asst_object_inst_base_info;
mod search_instance_associations;
mod search_objects;
mod search_related_inst_asso;
mod update_association_type;
mod update_object;
mod update_object_association;

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use self::add_instance_association::AddInstanceAssociation;
use self::batch_create_instance_association::BatchCreateInstanceAssociation;
use self::count_instance_associations::CountInstanceAssociations;
use self::count_topo_association_type::CountTopoAssociationType;
use self::create_association_type::CreateAssociationType;
use self::create_object::CreateObject;
use self::create_object_association::CreateObjectAssociation;
use self::delete_association_type::DeleteAssociationType;
use self::delete_instance_association::DeleteInstanceAssociation;
use self::delete_object::DeleteObject;
use self::delete_object_association::DeleteObjectAssociation;
use self::delete_related_inst_asso::DeleteRelatedInstAsso;
use self::find_association_type::FindAssociationType;
use self::find_biz_instance_association::FindBizInstanceAssociation;
use self::find_inst_association_topo::FindInstAssociationTopo;
use self::find_instance_association::FindInstanceAssociation;
use self::find_object_association::FindObjectAssociation;
use self::find_topo_association_type::FindTopoAssociationType;
use self::search_inst_association_topo::SearchInstAssociationTopo;
use self::search_inst_asst_object_inst_base_info::SearchInstAsstObjectInstBaseInfo;
use self::search_instance_associations::SearchInstanceAssociations;
use self::search_objects::SearchObjects;
use self::search_related_inst_asso::SearchRelatedInstAsso;
use self::update_association_type::UpdateAssociationType;
use self::update_object::UpdateObject;
use self::update_object_association::UpdateObjectAssociation;
use super::api::Api;
use super::openapi::{self, Schemas};
use super::success::Success;
use super::{AppState, pipeline};
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

    /// Whether the body is a condition. It is then also the value of the field `condition`.
    const BODY_IS_CONDITION: bool = false;

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

    /// Serves the request.
    fn handle(
        cx: &RequestContext<'_>, input: &Self::Input,
    ) -> impl Future<Output = Result<Success<Self::Data>, service::Error>> + Send;

    /// An example of a request's own fields and of its `data`, on the demo inventory.
    fn example() -> (Value, Value);

    /// One of each error with which these functions refuse a request.
    fn errors() -> Vec<RequestError>;
}

/// An endpoint in the list.
pub struct EndpointEntry {
    /// The name at the gateway API, and for `app limit --api`.
    pub name: &'static str,
    /// Whether the endpoint is at the gateway API, too.
    has_gateway_path: bool,
    /// One of each error that the endpoint has besides those of the pipeline.
    pub errors: fn() -> Vec<RequestError>,
    cmdb_method: Method,
    cmdb_path: &'static str,
    pub(super) serve: fn(&'static Self, AppState, Api, Request) -> BoxFuture<'static, Response>,
    pub(super) describe: fn(&'static Self, Api) -> (Value, Schemas),
}

/// An endpoint at both APIs.
const fn entry<E: Endpoint>(
    name: &'static str, cmdb_method: Method, cmdb_path: &'static str,
) -> EndpointEntry {
    new_entry::<E>(name, true, cmdb_method, cmdb_path)
}

/// An endpoint that the gateway API does not have.
const fn cmdb_only<E: Endpoint>(
    name: &'static str, cmdb_method: Method, cmdb_path: &'static str,
) -> EndpointEntry {
    new_entry::<E>(name, false, cmdb_method, cmdb_path)
}

const fn new_entry<E: Endpoint>(
    name: &'static str, has_gateway_path: bool, cmdb_method: Method, cmdb_path: &'static str,
) -> EndpointEntry {
    EndpointEntry {
        name,
        has_gateway_path,
        errors: E::errors,
        cmdb_method,
        cmdb_path,
        serve: |entry, state, api, request| {
            Box::pin(pipeline::serve::<E>(entry, state, api, request))
        },
        describe: openapi::operation::<E>,
    }
}

impl EndpointEntry {
    /// Whether the endpoint is served at an API.
    pub fn is_at(&self, api: Api) -> bool {
        api == Api::Cmdb || self.has_gateway_path
    }

    /// The names of the variables in the path at the CMDB API.
    pub fn path_variables(&self) -> impl Iterator<Item = &'static str> {
        let segments = self.cmdb_path.split('/');
        segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The path at an API.
    pub fn path(&self, api: Api) -> String {
        match api {
            Api::Gateway => format!("/api/c/compapi/v2/cc/{}/", self.name),
            Api::Cmdb => self.cmdb_path.to_owned(),
        }
    }

    /// The method at an API. At the gateway API it is always POST.
    pub fn method(&'static self, api: Api) -> &'static Method {
        static POST: Method = Method::POST;
        if api == Api::Cmdb { &self.cmdb_method } else { &POST }
    }
}
