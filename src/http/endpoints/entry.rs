//! The entries of the list of endpoints.

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::api::Api;
use crate::http::openapi::{self, Schemas};
use crate::http::{AppState, pipeline};

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
    pub(in crate::http) serve:
        fn(&'static Self, AppState, Api, Request) -> BoxFuture<'static, Response>,
    pub(in crate::http) describe: fn(&'static Self, Api) -> (Value, Schemas),
}

/// An endpoint at both APIs.
pub(super) const fn entry<E: Endpoint>(
    name: &'static str, cmdb_method: Method, cmdb_path: &'static str,
) -> EndpointEntry {
    new_entry::<E>(name, true, cmdb_method, cmdb_path)
}

/// An endpoint that the gateway API does not have.
pub(super) const fn cmdb_only<E: Endpoint>(
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
