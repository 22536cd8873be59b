//! Creating a batch of links.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use tracing::Span;

use super::{Error, caller};
use crate::db;
use crate::db::Trouble;
use crate::db::instance_association::{Attempt, Batch};
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

/// How often in a row a batch may lose a race. Each time another commit got on, so this many times mean that
/// something else is wrong.
const MOST_LOST_RACES: usize = 100;

/// Creates the links of one request, whose id this is and which is answered by the `deadline`. That `given` is
/// no use is said only once the caller is known.
pub async fn create_many(
    pool: &PgPool,
    request_id: &str,
    deadline: Instant,
    credentials: Credentials,
    given: Result<Given, Fault>,
) -> Result<Outcome, Error> {
    let claim = credentials.check()?;
    let mut conn = pool.acquire().await?;
    let caller = caller::identify(&mut conn, claim).await?;
    Span::current().record("user", &caller.user);
    let request = given?.check()?;
    let mut lost_races = 0;
    loop {
        match create_once(&mut conn, request_id, deadline, &caller, &request).await {
            Err(Error::Database(error))
                if db::trouble(&error) == Trouble::LostRace && lost_races < MOST_LOST_RACES =>
            {
                lost_races += 1;
            }
            settled => return settled,
        }
    }
}

async fn create_once(
    conn: &mut PgConnection,
    request_id: &str,
    deadline: Instant,
    caller: &Caller,
    request: &CreateLinks,
) -> Result<Outcome, Error> {
    let found = if can_name(&request.model_association, MODEL_ASSOCIATION_KEY_LIMIT) {
        db::model_association::find(conn, &request.model_association, &request.account).await?
    } else {
        None
    };
    let model_association = request.check_association(found)?;

    let mut facts = Vec::new();
    loop {
        let verdicts = plan(model_association.mapping, &request.details, &facts);
        if !facts.is_empty() && verdicts.iter().all(Result::is_err) {
            return Ok(outcome(request, &verdicts, Vec::new()));
        }
        // What could still be running at the deadline is not begun: the caller would be told that nothing was
        // created, and then it would be.
        if Instant::now() + db::STATEMENT_TIMEOUT > deadline {
            return Err(Error::OutOfTime);
        }
        let batch = Batch {
            model_association: &model_association,
            account: &request.account,
            details: &request.details,
            foreseen: &facts,
            verdicts: &verdicts,
            request_id,
            caller,
        };
        match db::instance_association::create(conn, &batch).await? {
            Attempt::Created(ids) => return Ok(outcome(request, &verdicts, ids)),
            Attempt::Refuted(found) => facts = found,
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
