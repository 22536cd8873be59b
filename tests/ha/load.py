"""Clients that create associations, and the comparison of what they were told with what is stored.

The clients retry as docs/api.md says under "Retries".
"""

import http.client
import itertools
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field

from machines import HAPROXY

PATH = "/api/c/compapi/v2/cc/batch_create_instance_association/"
SWITCHES, HOSTS = 700, 5000
CLIENTS = 6
# As the API guide recommends: the pauses of the first half minute, and the timeout.
PAUSES = [2] * 12 + [4, 8] + [15] * 8
TIMEOUT = 25
# ValueError: the answer is incomplete.
BROKEN = (OSError, http.client.HTTPException, ValueError)


def export(folder):
    """Writes an export with two models, which an n:n association connects."""
    folder.mkdir()
    tenant = {"bk_supplier_account": "0"}
    models = [{"id": 1, "bk_obj_id": "host"}, {"id": 2, "bk_obj_id": "bk_switch"}]
    association = {
        "id": 1, "bk_obj_asst_id": "bk_switch_connect_host", "bk_obj_id": "bk_switch",
        "bk_asst_obj_id": "host", "bk_asst_id": "connect", "mapping": "n:n",
    }  # fmt: skip
    files = {
        "cc_ObjDes": [{**model, "bk_obj_name": model["bk_obj_id"]} for model in models],
        "cc_AsstDes": [{"id": 1, "bk_asst_id": "connect", "bk_asst_name": "connect"}],
        "cc_ObjAsst": [association],
        "cc_HostBase": [
            {"bk_host_id": number, "bk_host_innerip": f"10.0.{number // 256}.{number % 256}"}
            for number in range(1, HOSTS + 1)
        ],
        "cc_ObjectBase_0_pub_bk_switch": [
            {"bk_inst_id": number, "bk_inst_name": f"switch-{number}", "bk_obj_id": "bk_switch"}
            for number in range(1, SWITCHES + 1)
        ],
    }
    for name, rows in files.items():
        lines = "".join(json.dumps(row | tenant) + "\n" for row in rows)
        (folder / f"{name}.json").write_text(lines)
    return folder


@dataclass
class Batch:
    """A request, and its answer."""

    pairs: list
    key: str | None
    key_in_header: bool = False
    began: float = 0
    ended: float = 0
    attempts: int = 0
    data: dict | None = None
    problem: str = ""


@dataclass
class Finding:
    """What a round found. Only `acknowledged` and `replayed` may be other than 0 and empty."""

    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    half: int = 0
    replayed: int = 0
    problems: list = field(default_factory=list)


def send(connection, batch, secret):
    """Sends a batch once. Returns the status, the answer and the headers."""
    body = {
        "bk_app_code": "ha", "bk_app_secret": secret, "bk_username": "admin",
        "bk_obj_id": "bk_switch", "bk_asst_obj_id": "host",
        "bk_obj_asst_id": "bk_switch_connect_host",
        "details": [{"bk_inst_id": s, "bk_asst_inst_id": t} for s, t in batch.pairs],
    }  # fmt: skip
    headers = {}
    if batch.key and batch.key_in_header:
        headers["Idempotency-Key"] = batch.key
    elif batch.key:
        body["idempotency_key"] = batch.key
    connection.request("POST", PATH, json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read()), response.headers


def is_refusal(status, answer, headers):
    """Whether this is the only refusal that a fault may cause, of the server or of HAProxy."""
    return (status, answer["code"], headers["Retry-After"]) == (503, 1306201, "2")


