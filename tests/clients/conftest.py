"""A server with the demo inventory for every test, and the closing line of the run.

`make test-clients` runs these tests: `.dev/clients` builds the server, starts PostgreSQL and
installs the clients.
"""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/cmdb-associations"

outcomes = Counter()


@dataclass
class Demo:
    """A running server with the demo inventory and the application `demo`.

    At the CMDB API it trusts this machine. The user `admin` may do everything, any other user
    nothing.
    """

    url: str
    secret: str


@pytest.fixture(scope="session")
def inventory():
    """The URL of a database with the demo inventory, to be copied."""
    database = os.environ["CMDB_DATABASE_URL"]
    run_server("migrate", database=database)
    run_server("import", ROOT / "tests/demo/export", database=database)
    for scope in (["--all"], ["--models"], ["--create", "--all"], ["--delete", "--all"]):
        run_server("grant", "add", "--user", "admin", *scope, database=database)
    return database


@pytest.fixture
def demo(inventory, tmp_path):
    """A server on a database of its own, stopped when the test ends."""
    url = urlsplit(inventory)
    name = f"demo_{time.monotonic_ns()}"
    database = url._replace(path=f"/{name}").geturl()
    maintenance = url._replace(path="/postgres").geturl()
    statement = f"create database {name} template {url.path[1:]}"
    subprocess.run(["psql", "-qX", maintenance, "-c", statement], check=True, timeout=60)
    secret = run_server("app", "add", "demo", "--trust-username", database=database).strip()
    log = tmp_path / "server.log"
    command = [SERVER, "serve", "--listen", "127.0.0.1:0", "--trusted-peers", "127.0.0.1"]
    with log.open("w") as stderr:
        server = subprocess.Popen(command, env=environment(database), stderr=stderr)
    try:
        address = wait_for(r"127\.0\.0\.1:\d+", log, server, seconds=30)[0]
        yield Demo(f"http://{address}", secret)
    finally:
        server.kill()
        server.wait()
        print(log.read_text())  # pytest shows it if the test failed


def run_server(*arguments, database):
    """Runs a command of the server program to its end and returns what it printed."""
    command = [SERVER, *arguments]
    return subprocess.check_output(command, env=environment(database), text=True, timeout=60)


def environment(database=None):
    """This process's environment without settings of the server, except the database."""
    settings = ("CMDB_", "OTEL_", "DATABASE_URL", "RUST_LOG", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    return kept | ({"CMDB_DATABASE_URL": database} if database else {})


def without_new_times(answer):
    """The answer without the times of what was created or changed just now."""
    if not isinstance(data := answer["data"], dict):
        return answer
    is_time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z").fullmatch
    values = {key: "now" if is_time(str(value)) else value for key, value in data.items()}
    for one in values.get("info", []):
        if "created_at" in one:
            one["created_at"] = "now"
    return answer | {"data": values}


def wait_for(pattern, output, process, seconds):
    """Waits until the file `output`, which `process` writes, matches `pattern`."""
    deadline = time.monotonic() + seconds
    while not (match := re.search(pattern, output.read_text(), re.MULTILINE | re.DOTALL)):
        assert process.poll() is None, f"exited with {process.returncode}: {output.read_text()}"
        assert time.monotonic() < deadline, f"not ready in {seconds} s: {output.read_text()}"
        time.sleep(0.05)
    return match


def pytest_configure():
    # Teardown stops the servers also when this process is terminated.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collectreport(report):
    outcomes["failed"] += report.failed


def pytest_runtest_logreport(report):
    outcomes["passed"] += report.passed and report.when == "call"
    outcomes["failed"] += not report.passed


def pytest_keyboard_interrupt():
    outcomes["failed"] += 1


def pytest_unconfigure():
    print(f"{outcomes['passed']} passed, {outcomes['failed']} failed")
