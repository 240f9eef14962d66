"""The shell of `core.retry`: which failure an upstream's error or answer is, and what is kept of one request."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.retry import RETRIED_STATUSES, Failure, Retries
from nanonets_proxy.core.ratelimit.retry_hint import read_hint
from nanonets_proxy.errors import (
    UpstreamClosed,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.response_head import ResponseHead

# A handshake that fails, a broken answer or a spent time limit would only fail again, or cost as long again.
_PASSING: Final = (UpstreamClosed, UpstreamDnsFailed, UpstreamRefused, UpstreamUnreachable)


@dataclass(slots=True)
class Retrying:
    """One request's retries: `done` so many; `spent_s` went by in what failed and in the pauses behind it."""

    retries: Retries
    on_retry: Callable[[], None]
    done: int = 0
    spent_s: float = 0.0
    _pause_s: float | None = None

    async def pause(self, since_s: float) -> None:
        """Lets the pause of a retry go by, if one is due; `since_s`: when the attempt began, by `perf_counter`."""
        if self._pause_s is not None:
            await asyncio.sleep(self._pause_s)
            self._pause_s = None
            self.spent_s += time.perf_counter() - since_s

    def timing(self) -> bytes:
        """What Server-Timing says of it behind its other entries; b"" where the first attempt did it."""
        if not self.done:
            return b""
        return b', retry;dur=%.1f;desc="%d"' % (self.spent_s * 1000, self.done)

    def wants(self, failed: UpstreamError | ResponseHead, method: str, may_take_s: float) -> bool:
        """Whether to send the request again instead of answering with the error, or relaying the answer, that came.

        True is a promise: `pause()` has to follow. `may_take_s` is what its caller may still be kept waiting.
        """
        failure, hint_s = _failure(failed)
        if failure is None:
            return False
        self._pause_s = self.retries.pause_s(failure, method, done=self.done, may_take_s=may_take_s, hint_s=hint_s)
        if self._pause_s is None:
            return False
        self.done += 1
        self.on_retry()
        return True


def _failure(failed: UpstreamError | ResponseHead) -> tuple[Failure | None, float | None]:
    """None for what is no passing failure; with what the upstream said of when to come back."""
    if isinstance(failed, UpstreamError):
        if not isinstance(failed, _PASSING):
            return None, None
        return (Failure.LOST if failed.sent else Failure.NOT_SENT), None
    if failed.status not in RETRIED_STATUSES:
        return None, None
    return Failure.UNAVAILABLE, read_hint(failed.headers, b"", wall_now_s=time.time()).retry_after_s
