//! A PostgreSQL server for one test, which can be stopped, killed or paused.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use cmdb_associations::config::database_at;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

/// A PostgreSQL server. It is stopped when this is dropped.
pub(crate) struct Cluster {
    child: Child,
    _data: TempDir,
    url: String,
    run: String,
}

impl Cluster {
    /// Starts a server with PostgreSQL's default durability: `fsync` is on.
    pub(crate) fn start() -> Self {
        // A server has a pgbouncer of its own, if the tests run with it.
        let pooler = std::env::var_os("CMDB_TEST_POOLER").unwrap_or_default();
        Self::run(tempfile::tempdir().unwrap(), &pooler.to_string_lossy())
    }

    /// As [`Self::start`], with the data in a directory, and with a command around the server's.
    pub(crate) fn run(data: TempDir, wrapper: &str) -> Self {
        let mut child = Command::new(".dev/with-postgres")
            .arg(data.path())
            .args(wrapper.split_whitespace())
            .args(["sh", "-c"])
            // The server runs until stdin is closed.
            .arg("printf '%s\\n' \"$CMDB_DATABASE_URL\" \"$POSTGRES_RUN\"; cat >/dev/null")
            .env_remove("CMDB_DATABASE_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("PostgreSQL did not start").unwrap();
        let (url, run) = (line(), line());
        Self { child, _data: data, url, run }
    }

    /// Connection options of the program for this server.
    pub(crate) fn options(&self) -> PgConnectOptions {
        database_at(&self.url).unwrap().options()[0].clone()
    }

    /// Runs an action of `.dev/postgres` on the server.
    pub(crate) fn does(&self, what: &str) {
        self.run_action(&[what]);
    }

    /// As [`Self::does`], with an argument.
    pub(crate) fn run_action(&self, args: &[&str]) {
        let mut command = Command::new(".dev/postgres");
        let status = command.args(args).env("POSTGRES_RUN", &self.run).status().unwrap();
        assert!(status.success(), "{args:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
