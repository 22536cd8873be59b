"""Makes parts of the cluster of `deploy/ha` fail under load, and prints what callers saw.

`make ha-test` runs it: `.dev/ha-test` installs the programs and creates the namespaces. The
arguments are names of rounds. Exits with 1 if an acknowledged association was lost or is stored
twice or in part, if an answer was wrong, or if something did not work again by itself.
"""

import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from load import Load, export
from machines import ALL_HOSTS, FOLDER, PATRONI, POSTGRES, PROXY, Cluster, run, wait_until

# How long commits wait in the round without standbys, and how many connections the servers may then
# have: 2 × (CMDB_DATABASE_CONNECTIONS + 3) each, as docs/configuration.md says.
OUTAGE = 45
MAX_CONNECTIONS = 2 * 2 * (10 + 3)
HEADER = """\
| Fault | Pause | Longest wait | Acknowledged | Lost | Twice | Half | Replayed | `check` |
|---|---:|---:|---:|---:|---:|---:|---:|---|"""
ROUNDS = {}


def define(fault, url=ALL_HOSTS):
    """Declares a round: a generator that gets the cluster and the primary. It makes the fault,
    yields until every client was served again, and undoes the fault."""

    def add(function):
        name = function.__name__.replace("_", "-")
        ROUNDS[name] = Round(fault, url, function)
        return function

    return add


@dataclass
class Round:
    fault: str
    url: str
    function: object


def wait_for_another(cluster, primary):
    others = [node for node in cluster.nodes if node is not primary]
    wait_until(
        "another node is the primary",
        lambda: cluster.primary(others) not in (None, primary),
        seconds=90,
    )


@define("PostgreSQL of the primary is killed")
def kill(cluster, primary):
    primary.kill_postmaster()
    wait_for_another(cluster, primary)
    yield


@define("PostgreSQL of the primary freezes, and thaws after the fail-over")
def freeze(cluster, primary):
    thaw = primary.freeze()
    wait_for_another(cluster, primary)
    yield
    thaw()


@define("PostgreSQL of the primary is killed, servers connected through HAProxy", PROXY)
def kill_proxied(cluster, primary):
    yield from kill(cluster, primary)


@define("PostgreSQL of the primary freezes and thaws, servers connected through HAProxy", PROXY)
def freeze_proxied(cluster, primary):
    yield from freeze(cluster, primary)


@define("The primary's machine freezes, and thaws after the fail-over")
def freeze_machine(cluster, primary):
    thaw = primary.freeze("patroni", "etcd")
    wait_for_another(cluster, primary)
    yield
    thaw()


@define("The machine of the primary and of etcd's leader is cut off")
def cut_off(cluster, primary):
    cluster.move_etcd_leader(primary)
    primary.unplug()
    wait_for_another(cluster, primary)
    yield
    primary.plug_in()


@define("`patronictl switchover`")
def switch_over(cluster, primary):
    standby = next(node for node in cluster.nodes if node is not primary)
    standby.patronictl("switchover", "--leader", primary.name, "--force")
    wait_for_another(cluster, primary)
    yield


@define("A server is killed")
def kill_server(cluster, _primary):
    server = cluster.servers[0]
    server.kill("server")
    yield
    server.start_server(server.url)


@define("etcd's leader is killed")
def kill_etcd(cluster, _primary):
    leader = cluster.etcd_leader()
    leader.kill("etcd")
    yield
    leader.start_etcd()


@define("The machine of the synchronous standby is cut off")
def cut_off_standby(cluster, _primary):
    standby = cluster.synchronous_standby()
    standby.unplug()
    yield
    standby.plug_in()


@define(f"Both standbys are lost for {OUTAGE} s")
def lose_standbys(cluster, primary):
    standbys = [node for node in cluster.nodes if node is not primary]
    for standby in standbys:
        standby.kill_postgres()
    try:
        watch_waiting_commits(cluster, primary)
    finally:
        for standby in standbys:
            standby.start_patroni()
    yield


