"""A sandbox's settings: keys, rate limit, latency and failures, as frozen values."""

import math
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

MIB = 1024 * 1024
DISCONNECT = "disconnect"
"""The fault that ends a connection without a response."""
OK = "ok"
"""The absence of a fault, before a later one."""

_RULE = re.compile(r"(?P<count>[^/]+)/(?P<size>\d{1,15}(?:\.\d{1,9})?)?\s*(?P<unit>[A-Za-z]*)")
_ERROR_STATUS = re.compile(r"[45][0-9]{2}")
_COUNT = re.compile(r"[0-9]{1,9}")
_UNITS_S = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


class LimitKind(StrEnum):
    """The algorithm of the limit."""

    FIXED_WINDOW = "fixed"
    """Requests per window; windows follow one another on the sandbox's clock."""
    SLIDING_WINDOW = "sliding"
    """Requests within any interval of the window's length."""
    TOKEN_BUCKET = "bucket"  # noqa: S105 - the name of an algorithm, no secret
    """A burst of `count` requests, refilled at `count` per window."""
    CONCURRENCY = "concurrency"
    """Requests in flight at once; the window is only the delay that a refusal gives."""


class LimitScope(StrEnum):
    """The requests that the limit covers."""

    DOCUMENTED = "documented"
    """As Nanonets documents: v4 per account, and v2's OCR predict POSTs per model. Also DocStrange's POSTs."""
    ACCOUNT = "account"
    """All v4 requests together."""
    V2_PREDICT = "v2-predict"
    """v2's OCR predict POSTs, per model."""
    ALL = "all"
    """All API requests together."""


class HintStyle(StrEnum):
    """The place of the retry delay in a 429."""

    BODY = "body"
    HEADER = "header"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`count` requests per `per_s` seconds."""

    count: int
    per_s: float

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("the count of a limit must be a whole number of at least 1")
        if not (math.isfinite(self.per_s) and self.per_s > 0):
            raise ValueError("the window of a limit must be longer than 0 seconds")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `20/60s`, `60/minute` or `5/2s`. Raises ValueError with one sentence for the user."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not COUNT/WINDOW, such as 20/60s or 60/minute")
        if not _COUNT.fullmatch(match["count"].strip()) or int(match["count"]) < 1:
            raise ValueError(f"{text!r}: the count must be a whole number from 1 to 999999999")
        unit = match["unit"].lower()
        if unit not in _UNITS_S:
            raise ValueError(f"{text!r}: the window needs a unit: ms, s, minute, hour or day")
        per_s = float(match["size"] or 1) * _UNITS_S[unit]
        if per_s <= 0:
            raise ValueError(f"{text!r}: the window must be longer than 0")
        return cls(int(match["count"]), per_s)

    def __str__(self) -> str:
        return f"{self.count}/{self.per_s:.15g}s"


def parse_limit(text: str) -> LimitRule | None:
    """Parses a rule or `none`, which is no limit. Raises ValueError with one sentence for the user."""
    return None if text.strip() == "none" else LimitRule.parse(text)


def check_key(key: str) -> None:
    """Raises ValueError if `key` cannot be a key."""
    if not key or ":" in key:  # RFC 7617 §2: the user name ends at the first colon.
        raise ValueError("a sandbox key must not be empty and must not contain a colon")


def check_fault(fault: str) -> str:
    """Returns the fault. Raises ValueError if it is not one."""
    if fault not in (DISCONNECT, OK) and not _ERROR_STATUS.fullmatch(fault):
        raise ValueError(f"{fault!r} is no fault: use a status from 400 to 599, {DISCONNECT} or {OK}")
    return fault


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """All settings of a sandbox. Raises ValueError for an invalid value."""

    api_keys: tuple[str, ...]
    """The accepted keys. A caller sends a key as the Basic user name, with an empty password, or to DocStrange's
    paths as a bearer token."""
    limit: LimitRule | None = None
    """None: no request gets a 429."""
    limit_kind: LimitKind = LimitKind.FIXED_WINDOW
    limit_scope: LimitScope = LimitScope.DOCUMENTED
    hint: HintStyle = HintStyle.BODY
    latency_s: float = 0.0
    """The delay of every admitted API request."""
    failure_rate: float = 0.0
    """The share, from 0 to 1, of admitted API requests that get a 503."""
    faults: tuple[str, ...] = ()
    """What happens to the first admitted API requests, in order: a status from 400 to 599, `disconnect` or `ok`."""
    pending_polls: int = 1
    """The number of GETs of an asynchronous document that return `pending`."""
    etags: bool = False
    """Whether a 200 to a GET has an ETag, and `If-None-Match` can get a 304. Nanonets is not known to do so."""
    seed: int = 0
    """Determines failures and ids: the same seed and order of requests give the same run."""
    max_body_bytes: int = 100 * MIB
    """A larger body gets a 413."""

    def __post_init__(self) -> None:
        for key in self.api_keys:
            check_key(key)
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ValueError("latency_s must be 0 or more seconds")
        if not 0 <= self.failure_rate <= 1:
            raise ValueError("failure_rate must lie between 0 and 1")
        for fault in self.faults:
            check_fault(fault)
        if self.pending_polls < 0:
            raise ValueError("pending_polls must be 0 or more")
        if self.max_body_bytes < 1:
            raise ValueError("max_body_bytes must be 1 or more")


def make_key() -> str:
    """Returns a random key for a sandbox that runs inside another program."""
    return f"sandbox-{secrets.token_hex(16)}"
