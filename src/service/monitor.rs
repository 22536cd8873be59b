//! The inspections of the database while the server runs.

use std::time::Duration;

use metrics::gauge;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::Error;
use super::database::{
    CHECK_TIMEOUT, Database, Problem, Purpose, migrate, open, require_applied, require_privileges,
    require_usable, require_writable,
};
use crate::db::pool::Pool;
use crate::db::schema;
use crate::db::{sequence, server};
use crate::domain::error::error_chain;

/// How often the server inspects the database.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// How often it does so while there is a problem.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How many differences of the schema are described.
const DIFFERENCES: usize = 10;

/// What the server knows of its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Why the server is not ready.
    pub problem: Option<String>,
    /// That acknowledged associations can be lost, unless that is accepted.
    pub warning: Option<String>,
}

/// Inspects the database of a server.
pub struct Monitor {
    database: Database,
    pool: Pool,
    migrates: bool,
    accepts_data_loss: bool,
    /// Whether the database was reachable, writable and migrated once.
    is_set_up: bool,
    state: watch::Sender<State>,
}

impl Monitor {
    /// A monitor of the database from which the pool has its connections. `migrates`: it applies
    /// pending migrations. `accepts_data_loss`: it does not warn of weak durability.
    pub fn new(database: Database, pool: Pool, migrates: bool, accepts_data_loss: bool) -> Self {
        let state = watch::Sender::default();
        Self { database, pool, migrates, accepts_data_loss, is_set_up: false, state }
    }

    /// Receives what was found last.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Inspects the database when the server starts. Fails if only a person can solve the problem.
    pub async fn start(&mut self) -> Result<(), Problem> {
        match self.step().await {
            Err(problem) if problem.needs_person() => return Err(problem),
            Err(problem) => self.publish(Err(&problem)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Inspects the database again and again. Never returns.
    pub async fn run(mut self, interval: Duration, retry_interval: Duration) {
        loop {
            let has_problem = self.state.borrow().problem.is_some();
            sleep(if has_problem { retry_interval } else { interval }).await;
            if let Err(problem) = self.step().await {
                self.publish(Err(&problem));
            }
        }
    }

    /// Sets the database up if that was not possible before, inspects it, and publishes what was
    /// found. Fails if the database could not be set up.
    async fn step(&mut self) -> Result<(), Problem> {
        if !self.is_set_up {
            self.set_up().await?;
            self.is_set_up = true;
        }
        self.inspect().await;
        Ok(())
    }

    /// Connects, migrates, and checks what does not change while the server runs.
    async fn set_up(&self) -> Result<(), Problem> {
        let connecting = async {
            let mut conn = open(&self.database).await?;
            require_usable(&mut conn, &self.database, Purpose::Serve).await?;
            if !self.migrates {
                require_applied(schema::find_applied(&mut conn).await?)?;
            }
            Ok(conn)
        };
        let connecting = timeout(CHECK_TIMEOUT, connecting).await;
        let mut conn = connecting.unwrap_or(Err(Problem::Timeout))?;
        if self.migrates && migrate(&mut conn, "0").await? > 0 {
            // On the new tables.
            require_privileges(&mut conn, Purpose::Serve).await?;
        }
        Ok(())
    }

    async fn inspect(&mut self) {
        let mut conn = match self.pool.acquire().await {
            Ok(conn) => conn,
            // All connections are in use, so the database can be reached.
            Err(sqlx::Error::PoolTimedOut) => return,
            Err(error) => return self.publish(Err(&error.into())),
        };
        let inspected = timeout(CHECK_TIMEOUT, inspect(&mut conn)).await;
        let inspected = inspected.unwrap_or(Err(Problem::Timeout));
        // A connection to an unready database is closed: a new one may lead to another server.
        match &inspected {
            Ok(_) => conn.release(),
            Err(_) => conn.disconnect(),
        }
        self.publish(inspected.as_deref());
    }

    /// Publishes what was found, and logs it if it is new.
    fn publish(&self, found: Result<&[String], &Problem>) {
        let before = self.state.borrow().clone();
        let mut state = before.clone();
        match found {
            Ok(weak_durability) => {
                let is_durable = weak_durability.is_empty();
                gauge!("cmdb_database_durable").set(u32::from(is_durable));
                let settings = weak_durability.join(", ");
                let warning =
                    format!("a crash or a failover can lose acknowledged associations: {settings}");
                let is_warning = !is_durable && !self.accepts_data_loss;
                state = State { problem: None, warning: is_warning.then_some(warning) };
            }
            Err(problem) => state.problem = Some(error_chain(problem)),
        }
        match &state.problem {
            Some(problem) if before.problem.as_ref() != Some(problem) => {
                warn!(problem, "the database is not ready");
            }
            None if before.problem.is_some() => info!("the database is ready"),
            _ => {}
        }
        if let Some(warning) = &state.warning
            && before.warning.as_ref() != Some(warning)
        {
            warn!("{warning}");
        }
        self.state.send_replace(state);
    }
}

/// Inspects what can change while a server runs. Returns the settings of weak durability.
async fn inspect(conn: &mut PgConnection) -> Result<Vec<String>, Problem> {
    let server = server::find(conn).await?;
    require_writable(&server)?;
    require_migrated(conn).await?;
    let behind = sequence::list_behind(conn).await?;
    if behind.is_empty() { Ok(server.weak_durability) } else { Err(Problem::Sequences(behind)) }
}

/// Checks that no migration is pending and that the schema is as they made it.
async fn require_migrated(conn: &mut PgConnection) -> Result<(), Problem> {
    let applied = schema::find_applied(conn).await?;
    require_applied(applied)?;
    let differences = schema::find_differences(conn, applied.has_newer).await?;
    if differences.is_empty() {
        return Ok(());
    }
    let mut descriptions: Vec<_> =
        differences.into_iter().map(|difference| difference.description).collect();
    let more = descriptions.len().saturating_sub(DIFFERENCES);
    descriptions.truncate(DIFFERENCES);
    if more > 0 {
        descriptions.push(format!("and {more} more"));
    }
    Err(Problem::Schema(descriptions))
}

/// Returns why a server must get no requests now, or `None` if it can serve them. Asks what can
/// change from one second to the next; [`Monitor`] finds the rest.
///
/// Fails if the database cannot be reached or does not answer before `deadline`.
pub async fn find_problem(pool: &Pool, deadline: Instant) -> Result<Option<String>, Error> {
    let find = async {
        let mut conn = pool.acquire().await?;
        let problem = match check_now(&mut conn).await {
            Ok(()) => None,
            Err(Problem::Database(error)) => return Err(error.into()),
            Err(problem) => Some(problem.to_string()),
        };
        // A connection to an unready database is closed: a new one may lead to another server.
        if problem.is_none() {
            conn.release();
        }
        Ok(problem)
    };
    timeout_at(deadline, find).await.unwrap_or(Err(Error::OutOfTime))
}

async fn check_now(conn: &mut PgConnection) -> Result<(), Problem> {
    require_applied(schema::find_applied(conn).await?)?;
    require_writable(&server::find(conn).await?)
}
