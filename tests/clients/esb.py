"""A proxy that changes requests and answers as ESB does between a client and the CMDB.

It drops most headers of the request, and the status and the headers of the answer. It moves the
variables of the path from the body to the path, and forwards unknown keys of the body. For models
it sets fields of the body. It takes credentials from the body only, as the older ESB does, and
believes them.
"""

import json
import re
import threading
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
# The name of each endpoint, or "" if only the CMDB API has it, and method and path there.
ENDPOINTS = re.findall(r"(?:`(\w+)` → )?`([A-Z]+) (/api/v3/[^`]+)`", README)
# By name: the method and the path at the CMDB API.
COMPONENTS = {name: (method, path) for name, method, path in ENDPOINTS if name}
NOT_FORWARDED = (
    "bk_app_code", "bk_app_secret", "bk_token", "bk_username", "bk_supplier_account",
)
# `extra_param_fields` in cc.yaml of BlueKing CMDB: what ESB adds to the body.
ADDED = {
    "create_object": ("bk_supplier_account", "creator"),
    "search_objects": ("bk_supplier_account",),
    "update_object": ("bk_supplier_account",),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        name = self.path.strip("/").rsplit("/", 1)[-1]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user, tenant = body["bk_username"], body.get("bk_supplier_account") or "0"
        forwarded = {key: value for key, value in body.items() if key not in NOT_FORWARDED}
        values = {"bk_supplier_account": tenant, "creator": user}
        forwarded |= {key: values[key] for key in ADDED.get(name, ())}
        request_id = uuid.uuid4().hex
        headers = {
            "BK_USER": user,
            "HTTP_BLUEKING_LANGUAGE": self.headers.get("Blueking-Language", "en"),
            "HTTP_BK_SUPPLIER_ACCOUNT": tenant,
            "HTTP_BLUEKING_SUPPLIER_ID": "0",
            "X-Bkapi-Request-Id": request_id,
        }
        self.server.requests += 1
        failure = self.server.failures.pop(0) if self.server.failures else {}
        if not failure or failure.get("forwarded"):
            method, path = COMPONENTS[name]
            values |= forwarded
            variables = set(re.findall(r"{(\w+)}", path))
            path = path.format_map(values)
            forwarded = {key: value for key, value in forwarded.items() if key not in variables}
            answer = self.forward(method, path, json.dumps(forwarded).encode(), headers)
        if failure:
            answer = {"bk_error_code": failure["code"], "bk_error_msg": failure["message"]}
        code = answer["bk_error_code"]
        self.reply(
            {
                "result": code == 0,
                "code": code,
                "data": answer.get("data"),
                "message": answer["bk_error_msg"],
                "permission": answer.get("permission"),
                "request_id": request_id,
            }
        )

    def forward(self, method, path, body, headers):
        url = self.server.cmdb + path
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as refusal:
            return json.load(refusal)

    def reply(self, answer):
        content = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Esb(ThreadingHTTPServer):
    """Forwards to the CMDB API at the URL `cmdb`. The first requests fail as `failures` says."""

    daemon_threads = True

    def __init__(self, cmdb, failures):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cmdb, self.failures, self.requests = cmdb, list(failures), 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
