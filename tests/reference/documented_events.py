"""Reads docs/reference/log-events.md."""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "log-events.md"
OF_EVERY_EVENT: Final = frozenset({"timestamp", "level", "event", "environment"})
_ROW: Final = re.compile(r"\| `(\w+)` \| ([a-z, ]+) \| (.*?) \| (.+) \|")


class Documented(NamedTuple):
    """The levels and fields that the page lists for an event."""

    levels: frozenset[str]
    fields: frozenset[str]


def read() -> dict[str, Documented]:
    """Returns the page's events by name. Raises AssertionError if it lists an event twice."""
    events: dict[str, Documented] = {}
    for line in PAGE.read_text().splitlines():
        if (row := _ROW.fullmatch(line)) is not None:
            name, levels, fields, _ = row.groups()
            assert name not in events, f"{PAGE} lists {name} twice"
            events[name] = Documented(frozenset(levels.split(", ")), frozenset(re.findall(r"`(\w+)`", fields)))
    return events


EVENTS: Final = read()


def undocumented(event: dict[str, Any]) -> set[str]:
    """Returns what the page does not say of an event that was logged: its name, its fields, its level."""
    if (documented := EVENTS.get(event["event"])) is None:
        return {event["event"]}
    unknown = set(event) - documented.fields - OF_EVERY_EVENT
    return unknown if event["level"] in documented.levels else unknown | {f"level {event['level']}"}
