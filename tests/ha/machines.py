"""Machines as network namespaces, and the processes on them, with the files of `deploy/ha`."""

import json
import os
import re
import signal
import subprocess
import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy/ha"
FOLDER, PATRONI, POSTGRES, SERVER = (
    Path(os.environ[name]) for name in ("HA_FOLDER", "HA_PATRONI", "HA_POSTGRES", "HA_SERVER")
)
ENVIRONMENT = {"PATH": f"{POSTGRES}:{os.environ['PATH']}", "LANG": "C.UTF-8", "TZ": "UTC"}
NETWORK = "192.0.2"
HAPROXY = f"{NETWORK}.20"
PASSWORD = "secret"
# Patroni's Python may be in a directory that only root may enter.
AS_POSTGRES = (
    "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--",
)  # fmt: skip
SYNCHRONOUS = ("sync_standby", "quorum_standby")  # Patroni's roles
UNREACHABLE = (OSError, HTTPException, ValueError)
PROXY = f"postgresql://cmdb:{PASSWORD}@{HAPROXY}:5000/cmdb"
HOSTS = ",".join(f"{NETWORK}.{last}:5432" for last in (11, 12, 13))
ALL_HOSTS = f"postgresql://cmdb:{PASSWORD}@{HOSTS}/cmdb?target_session_attrs=read-write"


def run(*command, check=True, **options):
    """Runs a command to its end and returns what it printed."""
    options = {"env": ENVIRONMENT, "timeout": 60} | options
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if check and result.returncode:
        output = f"{result.stdout}{result.stderr}".strip()
        raise OSError(f"{command} exits with {result.returncode}: {output}")
    return result.stdout.strip()


def get(url, timeout=2):
    """The status and the body of an answer."""
    try:
        with urlopen(Request(url), timeout=timeout) as response:
            return response.status, response.read().decode()
    except OSError as error:
        if hasattr(error, "status"):
            return error.status, error.read().decode()
        raise


def wait_until(what, condition, seconds):
    """Waits until the condition holds, which may raise while something is unreachable."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (*UNREACHABLE, subprocess.SubprocessError):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def create_network():
    """The bridge that connects the machines. The clients are on its side."""
    for command in ("set lo up", "add br0 type bridge", "set br0 up"):
        run("ip", "link", *command.split())
    run("ip", "address", "add", f"{NETWORK}.1/24", "dev", "br0")


class Machine:
    """A network namespace, and a mount namespace with a /var/lib/postgresql of its own."""

    def __init__(self, name, last):
        self.name, self.address = name, f"{NETWORK}.{last}"
        self.mac = f"02:00:00:00:00:{last}"
        self.folder = FOLDER / name
        self.processes = {}
        mounts = []
        for source, target in (("data", "/var/lib/postgresql"), ("run", "/run/postgresql")):
            path = self.folder / source
            path.mkdir(parents=True)
            run("chown", "postgres:", path)
            mounts.append(f"mount --bind {path} {target}")
        script = " && ".join([*mounts, "echo ready", "exec sleep infinity"])
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
        )
        if self.holder.stdout.readline() != b"ready\n":
            raise OSError(f"cannot create the namespaces of {name}")
        link = f"link add {name} type veth peer name eth0 address {self.mac} netns"
        run("ip", *link.split(), str(self.holder.pid))
        run("ip", "link", "set", name, "master", "br0", "up")
        for command in (f"address add {self.address}/24 dev eth0", "link set eth0 up"):
            self.run("ip", *command.split())
        self.run("ip", "link", "set", "lo", "up")

    def know(self, others):
        """Fixes the addresses of other machines, so that packets to a lost one get no answer."""
        for other in others:
            fixed = f"neighbor replace {other.address} lladdr {other.mac} dev eth0 nud permanent"
            self.run("ip", *fixed.split())

    def inside(self, *command):
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", *command]

    def run(self, *command, **options):
        return run(*self.inside(*command), **options)

    def start(self, name, *command, **environment):
        with (FOLDER / f"{self.name}-{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                self.inside(*command), env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def unplug(self):
        run("ip", "link", "set", self.name, "nomaster")

    def plug_in(self):
        run("ip", "link", "set", self.name, "master", "br0")


class Node(Machine):
    """A machine with etcd and with PostgreSQL under Patroni."""

    def environment(self, file):
        """A file of settings, with this node's name and address in the lines for them."""
        this, rest = (FILES / file).read_text().split("# The same on all nodes.")
        this = this.replace("pg1", self.name).replace("192.0.2.11", self.address)
        return dict(re.findall(r"^(\w+)=(.*)$", this + rest, re.MULTILINE))

    def start_etcd(self):
        data = {"ETCD_DATA_DIR": str(self.folder / "etcd"), "ETCD_LOG_LEVEL": "error"}
        self.start("etcd", "etcd", **self.environment("etcd.env"), **data)

    def patroni_environment(self):
        data = f"/var/lib/postgresql/{POSTGRES.parent.name}/cmdb"
        version = {"PATRONI_POSTGRESQL_BIN_DIR": str(POSTGRES), "PATRONI_POSTGRESQL_DATA_DIR": data}
        return self.environment("patroni.env") | version

    def start_patroni(self):
        command = (*AS_POSTGRES, PATRONI / "patroni", FILES / "patroni.yml")
        self.start("patroni", *command, **self.patroni_environment())

    def patronictl(self, *arguments):
        command = (PATRONI / "patronictl", "--config-file", FILES / "patroni.yml", *arguments)
        return self.run(*command, env=ENVIRONMENT | self.patroni_environment())

    def sql(self, statement, database="cmdb", timeout=10):
        """The rows of a query on this node, as lists of texts."""
        psql = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement)
        lines = self.run(*AS_POSTGRES, *psql, timeout=timeout).splitlines()
        return [line.split("|") for line in lines]

    def postgres(self):
        """The processes of PostgreSQL. The first one is the postmaster."""
        data = self.folder / "data" / POSTGRES.parent.name / "cmdb"
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        return [postmaster, *children(postmaster)]

    def kill_postmaster(self):
        os.kill(self.postgres()[0], signal.SIGKILL)

    def kill_postgres(self):
        """Kills PostgreSQL and what would start it again."""
        self.kill("patroni")
        signal_all(signal.SIGKILL, self.postgres())

    def freeze(self, *processes):
        """Stops PostgreSQL and these processes, as a machine that hangs. Returns what thaws it."""
        frozen = [self.processes[name].pid for name in processes]
        signal_all(signal.SIGSTOP, frozen)
        for _ in range(2):  # the postmaster may have started one meanwhile
            frozen += self.postgres()
            signal_all(signal.SIGSTOP, frozen)
        return lambda: signal_all(signal.SIGCONT, set(frozen))


