//! Creating a batch of links.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info_span};

use super::caller::Claimed;
use super::limit::Meter;
use super::permission::{self, Seen};
use super::{Error, Service, caller, idempotency, lend};
use crate::db;
use crate::db::ErrorClass;
use crate::db::app::App;
use crate::db::background::{Background, Found, Named};
use crate::db::instance_association::{Attempt, Batch, Keep};
use crate::domain::association::{MODEL_ASSOCIATION_KEY_LIMIT, ModelAssociation, is_valid_key};
use crate::domain::batch::{Verdict, plan};
use crate::domain::caller::{APP_CODE_LIMIT, Caller, Credentials, USERNAME_LIMIT};
use crate::domain::error::{DetailError, RequestError};
use crate::domain::language::Language;
use crate::domain::permission::Authorization;
use crate::domain::request::{CreateLinks, Given};

/// What became of each detail, by its index.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The ids of the new links.
    pub created: BTreeMap<usize, i64>,
    /// The refusals.
    pub refused: BTreeMap<usize, DetailError>,
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
        refusals: impl IntoIterator<Item = Option<DetailError>>,
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

/// A part of a request that traces show; nobody else sees it.
macro_rules! step {
    ($name:literal) => {
        info_span!(target: "trace", $name)
    };
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
    pub given: Result<Given, RequestError>,
}

/// Creates the links of one request.
pub async fn create_many(service: &Service, incoming: Incoming) -> Result<Outcome, Error> {
    let mut place = service.place()?;
    let claimed = step!("credentials").in_scope(|| caller::check(service, incoming.credentials))?;
    let mut asked = Asked {
        service,
        request_id: &incoming.request_id,
        deadline: incoming.deadline,
        meter: Meter::new(service.limiter.as_ref(), claimed.app_code.clone()),
        claimed,
        given: incoming.given.and_then(Given::check),
        language: incoming.language,
    };
    if let Some(token) = asked.claimed.token().map(str::to_owned)
        && let Some(login) = &service.login
    {
        // The login service may take its time, and is not asked for strangers.
        lend(&service.pool, incoming.deadline, async |conn| asked.prove(conn).await).await?;
        drop(place);
        let answer = login.user_of(&token).instrument(step!("login"));
        let user = timeout_at(incoming.deadline, answer).await;
        asked.claimed.learn(user.unwrap_or(Err(RequestError::Unavailable("login service"))));
        place = service.place()?;
    }
    if asked.claimed.app_code.is_empty() && asked.given.is_err() {
        // Nothing is named that could be looked up.
        asked.judge(None)?;
    }
    let created =
        lend(&service.pool, incoming.deadline, async |conn| asked.create(conn).await).await;
    drop(place);
    created
}

/// A request, and who says that he sends it.
struct Asked<'a> {
    service: &'a Service,
    request_id: &'a str,
    deadline: Instant,
    claimed: Claimed,
    meter: Meter<'a>,
    given: Result<CreateLinks, RequestError>,
    language: Language,
}