class Load:
    """Six clients with batches of 20 to 100 pairs, and a probe with ten single pairs a second.

    No pair is sent in two requests, and a client's request has one key in all attempts.
    """

    def __init__(self, secret):
        self.secret, self.ending = secret, threading.Event()
        self.pairs = [
            itertools.product(range(1 + client, SWITCHES + 1, CLIENTS + 1), range(1, HOSTS + 1))
            for client in range(CLIENTS + 1)
        ]
        self.stored_ids = {}

    def start(self):
        self.batches, self.probes, self.threads = [], [], []
        self.ending.clear()
        for target in [*[self.run_client] * CLIENTS, self.run_probe]:
            thread = threading.Thread(target=target, args=(len(self.threads),), daemon=True)
            self.threads.append(thread)
            thread.start()

    def stop(self):
        """Ends the load. Each client waits for the answer to its last request."""
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def new_batch(self, client, size, key):
        pairs = list(itertools.islice(self.pairs[client], size))
        return Batch(pairs, key, random.random() < 0.7, began=time.monotonic())

    def run_client(self, client):
        connection = None
        while not self.ending.wait(random.uniform(0.2, 0.6)):
            batch = self.new_batch(client, random.randint(20, 100), str(uuid.uuid4()))
            self.batches.append(batch)
            for pause in [*PAUSES, None]:
                batch.attempts += 1
                connection = connection or http.client.HTTPConnection(HAPROXY, 8080, TIMEOUT)
                try:
                    status, answer, headers = send(connection, batch, self.secret)
                except BROKEN:
                    connection.close()
                    connection = None
                else:
                    if status == 200 and answer["code"] == 0:
                        batch.ended, batch.data = time.monotonic(), answer["data"]
                        break
                    if not is_refusal(status, answer, headers):
                        batch.problem = f"{status} {answer}"
                        break
                if pause is None:
                    batch.problem = "given up"
                    break
                time.sleep(pause + random.random() / 2)

    def run_probe(self, client):
        probes = []
        while not self.ending.wait(0.1):
            batch = self.new_batch(client, 1, None)
            self.probes.append(batch)
            probes.append(threading.Thread(target=self.probe, args=(batch,), daemon=True))
            probes[-1].start()
        for probe in probes:
            probe.join()

    def probe(self, batch):
        connection = http.client.HTTPConnection(HAPROXY, 8080, timeout=2)
        try:
            status, answer, headers = send(connection, batch, self.secret)
        except BROKEN:
            return  # the length of the pause is what counts
        finally:
            connection.close()
        if status == 200 and answer["code"] == 0:
            batch.ended, batch.data = time.monotonic(), answer["data"]
        elif not is_refusal(status, answer, headers):
            batch.problem = f"{status} {answer}"

    def is_served_since(self, moment):
        """Whether a request of each client that was sent after the moment was answered."""
        served = [batch for batch in list(self.batches) if batch.data and batch.began > moment]
        return len({batch.pairs[0][0] % (CLIENTS + 1) for batch in served}) == CLIENTS

    def longest_pause(self):
        """The longest time in which no probe was answered."""
        answers = sorted(probe.ended for probe in self.probes if probe.data)
        return max(later - earlier for earlier, later in itertools.pairwise(answers))

    def longest_wait(self):
        """The longest time from a client's first attempt to its answer."""
        return max(batch.ended - batch.began for batch in self.batches if batch.data)

    def verify(self, primary):
        """Compares all answers with what the primary has, and repeats requests under their keys."""
        statement = "select id, source_id, target_id from cmdb.instance_association"
        rows = primary.sql(statement, timeout=60)
        stored = {int(link): (int(source), int(target)) for link, source, target in rows}
        pairs = set(stored.values())
        finding = Finding()
        for batch in [*self.batches, *self.probes]:
            if batch.problem:
                finding.problems.append(batch.problem)
            present = sum(pair in pairs for pair in batch.pairs)
            finding.half += 0 < present < len(batch.pairs)
            if not batch.data:
                continue
            created = batch.data["success_created"]
            finding.acknowledged += len(created)
            # Nobody else creates these pairs: the same request was carried out before.
            finding.twice += len(batch.data["error_msg"])
            for index, link in created.items():
                pair = batch.pairs[int(index)]
                finding.twice += self.stored_ids.setdefault(link, pair) != pair
        finding.twice += len(stored) - len(pairs)
        lost = [link for link, pair in self.stored_ids.items() if stored.get(link) != pair]
        finding.lost = len(lost)
        for link in lost:
            del self.stored_ids[link]
        self.replay(finding)
        return finding

    def replay(self, finding):
        """Sends up to 80 requests again, first those that were sent more than once."""
        answered = [batch for batch in self.batches if batch.data]
        answered.sort(key=lambda batch: -batch.attempts)
        connection = http.client.HTTPConnection(HAPROXY, 8080, TIMEOUT)
        for batch in answered[:80]:
            status, answer, headers = send(connection, batch, self.secret)
            replayed = headers["Idempotent-Replayed"]
            if (status, answer["data"], replayed) == (200, batch.data, "true"):
                finding.replayed += 1
            else:
                finding.problems.append(f"replayed as {status} {answer}, not {batch.data}")
        connection.close()
