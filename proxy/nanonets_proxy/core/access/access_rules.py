"""Access rules: which methods and paths a caller may request, and how a path is read before the rules apply.

    allow GET|POST /api/v4/workflows/**        for every caller
    deny * /api/v4/workflows/*/settings        wins over every allow
    billing: allow POST /api/v4/**             for the caller `billing`, instead of the allows for every caller

`*` stands for one segment, and a closing `/**` for any number of segments. A slash at the end of a path does not
matter, and GET covers HEAD. If no allow applies to a caller, every request that no rule denies is allowed.

The upstream gets the raw path, so a rule holds only if the upstream reads the path as the rule does. A path that
two servers could read differently is therefore *ambiguous* and always rejected: see `read_path`.
Every server splits any other path into the same segments. A deny ignores the case of paths and methods, and an
allow does not. So no denied request passes, whether or not the upstream ignores case.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from nanonets_proxy.core.access.caller_names import check_name_in_settings
from nanonets_proxy.core.access.overrides import has_overriding_parameter, is_overriding_field
from nanonets_proxy.core.http.methods import SAFE_METHODS

_RULE: Final = re.compile(
    r"\s*(?:(?P<caller>\S+):\s+)?(?P<verdict>allow|deny)\s+(?P<methods>\S+)\s+(?P<pattern>\S+)\s*"
)
_METHOD: Final = re.compile(r"[A-Z][A-Z-]*", re.ASCII)
# RFC 3986 §3.3: the characters of a segment that need no escape. `;` is left out: some servers cut segments there.
_PATH_WITHOUT_ESCAPES: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*", re.ASCII)
_SEGMENT_WITH_ESCAPES: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})*", re.ASCII)
# No escape may stand for these: another server may decode it earlier, later or twice.
_NEVER_ESCAPED: Final = frozenset("/\\%;?#")


def read_path(target: str) -> tuple[str, ...] | None:
    """Returns the decoded segments of a target's path, or None if the path is ambiguous.

    A slash at the end adds no segment. A path is ambiguous if it has
    - an empty segment, a backslash or a semicolon;
    - a segment that ends in a dot or a space, such as `..`, or starts with a space: some servers drop these;
    - an escape of `/ \\ % ; ? #` or of a control character, or escapes that are not UTF-8;
    - characters that compatibility normalisation changes;
    - anything else that RFC 3986 does not allow.
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        return None
    parts = path.removesuffix("/").split("/")[1:]
    if "%" not in path and _PATH_WITHOUT_ESCAPES.fullmatch(path):
        return None if any(map(_is_often_trimmed, parts)) else tuple(parts)
    segments = []
    for part in parts:
        if not _SEGMENT_WITH_ESCAPES.fullmatch(part):
            return None
        try:
            segment = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if _is_often_trimmed(segment) or not segment.isprintable() or not _NEVER_ESCAPED.isdisjoint(segment):
            return None
        if unicodedata.normalize("NFKC", segment) != segment:
            return None
        segments.append(segment)
    return tuple(segments)


def _is_often_trimmed(segment: str) -> bool:
    """Returns whether some servers would shorten the segment, or drop it."""
    return not segment or segment[-1] in ". " or segment[0] == " "


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One rule. If `methods` is empty, every method matches. If `caller` is None, the rule is for every caller."""

    caller: str | None
    allows: bool
    methods: frozenset[str]
    segments: tuple[str, ...]
    is_prefix: bool
    """Whether further segments may follow."""
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses one rule. Raises ValueError with a sentence that says what is wrong."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a rule: write [CALLER:] allow|deny METHODS /path")
        segments, is_prefix = _pattern(match["pattern"])
        return cls(
            match["caller"] and check_name_in_settings(match["caller"]),
            match["verdict"] == "allow",
            _methods(match["methods"]),
            segments,
            is_prefix,
            text.strip(),
        )

    def __str__(self) -> str:
        return self.text

    def matches(self, method: str, segments: Sequence[str]) -> bool:
        """Returns whether the rule applies. For a deny, `method` is in upper case and `segments` are folded."""
        if self.methods and method not in self.methods:
            return False
        if len(segments) < len(self.segments) or (len(segments) > len(self.segments) and not self.is_prefix):
            return False
        return all(own in ("*", other) for own, other in zip(self.segments, segments, strict=False))


def _methods(text: str) -> frozenset[str]:
    if text == "*":
        return frozenset()
    methods = set(text.split("|"))
    if not all(map(_METHOD.fullmatch, methods)):
        raise ValueError(f"{text!r} does not name methods: write GET, or GET|POST, or * for any")
    # RFC 9110 §9.3.2: HEAD is GET without the body.
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


def _pattern(pattern: str) -> tuple[tuple[str, ...], bool]:
    head, is_prefix = (pattern[:-3], True) if pattern.endswith("/**") else (pattern, False)
    segments = read_path(head or "/")
    if segments is None or "**" in segments or "?" in pattern:
        raise ValueError(f"{pattern!r} is not a path that a rule can match: write /api/v4/workflows/*/fields/**")
    return segments, is_prefix


# The reasons of denials, which the caller and the log get.
AMBIGUOUS: Final = "ambiguous_path"
NOT_ALLOWED: Final = "no_rule_allows_it"
READ_ONLY: Final = "read_only"
OVERRIDING_FIELD: Final = "overriding_field"
OVERRIDING_PARAMETER: Final = "overriding_parameter"


class AccessRules:
    """The access rules of one environment."""

    __slots__ = ("_allows", "_common_allows", "_denies", "_read_only")

    def __init__(self, rules: Iterable[AccessRule], *, read_only: bool) -> None:
        """`read_only` denies all methods but the safe ones."""
        self._read_only = read_only
        self._common_allows: list[AccessRule] = []
        self._allows: dict[str, list[AccessRule]] = {}
        self._denies: list[AccessRule] = []
        for rule in rules:
            if not rule.allows:
                folded = tuple(segment.casefold() for segment in rule.segments)
                self._denies.append(replace(rule, segments=folded))
            elif rule.caller is None:
                self._common_allows.append(rule)
            else:
                self._allows.setdefault(rule.caller, []).append(rule)

    def judge(self, caller: str, method: str, target: str, field_names: Iterable[bytes]) -> str | None:
        """Returns why the request is denied, or None. `target`: in origin form; `field_names`: in lower case."""
        if self._read_only and method not in SAFE_METHODS:
            return READ_ONLY
        segments = read_path(target)
        if segments is None:
            return AMBIGUOUS
        if any(map(is_overriding_field, field_names)):
            return OVERRIDING_FIELD
        if has_overriding_parameter(target):
            return OVERRIDING_PARAMETER
        folded, upper_method = [segment.casefold() for segment in segments], method.upper()
        for rule in self._denies:
            if rule.caller in (None, caller) and rule.matches(upper_method, folded):
                return f"rule: {rule.text}"
        allows = self._allows.get(caller, self._common_allows)
        if allows and not any(rule.matches(method, segments) for rule in allows):
            return NOT_ALLOWED
        return None
