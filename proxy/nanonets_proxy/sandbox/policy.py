"""How a sandbox behaves: its keys, limit, latency and faults, as frozen values."""

import math
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

MIB = 1024 * 1024

_RULE = re.compile(r"(?P<count>[^/]+)/(?P<size>\d{1,15}(?:\.\d{1,9})?)?\s*(?P<unit>[A-Za-z]*)")
_COUNT = re.compile(r"[0-9]{1,9}")
_UNITS_S = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


class LimitKind(StrEnum):
    """What the limit counts."""

    FIXED_WINDOW = "fixed"
    """Calls per window; windows follow one another on the sandbox's clock."""
    SLIDING_WINDOW = "sliding"
    """Calls within any stretch of time as long as the window."""
    TOKEN_BUCKET = "bucket"  # noqa: S105 - the name of an algorithm, no secret
    """A burst of `count`, refilled at `count` per window."""
    CONCURRENCY = "concurrency"
    """Calls in flight at once; the window is only the delay that a refusal names."""


class LimitScope(StrEnum):
    """Which calls the limit covers."""

    DOCUMENTED = "documented"
    """As the vendor documents: v4 per account, and v2's OCR predict POSTs per model."""
    ACCOUNT = "account"
    """v4 alone, all of it together."""
    V2_PREDICT = "v2-predict"
    """v2's OCR predict POSTs alone, per model."""
    ALL = "all"
    """Every API call, all of them together."""


class HintStyle(StrEnum):
    """Where a 429 says when to come back."""

    BODY = "body"
    HEADER = "header"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`count` calls per `per_s` seconds."""

    count: int
    per_s: float

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("the count of a limit must be a whole number from 1 up")
        if not (math.isfinite(self.per_s) and self.per_s > 0):
            raise ValueError("the window of a limit must be longer than 0 seconds")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `20/60s`, `60/minute` or `5/2s`; ValueError says in one sentence what is wrong."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"limit {text!r} is not COUNT/WINDOW, such as 20/60s or 60/minute")
        if not _COUNT.fullmatch(match["count"].strip()) or int(match["count"]) < 1:
            raise ValueError(f"limit {text!r}: the count must be a whole number from 1 to 999999999")
        unit = match["unit"].lower()
        if unit not in _UNITS_S:
            raise ValueError(f"limit {text!r}: the window needs a unit: ms, s, minute, hour or day")
        per_s = float(match["size"] or 1) * _UNITS_S[unit]
        if per_s <= 0:
            raise ValueError(f"limit {text!r}: the window must be longer than 0")
        return cls(int(match["count"]), per_s)

    def __str__(self) -> str:
        return f"{self.count}/{self.per_s:.15g}s"


def check_key(key: str) -> None:
    """ValueError for what can be no key."""
    if not key or ":" in key:  # RFC 7617 §2: the user name ends at the first colon.
        raise ValueError("a sandbox key must not be empty nor contain a colon")


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """Everything that may be set about a sandbox. ValueError for what makes no sense."""

    api_keys: tuple[str, ...]
    """The accepted keys: the Basic user name, with an empty password. Empty accepts none."""
    limit: LimitRule | None = None
    """None: no call is ever refused with a 429."""
    limit_kind: LimitKind = LimitKind.FIXED_WINDOW
    limit_scope: LimitScope = LimitScope.DOCUMENTED
    hint: HintStyle = HintStyle.BODY
    latency_s: float = 0.0
    """Added to every admitted API call."""
    failure_rate: float = 0.0
    """The share, 0 to 1, of admitted API calls that are answered with 503."""
    pending_polls: int = 1
    """How often a GET of an asynchronous document says `pending` before it is done."""
    seed: int = 0
    """Decides which calls fail and which ids are given: same seed, same order of calls, same run."""
    max_body_bytes: int = 100 * MIB
    """A larger body is answered with 413."""

    def __post_init__(self) -> None:
        for key in self.api_keys:
            check_key(key)
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ValueError("latency_s must be 0 or more seconds")
        if not 0 <= self.failure_rate <= 1:
            raise ValueError("failure_rate must lie between 0 and 1")
        if self.pending_polls < 0:
            raise ValueError("pending_polls must be 0 or more")
        if self.max_body_bytes < 1:
            raise ValueError("max_body_bytes must be 1 or more")


def make_key() -> str:
    """Return a random key for a sandbox that runs inside another program."""
    return f"sandbox-{secrets.token_hex(16)}"