def watch_waiting_commits(cluster, primary):
    """For the time of the outage: no server is ready, and they have few connections."""
    began = time.monotonic()
    wait_until(
        "no server is ready", lambda: all(server.readiness() for server in cluster.servers), 10
    )
    report(f"no server is ready after {time.monotonic() - began:.1f} s")
    most = 0
    while time.monotonic() < began + OUTAGE:
        most = max(most, cluster.connections(primary))
        if not all(server.readiness() for server in cluster.servers):
            raise AssertionError("a server was ready while commits waited")
        time.sleep(0.5)
    report(f"the servers had at most {most} connections, {MAX_CONNECTIONS} are allowed")
    if most > MAX_CONNECTIONS:
        raise AssertionError(f"{most} connections are more than {MAX_CONNECTIONS}")


def report(text):
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


@contextmanager
def logged_readiness(cluster):
    """Reports each change of the servers' readiness."""
    ending = threading.Event()

    def watch():
        last = {}
        while not ending.wait(0.2):
            for server in cluster.servers:
                if last.get(server.name) != (now := server.readiness()):
                    report(f"  {server.name} {now or 'is ready'}")
                last[server.name] = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def play(name, cluster, load):
    """Plays a round. Returns its row of the table, and what was wrong."""
    for server in cluster.servers:
        if server.url != ROUNDS[name].url:
            server.restart_server(ROUNDS[name].url)
    wait_until("everything works", cluster.is_whole, 90)
    primary = cluster.primary()
    report(f"{name}: the primary is {primary.name}")
    pids = {server.name: server.processes["server"].pid for server in cluster.servers}
    problems = []
    with logged_readiness(cluster):
        load.start()
        try:
            time.sleep(2)
            steps = ROUNDS[name].function(cluster, primary)
            next(steps)
            moment = time.monotonic()
            wait_until("every client is served", lambda: load.is_served_since(moment), 90)
            time.sleep(2)
            next(steps, None)  # undoes the fault
            wait_until("everything works again", cluster.is_whole, 120)
            time.sleep(1)
        except (AssertionError, TimeoutError) as error:
            problems.append(str(error))
        load.stop()
    for server in cluster.servers:
        restarted = name == "kill-server" and server is cluster.servers[0]
        process = server.processes["server"]
        if process.poll() is not None or (process.pid != pids[server.name] and not restarted):
            problems.append(f"{server.name} has ended")
    finding = load.verify(cluster.primary())
    problems += finding.problems
    check = "clean"
    try:
        cluster.servers[0].command("check", "--strict")
    except OSError as error:
        check = "broken"
        problems.append(str(error))
    for what in ("lost", "twice", "half"):
        if count := getattr(finding, what):
            problems.append(f"{count} {what}")
    row = (
        f"| {ROUNDS[name].fault} | {load.longest_pause():.1f} s | {load.longest_wait():.1f} s"
        f" | {finding.acknowledged} | {finding.lost} | {finding.twice} | {finding.half}"
        f" | {finding.replayed} | {check} |"
    )
    report(row)
    for problem in problems:
        report(f"  wrong: {problem[:500]}")
    return row, problems


def versions():
    programs = (
        (PATRONI / "patroni", "--version"), ("etcd", "--version"), ("haproxy", "-v"),
        (POSTGRES / "postgres", "--version"),
    )  # fmt: skip
    return "; ".join(run(*command).splitlines()[0] for command in programs)


def main(names):
    unknown = [name for name in names if name not in ROUNDS]
    if unknown:
        print(f"ha-test: no rounds {unknown}; the rounds are {list(ROUNDS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    cluster = Cluster()
    server = cluster.servers[0]
    server.command("migrate")
    server.command("import", export(FOLDER / "export"))
    secret = server.command("app", "add", "ha", "--trust-username")
    server.command("grant", "add", "--user", "admin", "--all")
    for server in cluster.servers:
        server.start_server(ALL_HOSTS)
    wait_until("everything works", cluster.is_whole, 60)
    report(f"the cluster runs after {time.monotonic() - began:.0f} s")
    load = Load(secret)
    rows, problems = [HEADER], []
    for name in names or ROUNDS:
        row, wrong = play(name, cluster, load)
        rows.append(row)
        problems += [f"{name}: {problem}" for problem in wrong]
    print(*rows, "", versions(), sep="\n")
    print(f"{len(rows) - 1} rounds in {time.monotonic() - began:.0f} s, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        if logs := os.environ.get("HA_LOGS"):
            Path(logs).mkdir(parents=True, exist_ok=True)
            for log in FOLDER.glob("*.log"):
                shutil.copy(log, logs)
