"""What a request needs of the keys; `keys/key_manager.py` implements it."""

from typing import Protocol

from nanonets_proxy.core.keys.key_records import KeyHistory, KeyUse, KeyVerdict


class KeyProvider(Protocol):
    """The keys of one environment."""

    def has_usable_key(self) -> bool:
        """Returns whether requests can be sent; if not, they must be held."""

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float:
        """Waits until the request can be sent, or until `deadline_s`. Returns the loop's time then."""

    def choose_fast(self) -> KeyUse | None:
        """Returns the key for a request that no key was rejected for; None: ask `choose`."""

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """Returns the key for any request; None, only before `deadline_s`: hold the request first."""

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> bool:
        """Ends a use, and notes a rejection of the key in `history`. Returns whether the response is final; if not,
        the request must be sent again."""
