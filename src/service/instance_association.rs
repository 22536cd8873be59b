//! Creating a batch of links.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Error, Service, caller};
use crate::db;
use crate::db::Trouble;
use crate::db::instance_association::{Attempt, Batch};
use crate::domain::association::{MODEL_ASSOCIATION_KEY_LIMIT, ModelAssociation, can_name};
use crate::domain::batch::{Detail, Verdict, plan};
use crate::domain::caller::{Caller, Credentials};
use crate::domain::fault::{DetailFault, Fault};
use crate::domain::permission::Authorization;
use crate::domain::request::{CreateLinks, Given};

/// What became of each detail, by its index.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The ids of the new links.
    pub created: BTreeMap<usize, i64>,
    /// The refusals.
    pub refused: BTreeMap<usize, DetailFault>,
    /// The source model's key, which some refusals name.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
}

/// How often in a row a batch may lose a race. Each time another commit got on, so this many times mean that
/// something else is wrong.
const MOST_LOST_RACES: usize = 100;

/// What the API is called where applications are limited to some.
const API: &str = "batch_create_instance_association";

/// A request as a door took it in.
pub struct Incoming {
    /// Its id.
    pub request_id: Arc<str>,
    /// When it is answered at the latest.
    pub deadline: Instant,
    /// Who says that he sends it.
    pub credentials: Credentials,
    /// What it says. That it says it badly is held against it only once the caller is known.
    pub given: Result<Given, Fault>,
}

/// Creates the links of one request.
pub async fn create_many(service: &Service, incoming: Incoming) -> Result<Outcome, Error> {
    let believable = caller::check(service, incoming.credentials)?;
    let identified = caller::identify(service, believable, API).await?;
    // A refused request costs as much as one detail; the others are charged when nothing can refuse it any more.
    let charge = |details| match &service.limiter {
        Some(limiter) => limiter.charge(&identified.caller.app, details),
        None => Ok(()),
    };
    let request = incoming.given.and_then(Given::check).inspect_err(|_| drop(charge(1)))?;
    charge(1)?;
    identified.check_account(&request.account, API)?;

    let known = Known {
        service,
        request_id: &incoming.request_id,
        deadline: incoming.deadline,
        caller: &identified.caller,
        links: &request,
    };
    let mut conn = service.pool.acquire().await?;
    let mut is_charged = false;
    let mut lost_races = 0;
    loop {
        let created = async {
            let model_association = known.permit(&mut conn).await?;
            if !is_charged {
                charge(request.details.len() - 1)?;
                is_charged = true;
            }
            known.create(&mut conn, &model_association).await
        };
        match created.await {
            Err(Error::Database(error))
                if db::trouble(&error) == Trouble::LostRace && lost_races < MOST_LOST_RACES =>
            {
                lost_races += 1;
            }
            settled => return settled,
        }
    }
}

/// A request whose caller is known.
struct Known<'a> {
    service: &'a Service,
    request_id: &'a str,
    deadline: Instant,
    caller: &'a Caller,
    links: &'a CreateLinks,
}

impl Known<'_> {
    /// Finds the model association, and refuses what the user may not edit.
    async fn permit(&self, conn: &mut PgConnection) -> Result<ModelAssociation, Error> {
        let CreateLinks { model_association: key, account, details, .. } = self.links;
        let user = &self.caller.user;
        let found = if can_name(key, MODEL_ASSOCIATION_KEY_LIMIT) {
            db::model_association::find(conn, key, account, user).await?
        } else {
            None
        };
        let (may_edit_sources, may_edit_targets) = match (&found, self.service.authorization) {
            (Some(found), Authorization::Grants) => {
                (found.may_edit_sources, found.may_edit_targets)
            }
            (_, Authorization::Off) | (None, _) => (true, true),
        };
        let found = self.links.check_association(found.map(|found| found.model_association))?;
        if may_edit_sources && may_edit_targets {
            return Ok(found);
        }
        let ids = |are_free: bool, id: fn(&Detail) -> Option<i64>| -> Vec<i64> {
            if are_free { Vec::new() } else { details.iter().filter_map(id).collect() }
        };
        let sources = ids(may_edit_sources, |detail| detail.source);
        let targets = ids(may_edit_targets, |detail| detail.target);
        let missing =
            db::permission::list_missing(conn, user, &found, account, &sources, &targets).await?;
        if missing.is_empty() { Ok(found) } else { Err(Fault::NoPermission(missing).into()) }
    }

    async fn create(
        &self,
        conn: &mut PgConnection,
        model_association: &ModelAssociation,
    ) -> Result<Outcome, Error> {
        let mut facts = Vec::new();
        loop {
            let verdicts = plan(model_association.mapping, &self.links.details, &facts);
            if !facts.is_empty() && verdicts.iter().all(Result::is_err) {
                return Ok(outcome(self.links, &verdicts, Vec::new()));
            }
            // What could still be running at the deadline is not begun: the caller would be told that nothing
            // was created, and then it would be.
            if Instant::now() + db::STATEMENT_TIMEOUT > self.deadline {
                return Err(Error::OutOfTime);
            }
            let batch = Batch {
                model_association,
                account: &self.links.account,
                details: &self.links.details,
                foreseen: &facts,
                verdicts: &verdicts,
                request_id: self.request_id,
                caller: self.caller,
            };
            match db::instance_association::create(conn, &batch).await? {
                Attempt::Created(ids) => return Ok(outcome(self.links, &verdicts, ids)),
                Attempt::Refuted(found) => facts = found,
            }
        }
    }
}

fn outcome(request: &CreateLinks, verdicts: &[Verdict], ids: Vec<i64>) -> Outcome {
    let mut ids = ids.into_iter();
    let mut outcome = Outcome {
        source_model: request.source_model.clone(),
        target_model: request.target_model.clone(),
        ..Outcome::default()
    };
    for (index, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Ok(_) => outcome.created.extend(ids.next().map(|id| (index, id))),
            Err(fault) => outcome.refused.extend([(index, *fault)]),
        }
    }
    outcome
}
