//! The rules and the types they use, as pure code: no I/O and no clock.

pub mod association;
pub mod association_kind;
pub mod batch;
pub mod change_error;
pub mod condition;
pub mod error;
pub mod identity;
pub mod instance;
pub mod keys;
pub mod language;
pub mod model;
pub mod permission;
pub mod sort;
