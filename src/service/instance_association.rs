//! Creating a batch of links.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::limit::Limiter;
use super::{Error, Service, caller};
use crate::db;
use crate::db::Trouble;
use crate::db::instance_association::{Attempt, Batch};
use crate::db::permission::Named;
use crate::domain::association::{MODEL_ASSOCIATION_KEY_LIMIT, ModelAssociation, can_name};
use crate::domain::batch::{Detail, Fact, Verdict, plan};
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
    let proven = caller::prove(service, believable).await?;
    let mut meter = Meter { limiter: service.limiter.as_ref(), app: &proven.app_code, charged: 0 };
    let created = async {
        let caller = proven.caller(service, incoming.deadline).await?;
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
        };
        known.create().await
    };
    let created = created.await;
    if let Err(Error::Refused(fault)) = &created {
        meter.settle(fault);
    }
    created
}

/// What a request costs its application.
struct Meter<'a> {
    limiter: Option<&'a Limiter>,
    app: &'a str,
    charged: u32,
}

impl Meter<'_> {
    fn charge(&mut self, details: usize) -> Result<(), Fault> {
        let Some(limiter) = self.limiter else { return Ok(()) };
        let details = u32::try_from(details).unwrap_or(u32::MAX);
        limiter.charge(self.app, details)?;
        self.charged = details;
        Ok(())
    }

    /// A refused request costs one; one that is over the limit, nothing.
    fn settle(&self, fault: &Fault) {
        match (self.limiter, fault, self.charged) {
            (None, ..) | (_, Fault::RateLimited(_), _) => {}
            (Some(limiter), _, 0) => drop(limiter.charge(self.app, 1)),
            (Some(limiter), _, charged) => limiter.give_back(self.app, charged - 1),
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

/// What a user was found to be allowed.
enum Allowed {
    /// All instances of both models.
    Everything,
    /// These sources and targets. No others existed when that was looked up.
    Only(HashSet<i64>, HashSet<i64>),
}

impl Known<'_> {
    async fn create(&self) -> Result<Outcome, Error> {
        let mut conn = self.service.pool.acquire().await?;
        let mut lost_races = 0;
        loop {
            let (model_association, allowed) = self.permit(&mut conn).await?;
            match self.create_allowed(&mut conn, &model_association, &allowed).await {
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
    async fn permit(&self, conn: &mut PgConnection) -> Result<(ModelAssociation, Allowed), Error> {
        let CreateLinks { model_association: key, account, details, .. } = self.links;
        let user = &self.caller.user;
        let found = if can_name(key, MODEL_ASSOCIATION_KEY_LIMIT) {
            db::model_association::find(conn, key, account, user).await?
        } else {
            None
        };
        let may_edit_all = match (&found, self.service.authorization) {
            (Some(found), Authorization::Grants) => {
                found.may_edit_sources && found.may_edit_targets
            }
            (_, Authorization::Off) | (None, _) => true,
        };
        self.links.check_association(found.as_ref().map(|found| &found.model_association))?;
        let found = found.ok_or(Fault::UnknownModelAssociation)?;
        let association = found.model_association;
        if may_edit_all {
            return Ok((association, Allowed::Everything));
        }
        let sources: Vec<i64> = details.iter().filter_map(|detail| detail.source).collect();
        let targets: Vec<i64> = details.iter().filter_map(|detail| detail.target).collect();
        let named =
            db::permission::list_named(conn, user, &association, account, &sources, &targets)
                .await?;
        let of = |model_id: i32, may_edit_all: bool| {
            let named = named.iter().filter(move |named| named.model_id == model_id);
            named
                .filter(move |named| may_edit_all || named.is_granted)
                .map(|named| named.instance.instance_id)
        };
        let allowed = Allowed::Only(
            of(association.source_model_id, found.may_edit_sources).collect(),
            of(association.target_model_id, found.may_edit_targets).collect(),
        );
        let is_missing = |named: &Named| {
            let is_free = (named.model_id == association.source_model_id && found.may_edit_sources)
                || (named.model_id == association.target_model_id && found.may_edit_targets);
            !is_free && !named.is_granted
        };
        let missing: Vec<_> = named.iter().filter(|named| is_missing(named)).collect();
        if missing.is_empty() {
            return Ok((association, allowed));
        }
        let missing = missing.into_iter().map(|named| named.instance.clone()).collect();
        Err(Fault::NoPermission(missing).into())
    }

    /// Creates what may be created; none if an instance came up that permission was not asked for.
    async fn create_allowed(
        &self,
        conn: &mut PgConnection,
        model_association: &ModelAssociation,
        allowed: &Allowed,
    ) -> Result<Option<Outcome>, Error> {
        let details = &self.links.details;
        let mut facts = allowed.expect(details);
        let mut were_looked_up = false;
        loop {
            let verdicts = plan(model_association.mapping, details, &facts);
            if were_looked_up && verdicts.iter().all(Result::is_err) {
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
            };
            match db::instance_association::create(conn, &batch).await? {
                Attempt::Created(ids) => return Ok(Some(outcome(self.links, &verdicts, ids))),
                Attempt::Refuted(found) if allowed.covers(details, &found) => facts = found,
                Attempt::Refuted(_) => return Ok(None),
            }
            were_looked_up = true;
        }
    }
}

impl Allowed {
    /// What to foresee: nothing in the way, or that what is not allowed does not exist.
    fn expect(&self, details: &[Detail]) -> Vec<Fact> {
        let Self::Only(sources, targets) = self else { return Vec::new() };
        let is_missing =
            |id: Option<i64>, allowed: &HashSet<i64>| id.is_none_or(|id| !allowed.contains(&id));
        let fact = |detail: &Detail| Fact {
            source_missing: is_missing(detail.source, sources),
            target_missing: is_missing(detail.target, targets),
            ..Fact::default()
        };
        details.iter().map(fact).collect()
    }

    /// Whether everything that exists is allowed.
    fn covers(&self, details: &[Detail], facts: &[Fact]) -> bool {
        let expected = self.expect(details);
        let mut pairs = expected.iter().zip(facts);
        pairs.all(|(expected, fact)| {
            (fact.source_missing || !expected.source_missing)
                && (fact.target_missing || !expected.target_missing)
        })
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
