//! The rules: what a batch means and what is refused.
//!
//! Everything here is pure: no database, no HTTP, no clock. It imports nothing of ours.

pub mod association;
pub mod batch;
pub mod caller;
pub mod error;
pub mod examples;
pub mod language;
pub mod permission;
pub mod request;
