"""What a request wants of the keys; `keys/key_manager.py` has it."""

from typing import Protocol

from nanonets_proxy.core.keys.key_records import KeyTries, KeyVerdict, Use


class KeyProvider(Protocol):
    def serves(self) -> bool:
        """Whether requests may go; otherwise they are to `hold`."""

    async def hold(self, tries: KeyTries, now_s: float, deadline_s: float) -> float: ...

    def choose_usual(self) -> Use | None:
        """For a request that was refused with no key yet. None: ask `choose`."""

    def choose(self, tries: KeyTries, deadline_s: float) -> Use | None:
        """None, which is told before `deadline_s` only: hold it first."""

    def settle(self, use: Use, verdict: KeyVerdict, tries: KeyTries | None) -> bool:
        """A refusal wants `tries`."""
