"""The hint of a 429: how long to wait before the next request.

A 429 may have no hint, or several. The largest usable hint counts, because a request that comes too early costs
another refusal.

| field | content | source |
|---|---|---|
| body, `details.retry_after` | seconds, int or float | Nanonets' v4 documentation |
| `Retry-After` | seconds, or an HTTP-date | RFC 9110 §10.2.3 |
| `RateLimit` | `"policy";r=0;t=30`, seconds in t | draft-ietf-httpapi-ratelimit-headers, from -08 |
| `RateLimit` | `limit=9, remaining=0, reset=30` | the same draft, -07 |
| `RateLimit-Reset` | seconds | the same draft, up to -06 |
| `X-RateLimit-Reset` | seconds, or seconds since the epoch | custom, no standard |

A date or an epoch is measured against the `Date` of the same response (RFC 9110 §6.6.1), so the clocks of proxy and
upstream may differ. Our clock counts if there is no usable `Date`, or if the clocks agree: a `Date` has whole
seconds only.

A value is unusable if it is negative, not finite, no number, or above `MAX_HINT_S`. A body without complete JSON,
such as a compressed one, has no hint.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from nanonets_proxy.core.ratelimit.hints.quota_text import names_long_quota

MAX_HINT_S = 7 * 86_400.0
"""Longer hints are taken for mistakes, such as milliseconds: no caller waits for a week."""

DISAGREEMENT_S = 1.0
"""Sources that round to whole seconds may differ by this much and still mean the same instant."""

_SAME_CLOCK_S = 1.0  # a `Date` that is at most this old agrees with our clock
_MAX_FIELD_BYTES = 1024  # a hint is short; this bounds the work of the expressions below
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARAMETER = re.compile(r"[;,]\s*([a-z]+)=([0-9]{1,15})(?=\s*(?:[;,]|$))")


@dataclass(frozen=True, slots=True)
class Hint:
    """The hint of one 429."""

    retry_after_s: float | None
    """From 0 to `MAX_HINT_S`; None: the 429 had no usable hint."""
    sources_disagree: bool
    """Whether usable sources differed by more than `DISAGREEMENT_S`, which is worth a log event."""
    quota_used_up: bool = False
    """Whether the body says that a quota is used up for long."""


def read_hint(headers: Sequence[tuple[bytes, bytes]], body: bytes, *, wall_now_s: float) -> Hint:
    """Returns the hint of a 429. Never raises.

    `headers` are the fields as received, and `body` is the body or its beginning. `wall_now_s` is in seconds since
    the epoch, as HTTP dates and epoch resets are.
    """
    candidates = [*_from_headers(headers, _upstream_now_s(headers, wall_now_s)), *_from_body(body)]
    usable = [float(seconds) for seconds in candidates if 0 <= seconds <= MAX_HINT_S]  # False for NaN
    quota_used_up = names_long_quota(body)
    if not usable:
        return Hint(None, sources_disagree=False, quota_used_up=quota_used_up)
    disagree = max(usable) - min(usable) > DISAGREEMENT_S
    return Hint(max(usable), sources_disagree=disagree, quota_used_up=quota_used_up)


def _upstream_now_s(headers: Sequence[tuple[bytes, bytes]], wall_now_s: float) -> float:
    """Returns the instant of the response by the clock that its dates refer to, in seconds since the epoch."""
    for name, value in headers:
        if name.lower() == b"date" and len(value) <= _MAX_FIELD_BYTES:
            for ahead_s in _until_date(value.decode("latin-1"), wall_now_s):
                return wall_now_s if -_SAME_CLOCK_S <= ahead_s <= 0 else wall_now_s + ahead_s
    return wall_now_s


def _from_headers(headers: Sequence[tuple[bytes, bytes]], wall_now_s: float) -> Iterator[float]:
    for name, value in headers:
        if len(value) > _MAX_FIELD_BYTES:
            continue
        text = value.decode("latin-1").strip()
        match name.lower():
            case b"retry-after":
                yield from _number(text) or _until_date(text, wall_now_s)
            case b"ratelimit":
                yield from _structured(text)
            case b"ratelimit-reset":
                yield from _number(text)
            case b"x-ratelimit-reset":
                for seconds in _number(text):
                    yield seconds if seconds <= MAX_HINT_S else seconds - wall_now_s


def _number(text: str) -> tuple[float, ...]:
    # RFC 9110 §10.2.3 allows digits alone; a fraction is tolerated. float() would accept "1_0", "1e3" and "inf".
    return (float(text),) if _NUMBER.fullmatch(text) else ()


def _until_date(text: str, wall_now_s: float) -> tuple[float, ...]:
    try:
        # All three forms of RFC 9110 §5.6.7; a missing zone is read as UTC.
        parsed = parsedate_tz(text)
        return () if parsed is None else (mktime_tz(parsed) - wall_now_s,)
    except (ValueError, OverflowError, IndexError, TypeError):  # "99 Nov 99999 …": the parser checks no ranges
        return ()


def _structured(text: str) -> Iterator[float]:
    """Yields the hints of a `RateLimit` field. A policy with requests remaining is not the cause of the 429."""
    bare = _QUOTED.sub('""', text)  # a policy's name may contain anything
    # Draft -07 has one dictionary; draft -08 has a list of policies with parameters.
    for member in [bare] if "reset=" in bare else bare.split(","):
        fields: dict[str, str] = dict(_PARAMETER.findall(";" + member))
        reset = fields.get("t", fields.get("reset"))
        if reset is not None and int(fields.get("r", fields.get("remaining", "0"))) == 0:
            yield float(reset)


def _from_body(body: bytes) -> tuple[float, ...]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # ValueError: no JSON, no Unicode, or an integer of 5,000 digits
        return ()
    details = document.get("details") if isinstance(document, dict) else None
    hint = details.get("retry_after") if isinstance(details, dict) else None
    if isinstance(hint, str):
        return _number(hint.strip())
    return (hint,) if isinstance(hint, int | float) and not isinstance(hint, bool) else ()
