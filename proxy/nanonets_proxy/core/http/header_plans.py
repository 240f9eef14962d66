"""Header plans: what to do with the fields of a header section, computed once for each list of field names.

A caller usually sends the same names in the same order and spelling, and so does the upstream. A cached plan then
writes the whole section with one formatting operation.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

# Bounds of the cache: the number of plans, and the names and octets of a list that is cached.
_MOST_PLANS = 256
_MOST_NAMES = 64
_MOST_NAME_BYTES = 2048
_UNUSUAL: Final = re.compile(rb"[^a-z0-9-]")

Plan = TypeVar("Plan")


def is_usual(names: Sequence[bytes]) -> bool:
    """Returns whether a list of names is short enough for a cache."""
    return len(names) <= _MOST_NAMES and sum(map(len, names)) <= _MOST_NAME_BYTES


class PlansByNames(dict[tuple[bytes, ...], Plan], Generic[Plan]):
    """A cache that makes a plan when a list of names is looked up first."""

    def __init__(self, make: Callable[[tuple[bytes, ...]], Plan]) -> None:
        super().__init__()
        self._make_plan = make

    def __missing__(self, names: tuple[bytes, ...]) -> Plan:
        plan = self._make_plan(names)
        if is_usual(names):
            if len(self) >= _MOST_PLANS:
                del self[next(iter(self))]  # the oldest: invented lists must not keep usual ones out for ever
            self[names] = plan
        return plan


@dataclass(frozen=True, slots=True)
class HeaderPlan:
    """The plan for the fields of one list of names."""

    template: bytes
    """Format of the lines that pass, each with its CR LF. It takes the values of all fields, and writes nothing for
    the dropped ones."""
    places: tuple[int | None, ...]
    """The index of each `known` name: of its last field if there are several, None if there is none."""
    special: Sequence[tuple[int, bytes]]
    """The index and lower-case name of each `inspected` field, and of each known field but the last of its name."""


class HeaderPlans(PlansByNames[HeaderPlan]):
    """A cache of header plans.

    A plan has the places of the `known` names, and `inspected` names are special. Fields with `dropped` names, or
    names that start with `dropped_prefix`, do not pass. With `drops_lookalikes`, names with `_` do not pass either,
    nor names that become a dropped name or `content-length` once each unusual character is a `-`.
    """

    def __init__(
        self,
        known: Sequence[bytes],
        inspected: frozenset[bytes],
        dropped: frozenset[bytes],
        dropped_prefix: bytes = b"",
        *,
        drops_lookalikes: bool = False,
    ) -> None:
        super().__init__(self._make)
        self._known = known
        self._inspected = inspected
        self._dropped = dropped
        self._dropped_prefix = dropped_prefix
        self._drops_lookalikes = drops_lookalikes

    def _make(self, names: tuple[bytes, ...]) -> HeaderPlan:
        lower_names = [name.lower() for name in names]
        last = {lower: at for at, lower in enumerate(lower_names)}
        special = []
        lines = []
        for at, (name, lower) in enumerate(zip(names, lower_names, strict=True)):
            if lower in self._inspected or (lower in self._known and at != last[lower]):
                special.append((at, lower))
            is_dropped = self._is_dropped(lower) or (self._drops_lookalikes and self._is_lookalike(lower))
            lines.append(b"%.0b" if is_dropped else name.replace(b"%", b"%%") + b": %b\r\n")
        return HeaderPlan(b"".join(lines), tuple(last.get(name) for name in self._known), special)

    def _is_dropped(self, name: bytes) -> bool:
        return name in self._dropped or bool(self._dropped_prefix and name.startswith(self._dropped_prefix))

    def _is_lookalike(self, name: bytes) -> bool:
        usual = _UNUSUAL.sub(b"-", name)
        return usual != name and (b"_" in name or usual == b"content-length" or self._is_dropped(usual))