def children(parent):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except FileNotFoundError:
            pass  # it has ended
    return found


def signal_all(number, processes):
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            pass  # it has ended


class Application(Machine):
    """A machine with a server."""

    def start_server(self, url):
        self.url = url
        listen = {"CMDB_LISTEN": "0.0.0.0:8090", "CMDB_PROXIES": HAPROXY}
        self.start("server", SERVER, "serve", "--no-migrate", CMDB_DATABASE_URL=url, **listen)

    def restart_server(self, url):
        self.kill("server")
        self.start_server(url)

    def command(self, *arguments):
        environment = ENVIRONMENT | {"CMDB_DATABASE_URL": ALL_HOSTS}
        return self.run(SERVER, *arguments, env=environment, timeout=120)

    def readiness(self):
        """Empty if the server is ready, else the reason."""
        try:
            status, text = get(f"http://{self.address}:8090/readyz")
        except UNREACHABLE as error:
            return repr(error)
        return "" if status == 200 else text.strip()


class Cluster:
    """Three nodes, two servers, and HAProxy in front of them."""

    def __init__(self):
        create_network()
        self.nodes = [Node(f"pg{number}", 10 + number) for number in (1, 2, 3)]
        self.proxy = Machine("haproxy", 20)
        self.servers = [Application(f"app{number}", 20 + number) for number in (1, 2)]
        machines = [*self.nodes, self.proxy, *self.servers]
        for machine in machines:
            machine.know(other for other in machines if other is not machine)
        for node in self.nodes:
            node.start_etcd()
        wait_until("etcd has a leader", self.etcd_leader, 30)
        for node in self.nodes:
            node.start_patroni()
        wait_until("there is a primary", self.primary, 60)
        self.proxy.start("haproxy", "haproxy", "-db", "-f", FILES / "haproxy.cfg")
        primary = self.primary()
        primary.sql(f"create role cmdb login password '{PASSWORD}'", "postgres")
        create = "create database cmdb owner cmdb template template0 encoding 'UTF8'"
        wait_until("there is a database", lambda: primary.sql(create, "postgres") == [], 60)

    def members(self, nodes):
        """The role and state of each member by its name, as Patroni says on one of these nodes."""
        for node in nodes:
            try:
                members = json.loads(get(f"http://{node.address}:8008/cluster")[1])["members"]
            except UNREACHABLE:
                continue
            return {member["name"]: (member["role"], member["state"]) for member in members}
        return {}

    def primary(self, nodes=None):
        """The node that leads, as Patroni says on one of these nodes, or None."""
        members = self.members(nodes or self.nodes)
        leads = (node for node in self.nodes if members.get(node.name) == ("leader", "running"))
        return next(leads, None)

    def synchronous_standby(self):
        members = self.members(self.nodes)
        return next(node for node in self.nodes if members[node.name][0] in SYNCHRONOUS)

    def etcdctl(self, node, *arguments):
        endpoint = f"--endpoints={node.address}:2379"
        return run("etcdctl", endpoint, "--command-timeout=1s", *arguments, check=False)

    def etcd_leader(self):
        """The node of etcd's leader, or None."""
        for node in self.nodes:
            status = self.etcdctl(node, "endpoint", "status", "--write-out=json")
            for endpoint in json.loads(status or "[]"):
                if endpoint["Status"]["leader"] == endpoint["Status"]["header"]["member_id"]:
                    return node
        return None

    def move_etcd_leader(self, node):
        """Makes the node etcd's leader."""
        leader = self.etcd_leader()
        if leader is node:
            return
        status = json.loads(self.etcdctl(node, "endpoint", "status", "--write-out=json"))
        self.etcdctl(leader, "move-leader", f"{status[0]['Status']['header']['member_id']:x}")
        wait_until("etcd's leader has moved", lambda: self.etcd_leader() is node, 10)

    def is_whole(self):
        """Whether both standbys stream, one of them synchronously, and both servers are ready."""
        members = self.members(self.nodes).values()
        streams = "select count(*) from pg_stat_replication where state = 'streaming'"
        return (
            sorted(state for _, state in members) == ["running", "streaming", "streaming"]
            and any(role in SYNCHRONOUS for role, _ in members)
            and self.primary().sql(streams, "postgres") == [["2"]]
            and not any(server.readiness() for server in self.servers)
        )

    def connections(self, node):
        """How many connections the servers have on a node."""
        count = "select count(*) from pg_stat_activity where usename = 'cmdb'"
        return int(node.sql(count, "postgres")[0][0])
