"""What may be called: rules on method and path, and how a path is read before they are asked.

    allow GET|POST /api/v4/workflows/**        for everybody
    deny * /api/v4/workflows/*/settings        wins over every allow
    billing: allow POST /api/v4/**             for the caller `billing`, in place of the allows for everybody

`*` stands for one segment, a closing `/**` for any rest (also none); a slash at the very end never matters, and
GET is HEAD too. Without an allow that concerns a caller, what is not denied is allowed.

The raw path goes upstream, so a rule is only worth as much as its reading of the path is the upstream's. A path
that two readers could take for two different ones is therefore *ambiguous* and refused, whatever the rules say:
see `read_path`. What is left, every reader splits into the same segments. A deny compares without regard to case,
an allow with it: whichever the upstream does, no denied path passes.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from nanonets_proxy.core.http.methods import SAFE_METHODS

_RULE: Final = re.compile(
    r"\s*(?:(?P<caller>\S+):\s+)?(?P<verdict>allow|deny)\s+(?P<methods>\S+)\s+(?P<pattern>\S+)\s*"
)
_METHOD: Final = re.compile(r"[A-Z][A-Z-]*", re.ASCII)
# RFC 3986 §3.3: what a segment may hold as it is. `;` is left out: some readers cut there.
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*", re.ASCII)
_SEGMENT_WITH_ESCAPES: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})*", re.ASCII)
# What an escape must not stand for: another reader may unescape it earlier, later or twice.
_NOT_ESCAPED: Final = frozenset("/\\%;?#")

OVERRIDING_FIELDS: Final = frozenset(
    {b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
"""Fields by which some servers let a caller name another method or path than the request line does."""


def read_path(target: str) -> tuple[str, ...] | None:
    """The decoded segments of a target's path, without the empty one behind a closing slash; None: ambiguous.

    Ambiguous are an empty segment, `.` and `..` (also with further dots or spaces at a segment's end, which some
    readers drop), a backslash, a semicolon, an escaped one of these or of `/ % ? #`, control characters,
    escapes that are no UTF-8, characters that compatibility normalisation turns into others, and anything that
    RFC 3986 has no place for.
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        return None
    parts = path.removesuffix("/").split("/")[1:]
    if "%" not in path and _PLAIN.fullmatch(path):
        return None if any(map(_is_odd, parts)) else tuple(parts)
    segments = []
    for part in parts:
        if not _SEGMENT_WITH_ESCAPES.fullmatch(part):
            return None
        try:
            segment = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if _is_odd(segment) or not segment.isprintable() or not _NOT_ESCAPED.isdisjoint(segment):
            return None
        if unicodedata.normalize("NFKC", segment) != segment:
            return None
        segments.append(segment)
    return tuple(segments)


def _is_odd(segment: str) -> bool:
    return not segment or segment[-1] in ". " or segment[0] == " "


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One line of a policy. `methods` empty: any; `caller` None: everybody."""

    caller: str | None
    allows: bool
    methods: frozenset[str]
    segments: tuple[str, ...]
    is_open: bool
    """Whether any rest may follow."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads one line. A ValueError says in one sentence what is wrong."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} does not read [CALLER:] allow|deny METHODS /path")
        segments, is_open = _pattern(match["pattern"])
        return cls(
            match["caller"],
            match["verdict"] == "allow",
            _methods(match["methods"]),
            segments,
            is_open,
            text.strip(),
        )

    def matches(self, method: str, segments: Sequence[str]) -> bool:
        """Whether it is about this call. `segments` are folded to one case for a deny."""
        if self.methods and method not in self.methods:
            return False
        if len(segments) < len(self.segments) or (len(segments) > len(self.segments) and not self.is_open):
            return False
        return all(own in ("*", other) for own, other in zip(self.segments, segments, strict=False))


def _methods(text: str) -> frozenset[str]:
    if text == "*":
        return frozenset()
    methods = set(text.split("|"))
    if not all(map(_METHOD.fullmatch, methods)):
        raise ValueError(f"{text!r} names no methods; write GET, or GET|POST, or * for any")
    # RFC 9110 §9.3.2: HEAD is GET without the body.
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


def _pattern(pattern: str) -> tuple[tuple[str, ...], bool]:
    head, is_open = (pattern[:-3], True) if pattern.endswith("/**") else (pattern, False)
    segments = read_path(head or "/")
    if segments is None or "**" in segments or "?" in pattern:
        raise ValueError(f"{pattern!r} is no path that can be decided on; write /api/v4/workflows/*/fields/**")
    return segments, is_open


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call is not allowed: fit for the caller and the log."""

    reason: str


AMBIGUOUS: Final = Denial("ambiguous_path")
NOT_ALLOWED: Final = Denial("no_rule_allows_it")
READ_ONLY: Final = Denial("read_only")
OVERRIDES: Final = Denial("overriding_field")


class AccessRules:
    """Decides for one environment."""

    __slots__ = ("_allows", "_common_allows", "_denies", "_read_only")

    def __init__(self, rules: Iterable[AccessRule], *, read_only: bool) -> None:
        """`read_only` denies all methods but GET, HEAD and OPTIONS."""
        self._read_only = read_only
        self._common_allows: list[AccessRule] = []
        self._allows: dict[str, list[AccessRule]] = {}
        self._denies: list[tuple[AccessRule, str | None]] = []
        for rule in rules:
            if not rule.allows:
                folded = tuple(segment.casefold() for segment in rule.segments)
                plain = AccessRule(rule.caller, False, rule.methods, folded, rule.is_open, rule.text)  # noqa: FBT003 - a field
                self._denies.append((plain, rule.caller))
            elif rule.caller is None:
                self._common_allows.append(rule)
            else:
                self._allows.setdefault(rule.caller, []).append(rule)

    def judge(self, caller: str, method: str, target: str, field_names: Iterable[bytes]) -> Denial | None:
        """None: it may go. `target` as sent, in origin form; `field_names` in lower case."""
        if self._read_only and method not in SAFE_METHODS:
            return READ_ONLY
        segments = read_path(target)
        if segments is None:
            return AMBIGUOUS
        if not OVERRIDING_FIELDS.isdisjoint(field_names):
            return OVERRIDES
        folded = [segment.casefold() for segment in segments]
        for rule, concerned in self._denies:
            if concerned in (None, caller) and rule.matches(method, folded):
                return Denial(f"rule: {rule.text}")
        allows = self._allows.get(caller, self._common_allows)
        if allows and not any(rule.matches(method, segments) for rule in allows):
            return NOT_ALLOWED
        return None
