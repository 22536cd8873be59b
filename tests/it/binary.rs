//! The compiled program as a child: what goes to stdout, to stderr, and what it exits with.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use sqlx::{ConnectOptions, PgPool};

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program of this build.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_cmdb-associations");

/// The program on the database of a test.
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

    /// As [`Self::at`], with the executable of any build.
    pub(crate) fn of(executable: &str, url: &str) -> Self {
        Self { executable: executable.to_owned(), url: url.to_owned() }
    }

    /// The program with arguments, and with no settings but the database.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command_without_settings(&self.executable);
        command.args(args).env("CMDB_DATABASE_URL", &self.url);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args), "")
    }

    /// As [`Self::run`], with something on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        finish(&mut self.command(args), stdin)
    }

    /// Starts the server on a free port and waits until it listens.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        self.serve_in(&[], args)
    }

    /// As [`Self::serve`], with variables of the environment.
    pub(crate) fn serve_in(&self, environment: &[(&str, &str)], args: &[&str]) -> Server {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut command = self.command(&args);
        let command = command.envs(environment.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let mut next = || loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {log}")).unwrap();
            log.push_str(&line);
            log.push('\n');
            if let Some((_, port)) = line.rsplit_once("127.0.0.1:") {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        let address = next();
        let operators = args.contains(&"--ops-listen").then(&mut next);
        // The rest of the log is read as it comes, so that the server never waits for a reader.
        let rest =
            std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        Server { address, operators, child, log, rest: Some(rest) }
    }
}

/// The program without anything of this process's settings.
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

/// Runs a command to its end.
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

/// Secrets are 64 hex digits, and nothing else that is printed beside stdout is.
fn assert_no_secret(text: &str) {
    let mut words = text.split(|character: char| !character.is_ascii_hexdigit());
    assert!(!words.any(|word| word.len() >= 64), "a secret is told: {text}");
}

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    pub(crate) address: String,
    /// Where operators are served, if that was asked for.
    pub(crate) operators: Option<String>,
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

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; its exit code and all that it logged.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.whole_log())
    }

    /// All that it logged. Whatever the test is about: no secret is in it.
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