impl Asked<'_> {
    /// What has to be found.
    fn named(&self) -> Named<'_> {
        let named = |name, limit| if is_valid_key(name, limit) { name } else { "" };
        let links = self.given.as_ref().ok();
        Named {
            app_code: named(&self.claimed.app_code, APP_CODE_LIMIT),
            user: named(self.claimed.user(), USERNAME_LIMIT),
            model_association: links
                .map_or("", |links| named(&links.model_association, MODEL_ASSOCIATION_KEY_LIMIT)),
            account: links.map_or("", |links| links.account.as_str()),
        }
    }

    /// Refuses an application that is not what it says.
    async fn prove(&self, conn: &mut PgConnection) -> Result<(), Error> {
        let background = self.look(conn).await?;
        Ok(self.claimed.prove(background.app.as_ref())?)
    }

    /// Finds what the request is judged by.
    async fn look(&self, conn: &mut PgConnection) -> sqlx::Result<Background> {
        db::background::find(conn, &self.named()).instrument(step!("facts")).await
    }

    async fn create(&mut self, conn: &mut PgConnection) -> Result<Outcome, Error> {
        let mut lost_races = 0;
        // An answer may be kept under a key, and is not given on what was.
        let has_key = self.given.as_ref().is_ok_and(|links| links.key.is_some());
        let mut remembered = self.service.memory.recall(&self.named()).filter(|_| !has_key);
        loop {
            let (background, is_remembered) = match remembered.take() {
                Some(background) => (background, true),
                None => (Arc::new(self.look(conn).await?), false),
            };
            match self.create_on(conn, &background).await {
                Ok(Some(outcome)) => {
                    self.service.memory.learn(&self.named(), background);
                    return Ok(outcome);
                }
                Ok(None) if lost_races == MOST_LOST_RACES => {
                    return Err(RequestError::Unavailable("Postgres").into());
                }
                Ok(None) => lost_races += 1,
                Err(Error::Database(error))
                    if db::classify(&error) == ErrorClass::Conflict
                        && lost_races < MOST_LOST_RACES =>
                {
                    lost_races += 1;
                }
                Err(Error::Refused(_))
                    if is_remembered && db::background::mark(conn).await? != background.mark => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates the links if what was found for the request is still so, and permission covers what there is.
    async fn create_on(
        &mut self,
        conn: &mut PgConnection,
        background: &Background,
    ) -> Result<Option<Outcome>, Error> {
        let Background { mark, app, found } = background;
        self.claimed.prove(app.as_ref())?;
        let caller = self.judge(app.as_ref())?;
        let created = self.create_for(conn, &caller, found.as_ref(), *mark).await;
        if let Err(Error::Refused(fault)) = &created {
            self.meter.settle(fault);
        }
        created
    }

    /// Judges an application that proved to be itself, up to what depends on the model association.
    fn judge(&mut self, app: Option<&App>) -> Result<Caller, RequestError> {
        let judged = self.claimed.caller(app).and_then(|caller| {
            caller::check_api(app, API)?;
            let links = self.given.as_ref().map_err(Clone::clone)?;
            self.meter.charge(links.details.len())?;
            caller::check_account(app, &links.account, API)?;
            Ok(caller)
        });
        judged.inspect_err(|fault| self.meter.settle(fault))
    }

    async fn create_for(
        &self,
        conn: &mut PgConnection,
        caller: &Caller,
        found: Option<&Found>,
        mark: i64,
    ) -> Result<Option<Outcome>, Error> {
        let links = self.given.as_ref().map_err(Clone::clone)?;
        if let Some(key) = &links.key
            && let Some(outcome) = idempotency::replay(conn, caller, links, key).await?
        {
            return Ok(Some(outcome));
        }
        links.check_association(found.map(|found| &found.model_association))?;
        let found = found.ok_or(RequestError::UnknownModelAssociation)?;
        let seen = match self.service.authorization {
            Authorization::Grants => {
                let (user, account) = (&caller.user, &links.account);
                let judged = permission::judge(conn, user, found, account, &links.details);
                judged.instrument(step!("permission")).await?
            }
            Authorization::Off => Seen::Everything,
        };
        self.create_seen(conn, caller, links, &found.model_association, mark, &seen).await
    }

    /// Creates the links; none if an instance came up that permission was not judged for, or the epoch is over.
    async fn create_seen(
        &self,
        conn: &mut PgConnection,
        caller: &Caller,
        links: &CreateLinks,
        model_association: &ModelAssociation,
        mark: i64,
        seen: &Seen,
    ) -> Result<Option<Outcome>, Error> {
        let details = &links.details;
        let mut facts = seen.expect(details);
        let mut were_looked_up = false;
        let keep = links.key.as_deref().map(|key| Keep {
            key,
            request_hash: idempotency::meaning(links),
            language: self.language.tag(),
        });
        loop {
            let verdicts =
                step!("plan").in_scope(|| plan(model_association.mapping, details, &facts));
            if keep.is_none() && were_looked_up && verdicts.iter().all(Result::is_err) {
                return Ok(Some(outcome(links, &verdicts, Vec::new())));
            }
            // What could still be running at the deadline is not begun: the caller would be told that nothing
            // was created, and then it would be.
            if Instant::now() + db::STATEMENT_TIMEOUT > self.deadline {
                return Err(Error::OutOfTime);
            }
            let batch = Batch {
                model_association,
                account: &links.account,
                details,
                foreseen: &facts,
                verdicts: &verdicts,
                request_id: self.request_id,
                caller,
                mark,
                keep: keep.as_ref(),
            };
            let created = db::instance_association::create(conn, &batch);
            match created.instrument(step!("write")).await? {
                Attempt::Created(ids) => return Ok(Some(outcome(links, &verdicts, ids))),
                Attempt::Refuted(found) if seen.covers(details, &found) => facts = found,
                Attempt::Refuted(_) | Attempt::Over => return Ok(None),
            }
            were_looked_up = true;
        }
    }
}

fn outcome(request: &CreateLinks, verdicts: &[Verdict], ids: Vec<i64>) -> Outcome {
    Outcome::of(request, verdicts.iter().map(|verdict| verdict.err()), ids)
}
