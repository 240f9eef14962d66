"""A client that puts the API key into names and paths: nothing that the real process writes or sends has it."""

import sqlite3
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.commands.process import completed, environment, running

KEY = "5f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
FORMS = (KEY, b64encode(f"{KEY}:".encode()).decode().rstrip("="))
NAMES = (KEY, f"team-{KEY}-x", "x" * 40 + KEY + "y" * 300, "Basic " + b64encode(f"{KEY}:".encode()).decode())


class Server(ThreadingHTTPServer):
    """The upstream, the receiver of the webhook, and the collector. Keeps what it got, except as upstream."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sent: dict[str, list[str]] = {"/hook": [], "/v1/traces": [], "/v1/metrics": []}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in self.server.sent:
            self.server.sent[self.path].append(body.decode("latin-1"))
        is_page, is_limited = "page" in self.path, "LabelFile" in self.path
        response = b"<html>" if is_page else b"{}"
        self.send_response(429 if is_limited else 200)
        if is_limited:
            self.send_header("Retry-After", "60")
        self.send_header("Content-Type", "text/html" if is_page else "application/json")
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    do_GET = do_POST = do_DELETE = _respond  # noqa: N815  # the names that the library calls

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_sink_gets_the_key_that_a_client_puts_into_its_name_and_its_paths(tmp_path: Path, call: Any) -> None:
    ledger, state = tmp_path / "usage.db", tmp_path / "state"
    seen: dict[str, str] = {}
    with serving() as server:
        flags = [
            *("--upstream", server.url, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
            *("--ledger", str(ledger), "--state-file", str(state), "--caller-header", "X-Caller"),
            *("--webhook-url", f"{server.url}/hook", "--otlp-endpoint", server.url, "--log-format", "json"),
            *("--otlp-metrics-endpoint", server.url),
        ]
        with running(
            ["serve", *flags], environment(NANONETS_API_KEY=KEY), folder=tmp_path, is_forked=True
        ) as proxy:
            for name in NAMES:
                fields = {"X_Caller": name, "User_Agent": f"agent {KEY}", "X_Request_Id": KEY}
                call(f"{proxy.url}/api/v4/workflows/{KEY}?k={KEY}", **fields)
                call(f"{proxy.url}/api/v4/workflows/{KEY}?page={KEY}", **fields)
                call(f"{proxy.url}/api/v4/workflows/{KEY}", "DELETE", **fields)
                call(f"{proxy.url}/api/v2/OCR/Model/{KEY}/LabelFile/", "POST", b"", Prefer="wait=0", **fields)
            for path in ("metrics", "status", "readyz", "livez"):
                seen[path] = str(call(f"{proxy.admin_url}/{path}")[2])
            seen["status --json"] = completed(
                ["status", "--json", "--admin-listen", proxy.admin_url.removeprefix("http://")],
                environment(),
                tmp_path,
            ).stdout
            assert proxy.end() == 0
            seen["log"] = repr(proxy.all_events())
        seen |= {path: "".join(bodies) for path, bodies in server.sent.items()}
    seen["state file"] = state.read_text()
    with closing(sqlite3.connect(ledger)) as database:
        seen["ledger"] = "\n".join(database.iterdump())
    run = completed(["usage", "--ledger", str(ledger), "--by", "caller"], environment(), tmp_path)
    seen["usage"] = run.stdout
    assert [name for name, text in seen.items() if not text] == [], "each of them has something to show"
    assert "team-[REDACTED]-x" in seen["usage"]
    found = [(name, form) for name, text in seen.items() for form in FORMS if form in text or form[:30] in text]
    assert found == []
