"""What is noted of one request while it lives, and the log event and metrics at its end."""

import os
import re
from collections.abc import Iterator
from itertools import chain
from math import floor
from time import perf_counter
from typing import Final

from aiohttp import web

from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.telemetry.log import WholeEvents
from nanonets_proxy.telemetry.metrics import RequestTally

_GOOD_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_MAX_CALLER_CHARS: Final = 128


class AccessRecord:
    """One request's notes, named and in the order of its log event, whose fields are this object's own dictionary:
    a mapping made of them at the end would cost as much as its rendering. Durations are in seconds."""

    code: str  # why it was refused or broke off; this and the next are there only where it was
    error: str

    def __init__(self, request: web.BaseRequest, caller: str) -> None:
        self.method = request.method
        self.path = request.raw_path  # until the end with its query
        self.status = 0  # 0: the caller hung up first
        self.caller = caller
        self.scope = ""
        self.attempts = 0
        self.wait_s = 0.0
        self.upstream_s: float | None = None
        self.total_s = -perf_counter()  # until the end is added
        self.received_bytes = 0
        self.sent_bytes = 0
        self.request_id = _new_id()
        self.key = ""  # its name

    def identify(self, request_id: bytes | None, caller: bytes | None) -> None:
        """Takes over what the caller says of itself, within bounds."""
        if request_id is not None and _GOOD_REQUEST_ID.fullmatch(request_id):
            self.request_id = request_id.decode("ascii")
        if caller:
            self.caller = caller[:_MAX_CALLER_CHARS].decode("latin-1")

    def finish(self, log: WholeEvents | None, requests: RequestTally) -> None:
        """One log event and the counts. Nothing more can be noted: the durations are now rounded, to 100 us, and
        the path has lost what is not to be logged."""
        wait_s, upstream_s = self.wait_s, self.upstream_s
        requests.observe(self.method, self.status, wait_s, upstream_s)
        if log is None:
            return
        # `round` goes by way of decimal text, and a function of our own would be called three times.
        if wait_s:
            self.wait_s = floor(wait_s * 10_000 + 0.5) / 10_000
        if upstream_s is not None:
            self.upstream_s = floor(upstream_s * 10_000 + 0.5) / 10_000
        self.total_s = floor((self.total_s + perf_counter()) * 10_000 + 0.5) / 10_000
        self.path = loggable_target(self.path)
        log(self.__dict__)


def _some_ids() -> Iterator[list[str]]:
    """Of 64 random bits each, a few at a time: made singly, they cost twice as much."""
    while True:
        yield os.urandom(8 * 64).hex(" ", 8).split()


_new_id: Final = chain.from_iterable(_some_ids()).__next__
