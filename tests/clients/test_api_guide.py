"""The programs printed in the API guide run as printed and print what the guide says.

A fenced block labelled `python`, `go` or `bash` is such a program. Only the server's address and
`…`, which stands for the secret, are replaced. If the next fenced block is labelled `text`, it is
the expected output.

The blocks that begin with `curl` run one after another on one inventory, as a reader who follows
the guide runs them. The `json` block after each is the expected answer.
"""

import json
import re
import subprocess
import sys
import urllib.request

import pytest
from conftest import ROOT, environment, without_new_times
from esb import ENDPOINTS, Esb

GUIDE = ROOT / "docs/api.md"
ADDRESS = "http://127.0.0.1:8090"
EXAMPLE_ID = "06111a8efac445bcbb0269614e86e14c"
COMMANDS = {
    "python": [sys.executable, "program.py"],
    "go": ["go", "run", "program.go"],
    "bash": ["bash", "-euo", "pipefail", "program.bash"],
}


def blocks():
    """Every program of the guide: its line, language and text, and the next block if there is one,
    as a pair of label and text."""
    text = GUIDE.read_text()
    fences = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        language, program = fence.groups()
        if language in COMMANDS:
            line = text.count("\n", 0, fence.start()) + 1
            yield line, language, program, following.groups() if following else ("", "")


def programs():
    """The programs that run on an inventory of their own, with their expected output or None."""
    return [
        pytest.param(language, program, output if label == "text" else None, id=f"line-{line}")
        for line, language, program, (label, output) in blocks()
        if not program.startswith("curl ")
    ]


def commands():
    """The `curl` commands: line, text and expected answer."""
    for line, _, program, (label, answer) in blocks():
        if program.startswith("curl "):
            assert label == "json", f"line {line}: no answer follows the command"
            yield line, program, json.loads(answer)


def test_each_command_is_answered_as_printed(demo, tmp_path):
    first_id = EXAMPLE_ID
    for line, command, expected in commands():
        # A request is found by the id of the first one.
        command = command.replace(EXAMPLE_ID, first_id)
        expected = json.loads(json.dumps(expected).replace(EXAMPLE_ID, first_id))
        answer = json.loads(run("bash", command, demo.url, demo.secret, tmp_path))
        if first_id == EXAMPLE_ID:
            first_id = answer["request_id"]
        if "request_id" in answer:
            assert re.fullmatch("[0-9a-f]{32}", answer["request_id"])
            expected["request_id"] = answer["request_id"]
        assert without_new_times(answer) == without_new_times(expected), f"line {line}"


def test_guide_has_a_command_for_each_endpoint():
    assert len(ENDPOINTS) > 8
    sent = [request_line(command) for _, command, _ in commands()]
    for name, method, path in ENDPOINTS:
        if name:
            method, path = "POST", f"/api/c/compapi/v2/cc/{name}/"
        pattern = f"{method} " + re.sub(r"{\w+}", "[^/]+", path)
        assert any(re.fullmatch(pattern, line) for line in sent), pattern


def request_line(command):
    """The method and the path of a `curl` command."""
    method = re.search(r"-X ([A-Z]+)", command)
    path = re.search(rf"{ADDRESS}(\S+)", command)[1]
    return f"{method[1] if method else 'POST'} {path}"


@pytest.mark.parametrize(("language", "program", "expected"), programs())
def test_program_runs_as_printed(demo, tmp_path, language, program, expected):
    output = run(language, program, demo.url, demo.secret, tmp_path)
    assert successful_requests(demo) > 0
    if expected is not None:
        assert without_request_ids(output) == without_request_ids(expected)


RETRYING = [program for program in programs() if "1306201" in program.values[1]]
FAILURES = [
    {"code": 1306201, "message": "Postgres is unavailable, please try again later"},
    {
        "code": 1306201,
        "message": "Component request third-party system [CC] interface"
        " [batch_create_instance_association] error: response time exceeds 30 seconds, please try"
        " again later or contact component developer to handle this",
        "forwarded": True,
    },
    {"code": 1306429, "message": "Access frequency limit, please try again later"},
]


@pytest.mark.parametrize(("language", "program", "expected"), RETRYING)
def test_program_retries_through_esb(demo, tmp_path, language, program, expected):
    with Esb(demo.url, FAILURES) as esb:
        output = run(language, program, esb.url, demo.secret, tmp_path)
        assert (esb.requests, esb.failures) == (4, [])
    # The second attempt created the association, and the fourth one got its id.
    assert "73" in output
    if expected is not None:
        assert output.strip() == expected.strip()


def test_guide_has_a_retry_in_each_language():
    assert {program.values[0] for program in RETRYING} == set(COMMANDS)


def run(language, program, url, secret, directory):
    """Runs a program against the server at a URL and returns what it printed."""
    assert ADDRESS in program
    program = program.replace(ADDRESS, url).replace("…", secret)
    (directory / COMMANDS[language][-1]).write_text(program)
    done = subprocess.run(
        COMMANDS[language],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stdout, done.stderr)  # pytest shows it if the test fails
    assert done.returncode == 0
    return done.stdout


def test_guide_has_a_program_in_each_language():
    assert {program.values[0] for program in programs()} == set(COMMANDS)


def successful_requests(demo):
    """How many requests the server has answered with code 0."""
    with urllib.request.urlopen(f"{demo.url}/metrics", timeout=25) as response:
        metrics = response.read().decode()
    counts = re.findall(r'^cmdb_requests_total\{.*\bcode="0".*\} (\d+)$', metrics, re.MULTILINE)
    return sum(map(int, counts))


def without_request_ids(output):
    return re.sub(r"\b[0-9a-f]{32}\b", "<request id>", output).strip()
