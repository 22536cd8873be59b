//! What requests were judged by, for the next one like it.
//!
//! Nothing is done on it that is not so any more: the statement that writes a batch compares the epoch, and so does
//! whoever refuses a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::db::background::{Background, Named};

/// How many are remembered before all are forgotten.
const MOST: usize = 1_000;

/// The backgrounds of requests that were carried out.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<[String; 4], Arc<Background>>>);

fn key(named: &Named<'_>) -> [String; 4] {
    let Named { app_code, user, model_association, account } = *named;
    [app_code, user, model_association, account].map(str::to_owned)
}

impl Memory {
    /// What was found for a request like this.
    pub(super) fn recall(&self, named: &Named<'_>) -> Option<Arc<Background>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(&key(named)).map(Arc::clone)
    }

    pub(super) fn learn(&self, named: &Named<'_>, background: Arc<Background>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST {
            remembered.clear();
        }
        remembered.insert(key(named), background);
    }
}
