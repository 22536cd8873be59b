//! Creating a batch of links.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use tracing::{Span, debug};

use super::{Error, caller};
use crate::db;
use crate::db::Trouble;
use crate::db::instance_association::Attempt;
use crate::domain::association::{MODEL_ASSOCIATION_KEY_LIMIT, can_name};
use crate::domain::batch::{Verdict, plan};
use crate::domain::caller::{Caller, Credentials};
use crate::domain::fault::{DetailFault, Fault};
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

/// Creates the links of one request. `given` is what the body says; that it says it badly is held against
/// it only once the caller is known.
pub async fn create_many(
    pool: &PgPool,
    request_id: &str,
    credentials: Credentials,
    given: Result<Given, Fault>,
) -> Result<Outcome, Error> {
    let mut conn = pool.acquire().await?;
    let caller = caller::identify(&mut conn, credentials).await?;
    Span::current().record("user", &caller.user);
    let request = given?.check()?;
    loop {
        match create_once(&mut conn, request_id, &caller, &request).await {
            // Somebody else's commit came first; the facts are others now. Each turn means that another
            // batch got on, and the request's deadline ends it.
            Err(Error::Database(error)) if db::trouble(&error) == Trouble::LostRace => {
                debug!(error = &error as &dyn std::error::Error, "lost a race, looking again");
            }
            settled => return settled,
        }
    }
}

async fn create_once(
    conn: &mut PgConnection,
    request_id: &str,
    caller: &Caller,
    request: &CreateLinks,
) -> Result<Outcome, Error> {
    let found = if can_name(&request.model_association, MODEL_ASSOCIATION_KEY_LIMIT) {
        db::model_association::find(conn, &request.model_association, &request.account).await?
    } else {
        None
    };
    request.check_association(found.as_ref().map(|found| &found.model_association))?;
    let found = found.ok_or(Fault::UnknownModelAssociation)?;
    let account_id = match found.account_id {
        Some(id) => id,
        None => db::model_association::number_account(conn, &request.account).await?,
    };

    let mut facts = Vec::new();
    loop {
        let verdicts = plan(found.model_association.mapping, &request.details, &facts);
        let hopeless = !facts.is_empty() && verdicts.iter().all(Result::is_err);
        let attempt = if hopeless {
            Attempt::Created(Vec::new())
        } else {
            let batch = db::instance_association::Batch {
                model_association: &found.model_association,
                account_id,
                details: &request.details,
                foreseen: &facts,
                verdicts: &verdicts,
                request_id,
                caller,
            };
            db::instance_association::create(conn, &batch).await?
        };
        match attempt {
            Attempt::Refuted(found) => facts = found,
            Attempt::Created(ids) => return Ok(outcome(request, &verdicts, ids)),
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
