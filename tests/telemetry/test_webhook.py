"""Alerts for a receiver: the document and its signature, and a receiver that is slow, broken or gone."""

import asyncio
import hmac
import json
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.exporters import WebhookUnusable
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.net.webhook_url import parse_webhook_url
from nanonets_proxy.telemetry.alerts import Alert, Alerts
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.webhook import sender
from nanonets_proxy.telemetry.webhook.sender import MAX_DOCUMENT_BYTES, MAX_QUEUED, Webhook, document
from support.certificates import CertificateAuthority
from support.commands.ports import free_port
from support.eventually import WAIT_S, until
from support.proxy_harness import KEY, program, running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

SECRET = bytes(range(32))
ALARM = Alert("usage_alarm", "new_caller", {"alarm": "new_caller", "sentence": "It is new."}, "look at it", 1)


class Receiver:
    """Keeps the requests. Responds with the statuses in turn, and then with the last one; 0: never."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.heads: list[dict[str, str]] = []
        self.targets: list[str] = []
        self.bodies: list[bytes] = []
        self.url = ""

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            head = dict(line.split(": ", 1) for line in lines)
            self.bodies.append(await reader.readexactly(int(head["Content-Length"])))
            self.heads.append(head)
            self.targets.append(first)
            status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
            if not status:
                await reader.read()
                return
            location = b"Location: /elsewhere\r\n" if status // 100 == 3 else b""
            writer.write(b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, location))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/nanonets"
    try:
        yield receiver
    finally:
        server.close()


class Sender:
    """A running sender with alerts of its own."""

    def __init__(self, url: str, key: bytes | None = SECRET) -> None:
        self.registry = CollectorRegistry()
        self.alerts = Alerts(CollectorRegistry())
        self.webhook = Webhook(parse_webhook_url(url), key, self.registry, self.alerts, bytes)
        self.webhook.start()

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.webhook.queue(ALARM, "eu")

    def total(self, name: str) -> float:
        return self.registry.get_sample_value(f"nanonets_proxy_webhook_{name}_total") or 0.0

    @property
    def faults(self) -> list[str]:
        return [alert["error"] for alert in self.alerts.to_json()]


@asynccontextmanager
async def sending(url: str, key: bytes | None = SECRET) -> AsyncIterator[Sender]:
    sender = Sender(url, key)
    try:
        yield sender
    finally:
        sender.webhook.stop()
        task = sender.webhook._task
        assert task is not None
        await asyncio.wait([task])


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sender, "_MAX_PAUSE_S", 0.02)


# --- the document -----------------------------------------------------------------------------


def test_a_document_has_the_sentence_the_advice_and_the_facts() -> None:
    assert document(ALARM, "eu", 1_796_000_000.5) == {
        "version": 1,
        "type": "usage_alarm",
        "timestamp": "2026-11-30T00:53:20.500Z",
        "host": socket.gethostname(),
        "environment": "eu",
        "kind": "new_caller",
        "sentence": "It is new.",
        "advice": "look at it",
        "times": 1,
        "details": {"alarm": "new_caller"},
    }


def test_an_alert_without_a_sentence_gets_one_of_its_facts() -> None:
    alert = Alert("connections_rejected", "", {"limit": "max_connections", "value": 100}, "raise it", 3)
    assert document(alert, "", 0.0)["sentence"] == 'Connections rejected: limit "max_connections", value 100.'
    assert document(Alert("pages_not_counted", "", {}, "", 1), "", 0.0)["sentence"] == "Pages not counted."


def test_large_facts_are_left_out() -> None:
    alert = Alert("unexpected_response", "html", {"start": "x" * MAX_DOCUMENT_BYTES}, "look at it", 1)
    found = document(alert, "", 0.0)
    assert found["details"] == {}
    assert len(json.dumps(found)) < MAX_DOCUMENT_BYTES


# --- the sender -------------------------------------------------------------------------------


async def test_a_receiver_can_verify_the_signature() -> None:
    async with receiving(200) as receiver, sending(receiver.url) as own:
        own.send()
        await until(lambda: own.total("delivered") == 1)
    (head,), (body,) = receiver.heads, receiver.bodies
    assert receiver.targets == ["POST /hooks/nanonets HTTP/1.1"]
    assert head["Content-Type"] == "application/json"
    assert abs(int(head["webhook-timestamp"]) - time.time()) < 600
    signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
    version, _, signature = head["webhook-signature"].partition(",")
    assert (version, b64decode(signature)) == ("v1", hmac.digest(SECRET, signed, sha256))


async def test_without_a_secret_there_is_no_signature() -> None:
    async with receiving(204) as receiver, sending(receiver.url, key=None) as own:
        own.send()
        await until(lambda: own.total("delivered") == 1)
    assert "webhook-signature" not in receiver.heads[0]


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("status", [500, 503, 429, 408, 0])
async def test_a_failed_delivery_is_tried_again_with_the_same_id(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not status:
        monkeypatch.setattr(sender, "_SEND_TIMEOUT_S", 0.2)
    async with receiving(status, status, 200) as receiver, sending(receiver.url) as own:
        own.send(2)
        await until(lambda: own.total("delivered") == 2)
    first, second, third, other = (head["webhook-id"] for head in receiver.heads)
    assert first == second == third != other
    assert own.total("dropped") == 0
    assert own.faults == [f"the receiver responded with status {status}" if status else "no response within 0.2 s"]


def test_the_pauses_between_attempts_double() -> None:
    assert [sender.pause_after_s(attempt) for attempt in (0, 1, 2, 8, 9, 1000)] == [1, 2, 4, 256, 300, 300]


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404])
async def test_a_redirect_or_a_rejection_drops_the_document(status: int) -> None:
    async with receiving(status, 200) as receiver, sending(receiver.url) as own:
        own.send(2)
        await until(lambda: own.total("delivered") == 1)
    assert own.total("dropped") == 1
    assert len(receiver.targets) == 2, "the redirect is not followed"
    assert own.faults == [f"the receiver responded with status {status}"]


@pytest.mark.usefixtures("short_pauses")
async def test_a_receiver_that_is_gone_gets_the_newest_alerts_when_it_is_back() -> None:
    port = free_port()
    receiver = Receiver(200)
    async with sending(f"http://127.0.0.1:{port}/") as own:
        own.send()
        await until(lambda: bool(own.faults))
        own.send(MAX_QUEUED + 10)
        assert own.total("dropped") == 10
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
        await until(lambda: own.total("delivered") == MAX_QUEUED + 1)
        server.close()


async def test_the_end_counts_the_alert_that_is_sent_as_dropped_too() -> None:
    async with receiving(503) as receiver, sending(receiver.url) as own:
        own.send(3)
        await until(lambda: bool(own.faults))
        own.webhook.stop()
        assert own.total("dropped") == 3


async def test_the_end_counts_no_alert_that_was_delivered_or_rejected() -> None:
    async with receiving(200, 400) as receiver, sending(receiver.url) as own:
        own.send(2)
        await until(lambda: own.total("delivered") + own.total("dropped") == 2)
        own.webhook.stop()
        assert own.total("dropped") == 1


async def test_a_response_that_is_no_http_is_a_fault() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with sending(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as own:
        own.send()
        await until(lambda: own.faults == ["the receiver sent no http response"])
    server.close()


async def test_a_name_with_a_public_address_gets_no_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))]

    async with sending("http://alerts.example.com/") as own:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        own.send()
        await until(lambda: own.faults == ["the receiver's name resolves to a public address: use https"])


@pytest.mark.parametrize("name", ["127.0.0.1", "another.example.com"])
async def test_the_certificate_of_the_receiver_must_be_valid_for_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    receiver = Receiver(200)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=authority.server(name))
    async with sending(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as own:
        own.send()
        if name == "127.0.0.1":
            await until(lambda: own.total("delivered") == 1)
        else:
            await until(lambda: bool(own.faults))
            assert own.faults[0].startswith("the receiver's certificate is not trusted: ")
            assert receiver.bodies == []
    server.close()


# --- in the program ---------------------------------------------------------------------------


def secret_file(folder: Path) -> Path:
    path = folder / "webhook"
    path.write_text(f"whsec_{b64encode(SECRET).decode()}\n")
    path.chmod(0o600)
    return path


async def test_the_alerts_of_the_program_reach_the_receiver_without_the_key(tmp_path: Path) -> None:
    async with (
        receiving(200) as receiver,
        running_proxy(
            Origin("http", "127.0.0.1", 1), webhook_url=receiver.url, webhook_secret_file=str(secret_file(tmp_path))
        ) as proxy,
        await proxy.caller() as caller,
    ):
        assert proxy.program._webhook is not None
        proxy.program._webhook._redact = redacting(KEY)
        proxy.proxy.alerts.report("disk_filled", f"make room, {KEY}", path=f"/x/{KEY}")
        assert (await caller.get(b"/api/v4/workflows")).status == 502
        await until(lambda: len(receiver.bodies) == 2)
    assert [found["type"] for found in receiver.documents] == ["disk_filled", "upstream_connection_failed"]
    assert KEY not in b"".join(receiver.bodies).decode()
    assert receiver.documents[0]["details"] == {"path": "/x/[REDACTED]"}
    assert "webhook-signature" in receiver.heads[0]


def redacting(secret: str) -> Redactor:
    redactor = Redactor()
    redactor.add([secret.encode()])
    return redactor


async def test_a_hanging_receiver_delays_neither_requests_nor_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_SEND_TIMEOUT_S", 10 * WAIT_S)
    async with (
        receiving(0) as receiver,
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, webhook_url=receiver.url) as proxy,
    ):
        proxy.proxy.alerts.report("disk_filled", "make room")
        await until(lambda: bool(receiver.bodies))
        async with await proxy.caller() as caller:
            assert (await caller.get(b"/api/v4/workflows")).status == 200
        async with asyncio.timeout(WAIT_S):
            await proxy.stop(10 * WAIT_S)


async def test_what_was_reported_before_the_sender_began_is_sent_too() -> None:
    async with receiving(200) as receiver, sending(receiver.url) as own:
        own.alerts.report("ledger_stopped", "make room")
        own.alerts.subscribe(lambda alert: own.webhook.queue(alert, ""))
        own.alerts.report("disk_filled", "make room")
        await until(lambda: own.total("delivered") == 2)
    assert [found["type"] for found in receiver.documents] == ["ledger_stopped", "disk_filled"]


async def test_a_secret_file_that_has_gone_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(WebhookUnusable, match=r"webhook_secret_file: .*/gone does not exist"):
        program(
            Origin("http", "127.0.0.1", 1),
            webhook_url="http://127.0.0.1:1/",
            webhook_secret_file=str(tmp_path / "gone"),
        )
