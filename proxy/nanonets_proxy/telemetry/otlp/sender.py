"""Posts encoded traces and metrics to a collector, on the event loop."""

import asyncio
import contextlib
import ssl
from typing import Final

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.http_post import post

STOP_S: Final = 2.0
"""How long the end of the process may be delayed."""
SEND_TIMEOUT_S: Final = 10.0
_WANTED_LATER: Final = frozenset({429, 502, 503, 504})  # OTLP specification, "Retryable Response Codes"
_NO_RESPONSE, _NO_CONNECTION = "no response from the collector", "no connection to the collector"
_NO_HTTP, _NOT_TRUSTED = "the collector sent no HTTP response", "the collector's certificate is not trusted"
_BUSY: Final = "the collector is busy"
TEMPORARY: Final = frozenset({_NO_RESPONSE, _NO_CONNECTION, _NO_HTTP, _NOT_TRUSTED, _BUSY})
"""The faults after which the collector may take the same batch later."""
_HEAD: Final = (
    b"POST %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: nanonets-proxy\r\nContent-Type: application/x-protobuf\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n"
)


class CollectorSender:
    """Sends batches of one kind to one collector, each on a connection of its own."""

    def __init__(self, collector: Origin, path: bytes) -> None:
        self.collector = collector
        self._path = path
        self._tls = ssl.create_default_context() if collector.tls else None

    async def send(self, body: bytes) -> str | None:
        """Posts a batch. Returns None if the collector took it, otherwise the fault."""
        collector = self.collector
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                head = _HEAD % (self._path, collector.authority.encode(), len(body))
                status = await post(collector.host, collector.port, self._tls, head + body)
        except TimeoutError:
            return _NO_RESPONSE
        except ssl.SSLCertVerificationError:  # also an OSError
            return _NOT_TRUSTED
        except OSError:
            return _NO_CONNECTION
        except ValueError:
            return _NO_HTTP
        if status in _WANTED_LATER:
            return _BUSY
        return None if 200 <= status < 300 else f"the collector responded with status {status}"


async def finish(task: "asyncio.Task[None] | None", within_s: float) -> None:
    """Waits for a task, and cancels it if it takes longer."""
    if task is not None:
        await asyncio.wait([task], timeout=within_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
