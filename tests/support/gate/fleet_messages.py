"""A well-formed message of each kind, and values that do not belong into a message."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from nanonets_proxy.admission.fleet.beliefs import NAME
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, dump

UNUSED: Final = 10**6
"""No claim of a test has so large a number."""

BELIEFS: Final = dump([ScopeSnapshot("-.b", 40.0, 4.0, 40.0, None, 0, 0.0, 0.0)], NAME, 0.0)

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "beat": {"replicas": 3, "beliefs": BELIEFS, "use": {"-.b": [[1.5, 3], [0.5, 2.5]]}},
    "beat of two versions": {"replicas": 3, "gathers": True, "others": 2, "told": [5, 1.5, BELIEFS, 3, 0.5]},
    "granted": {"log": [["-.b", 0.5, 1]]},
    "resign": {"log": [["-.b", 0.5, 2.5]]},
    "here": {},
    "hello": {
        "places": 10,
        "scopes": {"-.b": [[[0.5, 1, 7]], 0.0]},
        "held": [[UNUSED, "-.b", "lane", 9.0, 1, 0.25, False]],
        "refused": [UNUSED + 1],
        "logged": [[7, UNUSED + 2]],
        "beliefs": [5, 1.5, BELIEFS, 3, 0.5],
    },
    "welcome": {"log": [["-.b", 0.5, 1]]},
    "who": {},
    "bye": {},
    "ask": {"n": UNUSED, "scope": "-.b", "lane": "l", "kind": "k", "wait": 5.0, "urgency": 3, "cost": 1},
    "leave": {"n": UNUSED},
    "grant": {"n": UNUSED, "report_in": 0.5, "again": True},
    "wait": {"n": UNUSED},
    "lost": {"n": UNUSED},
    "refuse": {"n": UNUSED, "reason": "queue_full", "retry": 1.0, "position": 3},
    "sent": {"n": UNUSED},
    "unanswered": {"n": UNUSED},
    "end": {"n": UNUSED, "how": "throttled", "hint": 3.0, "quota": True},
    "cost": {"n": UNUSED, "cost": 2.5},
    "advice": {"n": UNUSED, "advice": [3, 5.0, [40, 4.0, "requests"]]},
    "alive": {"places": 10, "held": [UNUSED], "paused": [UNUSED], "waits": [UNUSED + 1]},
    "used": {"counts": [["r7", 20_000, "caller", 3, 1]]},
}

STRANGE: Final[tuple[Any, ...]] = (
    *(None, True, False, "", "nan", "inf", "x" * 100_000, "\n\x1b[2J"),
    *(-1, 0, 0.5, 2**53, 2**63, 1e300, -1e300, [], {}, [[]], [None], {"": []}),
)


def example(name: str) -> dict[str, Any]:
    """Returns a copy of a well-formed message."""
    return {"t": name.split(" ", maxsplit=1)[0], **deepcopy(EXAMPLES[name])}


def changed(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields messages in which one value is missing or another one, and what has changed."""
    for path in _paths(EXAMPLES[name]):
        for value in STRANGE:
            message = example(name)
            _parent(message, path)[path[-1]] = value
            yield f"{name} {path} {str(value)[:20]!r}", message
        message = example(name)
        del _parent(message, path)[path[-1]]
        yield f"{name} {path} missing", message


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _paths(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _paths(each, (*path, index))


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value
