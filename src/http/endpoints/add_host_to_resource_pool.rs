//! `add_host_to_resource_pool`: creates hosts and says for each of them the id or why it was
//! refused.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::{Attributes, HOST};
use crate::http::error::answer_to;
use crate::http::instance::{InstanceFields, parse_at};
use crate::http::json::RawJson;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::create;

/// New hosts.
#[derive(Deserialize, ToSchema)]
pub(super) struct AddHostsBody {
    /// The hosts. Each has a cloud area (`bk_cloud_id`) and addresses (`bk_host_innerip`, or
    /// `bk_host_innerip_v6`). They are created as if one after another.
    #[schema(required, nullable = false, min_items = 1)]
    #[schema(value_type = Option<Vec<Option<InstanceFields>>>)]
    host_info: Option<Vec<Option<RawJson>>>,
    /// Has no effect: hosts are in no directory.
    #[serde(rename = "directory")]
    #[schema(value_type = Option<i64>)]
    _directory: Option<RawJson>,
}

/// What became of each host.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct AddHostsData {
    /// The new hosts; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    success: Vec<CreatedHost>,
    /// The hosts that were refused; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    error: Vec<RefusedHost>,
}

/// A host that was created.
#[derive(Serialize, ToSchema)]
struct CreatedHost {
    /// Its index in `host_info`.
    index: usize,
    /// Its id.
    bk_host_id: i64,
}

/// A host that was refused.
#[derive(Serialize, ToSchema)]
struct RefusedHost {
    /// Its index in `host_info`.
    index: usize,
    /// Why.
    error_message: String,
}

pub(super) struct AddHostToResourcePool;

impl Endpoint for AddHostToResourcePool {
    type Body = AddHostsBody;
    type Input = Vec<Attributes>;
    type Data = AddHostsData;

    const SUMMARY: &'static str = "Create hosts";

    const DESCRIPTION: &'static str = "Creates hosts of the tenant in one commit. If one of them \
        is refused, `result` is false and `code` 1110004, but the others are created: look at both \
        lists of `data`.";

    fn check(body: AddHostsBody) -> Result<Self::Input, RequestError> {
        let hosts = body.host_info.unwrap_or_default();
        if hosts.is_empty() {
            return Err(RequestError::UnassignedField("host_info"));
        }
        let new = hosts.iter().enumerate().map(|(index, host)| match host {
            Some(host) => parse_at(HOST, &format!("host_info[{index}]"), host),
            None => Ok(Attributes::empty()),
        });
        new.collect()
    }

    fn cost(new: &Self::Input) -> usize {
        new.len()
    }

    async fn handle(
        cx: &RequestContext<'_>, new: &Self::Input,
    ) -> Result<Success<AddHostsData>, Error> {
        let mut data = AddHostsData::default();
        for (index, created) in create(cx, HOST, new).await?.into_iter().enumerate() {
            match created {
                Ok(created) => {
                    data.success.push(CreatedHost { index, bk_host_id: created.id });
                }
                Err(error) => {
                    let error_message = answer_to(&error).text(cx.language);
                    data.error.push(RefusedHost { index, error_message });
                }
            }
        }
        let error = (!data.error.is_empty()).then(|| ChangeError::HostsRefused.into());
        let (created, refused) = (Some(data.success.len()), Some(data.error.len()));
        let counts = Counts { created, refused, ..Counts::default() };
        Ok(Success { error, ..Success::new(data, counts) })
    }

    fn example() -> (Value, Value) {
        let host = json!({"bk_host_innerip": "10.0.9.1", "bk_cloud_id": 0, "bk_host_name": "web"});
        (json!({"host_info": [host]}), json!({"success": [{"index": 0, "bk_host_id": 109}]}))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::UnassignedField("host_info"), ChangeError::HostsRefused.into()]
    }
}
