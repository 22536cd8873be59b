//! Creating a batch of links.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::limit::Meter;
use super::permission::{self, Seen};
use super::{Error, Service, caller, idempotency, lend};
use crate::db;
use crate::db::Trouble;
use crate::db::instance_association::{Attempt, Batch, Keep};
use crate::domain::association::{MODEL_ASSOCIATION_KEY_LIMIT, ModelAssociation, can_name};
use crate::domain::batch::{Verdict, plan};
use crate::domain::caller::{Caller, Credentials};
use crate::domain::fault::{DetailFault, Fault};
use crate::domain::language::Language;
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
    /// The answer that this repeats, if it repeats one.
    pub original: Option<Original>,
}

/// An answer that was given before.
#[derive(Debug)]
pub struct Original {
    /// The id that it names.
    pub request_id: String,
    /// The language that it is written in.
    pub language: Language,
}

impl Outcome {
    /// The outcome of a request: why each detail is refused, if it is, and the ids of the others in their order.
    pub(super) fn of(
        request: &CreateLinks,
        refusals: impl IntoIterator<Item = Option<DetailFault>>,
        ids: Vec<i64>,
    ) -> Self {
        let mut outcome = Self {
            source_model: request.source_model.clone(),
            target_model: request.target_model.clone(),
            ..Self::default()
        };
        let mut ids = ids.into_iter();
        for (index, refusal) in refusals.into_iter().enumerate() {
            match refusal {
                Some(fault) => outcome.refused.extend([(index, fault)]),
                None => outcome.created.extend(ids.next().map(|id| (index, id))),
            }
        }
        outcome
    }
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
    /// The language that its answer is written in.
    pub language: Language,
    /// What it says. That it says it badly is held against it only once the caller is known.
    pub given: Result<Given, Fault>,
}

/// Creates the links of one request.
pub async fn create_many(service: &Service, incoming: Incoming) -> Result<Outcome, Error> {
    let mut place = Some(service.place()?);
    let believable = caller::check(service, incoming.credentials)?;
    let proven = caller::prove(service, incoming.deadline, believable).await?;
    let mut meter = Meter::new(service.limiter.as_ref(), &proven.app_code);
    let created = async {
        if proven.offers_token() {
            // The login service may take its time.
            place = None;
        }
        let caller = proven.caller(service, incoming.deadline).await?;
        if place.is_none() {
            place = Some(service.place()?);
        }
        proven.check_api(API)?;
        let request = incoming.given.and_then(Given::check)?;
        meter.charge(request.details.len())?;
        proven.check_account(&request.account, API)?;
        let known = Known {
            service,
            request_id: &incoming.request_id,
            deadline: incoming.deadline,
            caller: &caller,
            links: &request,
            language: incoming.language,
        };
        let create = async |conn: &mut PgConnection| known.create(conn).await;
        lend(&service.pool, incoming.deadline, create).await
    };
    let created = created.await;
    drop(place);
    if let Err(Error::Refused(fault)) = &created {
        meter.settle(fault);
    }
    created
}

/// A request whose caller is known.
struct Known<'a> {
    service: &'a Service,
    request_id: &'a str,
    deadline: Instant,
    caller: &'a Caller,
    links: &'a CreateLinks,
    language: Language,
}

impl Known<'_> {
    async fn create(&self, conn: &mut PgConnection) -> Result<Outcome, Error> {
        let mut lost_races = 0;
        loop {
            if let Some(key) = &self.links.key
                && let Some(outcome) =
                    idempotency::replay(conn, self.caller, self.links, key).await?
            {
                return Ok(outcome);
            }
            let (model_association, seen) = self.permit(conn).await?;
            match self.create_seen(conn, &model_association, &seen).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Err(Error::Database(error))
                    if db::trouble(&error) != Trouble::LostRace
                        || lost_races >= MOST_LOST_RACES =>
                {
                    return Err(error.into());
                }
                Ok(None) | Err(Error::Database(_)) => lost_races += 1,
                Err(other) => return Err(other),
            }
        }
    }

    /// Finds the model association, and refuses what the user may not edit.
    async fn permit(&self, conn: &mut PgConnection) -> Result<(ModelAssociation, Seen), Error> {
        let CreateLinks { model_association: key, account, details, .. } = self.links;
        let user = &self.caller.user;
        let found = if can_name(key, MODEL_ASSOCIATION_KEY_LIMIT) {
            db::model_association::find(conn, key, account, user).await?
        } else {
            None
        };
        self.links.check_association(found.as_ref().map(|found| &found.model_association))?;
        let found = found.ok_or(Fault::UnknownModelAssociation)?;
        let seen = match self.service.authorization {
            Authorization::Grants => {
                permission::judge(conn, user, &found, account, details).await?
            }
            Authorization::Off => Seen::Everything,
        };
        Ok((found.model_association, seen))
    }

    /// Creates the links; none if an instance came up that permission was not judged for.
    async fn create_seen(
        &self,
        conn: &mut PgConnection,
        model_association: &ModelAssociation,
        seen: &Seen,
    ) -> Result<Option<Outcome>, Error> {
        let details = &self.links.details;
        let mut facts = seen.expect(details);
        let mut were_looked_up = false;
        let keep = self.links.key.as_deref().map(|key| Keep {
            key,
            meaning: idempotency::meaning(self.links),
            language: self.language.tag(),
        });
        loop {
            let verdicts = plan(model_association.mapping, details, &facts);
            if keep.is_none() && were_looked_up && verdicts.iter().all(Result::is_err) {
                return Ok(Some(outcome(self.links, &verdicts, Vec::new())));
            }
            // What could still be running at the deadline is not begun: the caller would be told that nothing
            // was created, and then it would be.
            if Instant::now() + db::STATEMENT_TIMEOUT > self.deadline {
                return Err(Error::OutOfTime);
            }
            let batch = Batch {
                model_association,
                account: &self.links.account,
                details,
                foreseen: &facts,
                verdicts: &verdicts,
                request_id: self.request_id,
                caller: self.caller,
                keep: keep.as_ref(),
            };
            match db::instance_association::create(conn, &batch).await? {
                Attempt::Created(ids) => return Ok(Some(outcome(self.links, &verdicts, ids))),
                Attempt::Refuted(found) if seen.covers(details, &found) => facts = found,
                Attempt::Refuted(_) => return Ok(None),
            }
            were_looked_up = true;
        }
    }
}

fn outcome(request: &CreateLinks, verdicts: &[Verdict], ids: Vec<i64>) -> Outcome {
    Outcome::of(request, verdicts.iter().map(|verdict| verdict.err()), ids)
}
