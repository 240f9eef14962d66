"""What a request wants of the keys; `keys/key_manager.py` has it."""

from typing import Protocol

from nanonets_proxy.core.keys.key_records import KeyHistory, KeyUse, KeyVerdict


class KeyProvider(Protocol):
    def has_usable_key(self) -> bool:
        """Whether requests may go; otherwise they are to `hold`."""

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float: ...

    def choose_fast(self) -> KeyUse | None:
        """For a request that was refused with no key yet. None: ask `choose`."""

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """None, which is told before `deadline_s` only: hold it first."""

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> bool:
        """A refusal wants `history`."""
