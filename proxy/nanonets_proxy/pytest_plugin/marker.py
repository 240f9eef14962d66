"""Reads the arguments of `@pytest.mark.nanonets(...)`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import pytest

_SANDBOX: Final = (
    "api_keys",
    "etags",
    "failure_rate",
    "faults",
    "hint",
    "latency",
    "limit",
    "limit_kind",
    "limit_scope",
    "pending_polls",
)
_PROXY: Final = "proxy"
_NAMES: Final = (*_SANDBOX, _PROXY)
DEFAULT_KEY: Final = "sandbox-key"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The settings of the sandbox and of the proxy, by name: the texts of the command line, and switches."""

    sandbox: Mapping[str, str | bool] = field(default_factory=dict)
    proxy: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def api_key(self) -> str:
        """The first key that the sandbox accepts."""
        return str(self.sandbox["api_keys"]).partition(",")[0].strip()


def read(marks: Iterable[pytest.Mark]) -> Arguments:
    """Returns the arguments of a test's markers, the closest first. Fails the test for an unknown argument."""
    given: dict[str, Any] = {"api_keys": DEFAULT_KEY, "limit": "none"}
    proxy: dict[str, Any] = {}
    for mark in reversed(list(marks)):
        if mark.args:
            fail(f"takes keyword arguments only, such as limit='5/minute'; it got {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            if name not in _NAMES:
                fail(f"has no argument {name!r}; {_hint(name)}")
            if name == _PROXY:
                if not isinstance(value, Mapping) or not all(isinstance(setting, str) for setting in value):
                    fail(f"proxy: must be a dictionary of the proxy's settings by name, not {value!r}")
                proxy |= value
            else:
                given[name] = value
    return Arguments(_texts(given), _texts(proxy))


def fail(sentence: str) -> None:
    """Fails the test with a sentence about the marker, and no traceback."""
    pytest.fail(f"@pytest.mark.nanonets {sentence}", pytrace=False)


def _hint(name: str) -> str:
    nearest = get_close_matches(name, _NAMES, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(_NAMES)}"


def _texts(values: Mapping[str, Any]) -> dict[str, str | bool]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str | bool:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return value
    return "none" if value is None else str(value)
