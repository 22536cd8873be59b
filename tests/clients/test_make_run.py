"""`make run` prints the README's curl, which gives the README's answer; Ctrl-C stops everything."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest
from conftest import ROOT, environment, wait_for

ADDRESS = "127.0.0.1:8090"
PATH = "/api/c/compapi/v2/cc/batch_create_instance_association/"


@pytest.fixture
def printed(tmp_path):
    """The output of a running `make run`, its process and its address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    output = tmp_path / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            ["make", "run", f"LOCAL={tmp_path}/local"],
            cwd=ROOT,
            process_group=0,
            env=environment() | {"CMDB_LISTEN": address},
            stdout=stream,
            stderr=stream,
        )
    try:
        yield output, process, address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=30)


def test_curl_of_make_run_is_the_one_in_the_readme(printed):
    output, process, address = printed
    command = wait_for(f"^curl -sS http://{address}{PATH} .*?}}'\n\n", output, process, 600)[0]
    secret = re.search('"bk_app_secret": "([0-9a-f]{64})"', command)[1]
    readme = (ROOT / "README.md").read_text()
    example = re.search(
        rf"(?P<curl>curl -sS http://{ADDRESS}{PATH} .*?}}')$.*?^```json\n(?P<answer>.*?)^```$",
        readme,
        re.MULTILINE | re.DOTALL,
    )
    assert command.replace(address, ADDRESS).replace(secret, "…").split() == example["curl"].split()

    answer = json.loads(run(command))
    expected = json.loads(example["answer"])
    assert answer == expected | {"request_id": answer["request_id"]}
    again = json.loads(run(command))["data"]
    assert again["success_created"] == {}
    assert again["error_msg"]["0"] == "the associations bk_switch->host already exist"

    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address.split(":"), timeout=5)


def run(command):
    """Runs the command in a shell, as a reader who pastes it does."""
    return subprocess.check_output(["bash", "-c", command], text=True, timeout=30)
