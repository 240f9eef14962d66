"""Sends each alert to the operators' receiver, as a JSON document with a signature (standardwebhooks.com).

| state of a document | event | next state |
|---|---|---|
| QUEUED | `MAX_QUEUED` newer ones wait | DROPPED |
| | the documents before it are delivered or dropped | SENDING |
| SENDING | a response with 2xx | DELIVERED |
| | another 3xx or 4xx | DROPPED: the receiver would reject it again |
| | no connection, no response in time, 408, 425, 429 or 5xx | WAITING, for 1 s, then 2, 4, … 300 s |
| WAITING | the time is over | SENDING, with the same id |
| QUEUED, SENDING, WAITING | the process ends | DROPPED |

Neither a request nor the exit waits for the receiver: the sender is one task, and `stop()` ends it at once. A
redirect is not followed, since it could lead the signature and the document anywhere.
"""

import asyncio
import hmac
import json
import socket
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from secrets import token_hex
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy import __version__
from nanonets_proxy.core.net.webhook_url import WebhookUrl, may_get_http
from nanonets_proxy.telemetry.alerts import Alert, Alerts
from nanonets_proxy.telemetry.http_post import post

VERSION: Final = 1
"""The version of the document. It changes if a field is renamed, removed or gets another meaning."""
MAX_QUEUED: Final = 64
MAX_DOCUMENT_BYTES: Final = 16 * 1024
_SEND_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 300.0
_WANTED_LATER: Final = frozenset({408, 425, 429})
_ADVICE: Final = "check webhook_url, webhook_secret_file and the receiver; requests are served as before"
EVENT: Final = "webhook_failed"


@dataclass(frozen=True, slots=True)
class _Document:
    id: str
    body: bytes = field(repr=False)


class Webhook:
    """Sends what `queue` gets, from `start()` to `stop()`. Make it on the event loop."""

    def __init__(
        self,
        url: WebhookUrl,
        key: bytes | None,
        registry: CollectorRegistry,
        alerts: Alerts,
        redact: Callable[[bytes], bytes],
    ) -> None:
        """`key`: of the signatures. `alerts` gets the faults of the sender. `redact` masks secrets."""
        self._url, self._key, self._alerts, self._redact = url, key, alerts, redact
        self._queue: deque[_Document] = deque()
        self._is_delivering = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tls = ssl.create_default_context() if url.origin.tls else None
        self._delivered = Counter(
            "nanonets_proxy_webhook_delivered",
            "Alerts that the receiver of webhook_url accepted.",
            registry=registry,
        )
        self._dropped = Counter(
            "nanonets_proxy_webhook_dropped",
            "Alerts that the receiver of webhook_url rejected, that were too many to wait for it, or that it had "
            "not accepted when the process ended.",
            registry=registry,
        )

    def queue(self, alert: Alert, environment: str) -> None:
        """Queues an alert, except those of the sender itself. Drops the oldest one that waits if there are many."""
        if alert.event == EVENT:
            return
        body = json.dumps(document(alert, environment, time.time()), separators=(",", ":")).encode()
        if len(self._queue) >= MAX_QUEUED:
            self._queue.popleft()
            self._dropped.inc()
        self._queue.append(_Document(f"msg_{token_hex(16)}", self._redact(body)))
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Ends the sender at once. The alerts that the receiver has not accepted are dropped."""
        if self._task is not None:
            self._task.cancel()
        self._dropped.inc(len(self._queue) + self._is_delivering)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._is_delivering = True
                await self._deliver(self._queue.popleft())
                self._is_delivering = False

    async def _deliver(self, item: _Document) -> None:
        """Sends a document until the receiver accepts or rejects it."""
        for attempt in count():
            pause_s = pause_after_s(attempt)
            status, fault = await self._send(item)
            if fault is None:
                self._delivered.inc()
                return
            is_rejected = 300 <= status < 500 and status not in _WANTED_LATER
            outcome = "the alert is dropped" if is_rejected else f"the next attempt follows after {pause_s:g} s"
            self._alerts.report(EVENT, _ADVICE, receiver=str(self._url), error=fault, outcome=outcome)
            if is_rejected:
                self._dropped.inc()
                return
            await asyncio.sleep(pause_s)

    async def _send(self, item: _Document) -> tuple[int, str | None]:
        """Posts a document once. Returns the status of the response, or 0, and the fault if it was not accepted."""
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                status = await self._post(item)
        except TimeoutError:
            return 0, f"no response within {_SEND_TIMEOUT_S:g} s"
        except ssl.SSLCertVerificationError as error:
            return 0, f"the receiver's certificate is not trusted: {error.verify_message}"
        except (OSError, ValueError) as error:
            return 0, (getattr(error, "strerror", None) or str(error) or "no connection to the receiver").lower()
        return status, None if 200 <= status < 300 else f"the receiver responded with status {status}"

    async def _post(self, item: _Document) -> int:
        """Returns the status of the response. Raises OSError, ValueError."""
        origin = self._url.origin
        host = origin.host if self._tls is not None else await _private_address(origin.host, origin.port)
        return await post(host, origin.port, self._tls, self._head(item) + item.body)

    def _head(self, item: _Document) -> bytes:
        sent_at = str(int(time.time()))
        lines = [
            f"POST {self._url.target} HTTP/1.1",
            f"Host: {self._url.origin.authority}",
            f"User-Agent: nanonets-proxy/{__version__}",
            "Content-Type: application/json",
            f"Content-Length: {len(item.body)}",
            "Connection: close",
            f"webhook-id: {item.id}",
            f"webhook-timestamp: {sent_at}",
        ]
        if self._key is not None:
            signed = f"{item.id}.{sent_at}.".encode() + item.body
            lines.append(f"webhook-signature: v1,{b64encode(hmac.digest(self._key, signed, sha256)).decode()}")
        return "\r\n".join([*lines, "", ""]).encode()


def pause_after_s(attempt: int) -> float:
    """Returns the pause after a failed attempt; the first one is number 0."""
    return float(min(_FIRST_PAUSE_S * 2 ** min(attempt, 16), _MAX_PAUSE_S))


def document(alert: Alert, environment: str, now_s: float) -> dict[str, Any]:
    """Returns an alert as a document. See docs/operations/alerts.md."""
    details: Mapping[str, Any] = {name: value for name, value in alert.fields.items() if name != "sentence"}
    if len(json.dumps(details)) > MAX_DOCUMENT_BYTES // 2:
        details = {}
    seconds, milliseconds = divmod(int(now_s * 1000), 1000)
    return {
        "version": VERSION,
        "type": alert.event,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03}Z",
        "host": socket.gethostname(),
        "environment": environment,
        "kind": alert.kind,
        "sentence": str(alert.fields.get("sentence") or _sentence(alert.event, details)),
        "advice": alert.advice,
        "times": alert.times,
        "details": details,
    }


def _sentence(event: str, details: Mapping[str, Any]) -> str:
    facts = ", ".join(f"{name} {json.dumps(value)}" for name, value in details.items())
    return event.replace("_", " ").capitalize() + (f": {facts}" if facts else "") + "."


async def _private_address(host: str, port: int) -> str:
    """Returns an address of the host that may get plain HTTP. Raises OSError, ValueError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    private = [str(info[4][0]) for info in found if may_get_http(str(info[4][0]))]
    if not private:
        raise ValueError("the receiver's name resolves to a public address: use https")
    return private[0]
