"""What an object of the product holds: the lengths of all its containers, and its size."""

import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

_PRODUCT: Final = "nanonets_proxy."
_CONTAINERS: Final = (Mapping, AbstractSet, list, tuple, deque)


def lengths(root: object) -> "Counter[str]":
    """Returns how many items the containers below an object have, by class and attribute.

    It follows attributes and containers, and neither functions nor what belongs to other packages. A deque with a
    bound cannot grow for ever, and is left out. `bytes` has the size of all that was found.
    """
    found: Counter[str] = Counter()
    met: dict[int, object] = {}
    left: list[tuple[str, object]] = [("", root)]
    while left:
        name, item = left.pop()
        if id(item) in met or (isinstance(item, deque) and item.maxlen is not None):
            continue
        met[id(item)] = item
        if isinstance(item, _CONTAINERS):
            found[name] += len(item)
            found["bytes"] += sys.getsizeof(item)
            if isinstance(item, Mapping):
                left += ((name, key) for key in item)
                left += ((name, value) for value in item.values())
            else:
                left += ((name, value) for value in item)
        elif type(item).__module__.startswith(_PRODUCT) and not isinstance(item, type):
            found["bytes"] += sys.getsizeof(item)
            left += ((f"{type(item).__name__}.{key}", value) for key, value in _attributes(item))
        elif isinstance(item, str | bytes | int | float):
            found["bytes"] += sys.getsizeof(item)
    return found


def _attributes(item: object) -> Iterator[tuple[str, object]]:
    yield from getattr(item, "__dict__", {}).items()
    for each in type(item).__mro__:
        slots = getattr(each, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(item, name):
                yield name, getattr(item, name)


def most(samples: "list[Counter[str]]") -> "Counter[str]":
    """Returns the largest value of each name."""
    found: Counter[str] = Counter()
    for sample in samples:
        found |= sample
    return found
