"""Reads the limit that a served response announces in the fields `RateLimit` and `RateLimit-Policy`.

Source: draft-ietf-httpapi-ratelimit-headers, from -08 on.

    RateLimit-Policy: "burst";q=100;w=60, "daily";q=1000;w=86400
    RateLimit: "burst";r=50;t=30

Both fields are lists of policy names with parameters (RFC 9651). A policy has a quota `q`, a window of `w` seconds,
and a unit `qu`. `r` is what remains of the quota, for `t` seconds. Only quotas in the unit of the scope count: in
scopes in pages, that is `qu="pages"`, or no unit at all.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nanonets_proxy.core.ratelimit.scopes.static_limits import MAX_COUNT, REQUESTS, StaticLimit

ADVICE_FIELDS = frozenset({b"ratelimit", b"ratelimit-policy"})
"""The names of the fields, in lower case."""

_MAX_FIELD_BYTES = 1024  # such fields are short
MAX_ANNOUNCED_S = 31 * 86_400
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^",;]+|[,;"]')
_NUMBER = re.compile(r"[0-9]{1,15}")


class Advice(NamedTuple):
    """What a response announced about the limit of its scope."""

    remaining: int | None
    """How many further units the upstream accepts within `resets_in_s`; None: it did not say."""
    resets_in_s: float
    limit: StaticLimit | None
    """The limit that the policy names; None: it named none."""


def read_advice(headers: Sequence[tuple[bytes, bytes]], scope: str, unit: str = REQUESTS) -> Advice | None:
    """Returns what a response announced about the limit of `scope`; None if nothing usable. Never raises.

    `unit` is the unit of the scope's limit.
    """
    windows_s: dict[str, int] = {}
    limits: list[tuple[int, int]] = []  # (period, count)
    others = set()
    for name, fields in _items(headers, b"ratelimit-policy"):
        if fields.get("qu", unit) != unit:
            others.add(name)
            continue
        count, period_s = _number(fields, "q"), _number(fields, "w")
        if count and period_s and period_s <= MAX_ANNOUNCED_S:
            windows_s[name] = period_s
            limits.append((period_s, min(count, MAX_COUNT)))
    # Of several windows, the shortest counts: when a longer one is used up, `RateLimit` says so.
    limit = StaticLimit(scope, min(limits)[1], float(min(limits)[0]), unit) if limits else None
    quotas: list[tuple[int, int]] = []  # (remaining, -seconds)
    for name, fields in _items(headers, b"ratelimit"):
        remaining, lasts_s = _number(fields, "r"), _number(fields, "t")
        if lasts_s is None:
            lasts_s = windows_s.get(name, 0)
        if remaining is not None and name not in others and 0 < lasts_s <= MAX_ANNOUNCED_S:
            quotas.append((remaining, -lasts_s))
    if not quotas:
        return None if limit is None else Advice(None, 0.0, limit)
    remaining, ends_s = min(quotas)
    return Advice(remaining, float(-ends_s), limit)


def _items(headers: Sequence[tuple[bytes, bytes]], field: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the policy names of a field, each with its parameters."""
    for name, value in headers:
        if name.lower() != field or len(value) > _MAX_FIELD_BYTES:
            continue
        parts = [""]
        for piece in [*_TOKEN.findall(value.decode("latin-1")), ","]:
            if piece == ";":
                parts.append("")
            elif piece != ",":
                parts[-1] += piece
            else:
                pairs = (part.split("=", 1) for part in parts[1:] if "=" in part)
                yield parts[0].strip(' "'), {key.strip(): text.strip(' "') for key, text in pairs}
                parts = [""]


def _number(fields: dict[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else None
