//! The compiled program as a child process: its output and exit codes, or a running server.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sqlx::{ConnectOptions, PgPool};

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program of this build.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_cmdb-associations");

/// The program, configured with the database of a test.
pub(crate) struct Program {
    executable: String,
    url: String,
}

impl Program {
    pub(crate) fn on(pool: &PgPool) -> Self {
        Self::at(pool.connect_options().to_url_lossy().as_str())
    }

    pub(crate) fn at(url: &str) -> Self {
        Self::of(EXECUTABLE, url)
    }

    /// Like [`Self::at`], with the executable of any build.
    pub(crate) fn of(executable: &str, url: &str) -> Self {
        Self { executable: executable.to_owned(), url: pooled_url(url) }
    }

    /// A command with arguments, and with no other setting than the database.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command_without_settings(&self.executable);
        command.args(args).env("CMDB_DATABASE_URL", &self.url);
        command
    }

    /// A script of bash in which `cmdb-associations` is the program, with no other setting than the
    /// database, whose URL psql accepts, too. It ends with the first command that fails.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = command_without_settings("bash");
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let folder = Path::new(&self.executable).parent().unwrap().to_owned();
        let folders = std::iter::once(folder).chain(std::env::split_paths(&folders));
        command.env("PATH", std::env::join_paths(folders).unwrap());
        // The other parameters are sqlx's own.
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let host = query.split('&').find(|parameter| parameter.starts_with("host="));
        let url = format!("{base}?{}", host.unwrap_or_default());
        command.args(["-euo", "pipefail", "-c", script]).env("CMDB_DATABASE_URL", url);
        command
    }

    /// Runs the program until it exits.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args), "")
    }

    /// Like [`Self::run`], with input on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        finish(&mut self.command(args), stdin)
    }

    /// Starts the server on a free port and waits until it listens.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        self.serve_in(&[], args)
    }

    /// Like [`Self::serve`], with environment variables.
    pub(crate) fn serve_in(&self, environment: &[(&str, &str)], args: &[&str]) -> Server {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut command = self.command(&args);
        let command = command.envs(environment.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let mut next = || loop {
            let line = lines.next().unwrap_or_else(|| panic!("the server exited: {log}")).unwrap();
            log.push_str(&line);
            log.push('\n');
            if let Some((_, port)) = line.rsplit_once("127.0.0.1:") {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        let address = next();
        let operations = args.contains(&"--ops-listen").then(&mut next);
        // Reads the rest of the log, so that the server never blocks on a full pipe.
        let rest =
            std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        Server { address, operations, child, log, rest: Some(rest) }
    }
}

/// The URL with which to connect through pgbouncer, if the tests run with it and the URL names a
/// socket. `.dev/with-pgbouncer` says where pgbouncer listens.
fn pooled_url(url: &str) -> String {
    let Some((base, query)) = url.split_once('?').filter(|_| is_pooled()) else {
        return url.to_owned();
    };
    let parameter = |parameter: &str| {
        let is_socket = ["host=/", "host=%2F"].iter().any(|start| parameter.starts_with(start));
        format!("{parameter}{}", if is_socket { "/pooler" } else { "" })
    };
    let query = query.split('&').map(parameter).collect::<Vec<_>>().join("&");
    format!("{base}?{query}")
}

/// Whether the servers of the tests are behind pgbouncer: see `make pooler-test`.
pub(crate) fn is_pooled() -> bool {
    std::env::var_os("CMDB_TEST_POOLER").is_some()
}

/// Whether pgbouncer assigns a connection for each transaction.
pub(crate) fn is_transaction_pooled() -> bool {
    std::env::var_os("CMDB_TEST_POOLER")
        .is_some_and(|call| call.to_string_lossy().ends_with(" transaction"))
}

/// The program, without the settings in the environment of this process.
pub(crate) fn without_settings() -> Command {
    command_without_settings(EXECUTABLE)
}

fn command_without_settings(executable: &str) -> Command {
    let mut command = Command::new(executable);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CMDB_")
            || name.starts_with("OTEL_")
            || name == "DATABASE_URL"
            || name == "RUST_LOG"
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command until it exits.
pub(crate) fn finish(command: &mut Command, stdin: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_no_secret(&stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    Output { status: output.status.code().unwrap(), stdout, stderr }
}

/// Secrets are 64 hex digits. Nothing else on stderr has that form.
fn assert_no_secret(text: &str) {
    let mut words = text.split(|character: char| !character.is_ascii_hexdigit());
    assert!(!words.any(|word| word.len() >= 64), "stderr contains a secret: {text}");
}

/// A running server. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    /// The address of `--ops-listen`, if it was given.
    pub(crate) operations: Option<String>,
    child: Child,
    log: String,
    rest: Option<std::thread::JoinHandle<String>>,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server exits. Returns its exit code and its log.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.whole_log())
    }

    /// The whole log, which must not contain a secret.
    fn whole_log(&mut self) -> String {
        let rest = self.rest.take().map(|rest| rest.join().unwrap());
        let log = std::mem::take(&mut self.log) + &rest.unwrap_or_default();
        assert_no_secret(&log);
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.whole_log();
        }
    }
}
