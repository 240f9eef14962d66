"""Sends the key manager's own probes, at the instants that the keyring chooses."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from nanonets_proxy.aio.events import ChangeSignal
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import KeyEvent, KeyRecord, KeyVerdict
from nanonets_proxy.core.keys.keyring import Keyring

_PROBE_AGAIN_S: Final = 2.0

Probe = Callable[[ApiKey], Awaitable[KeyVerdict]]
Report = Callable[[Sequence[KeyEvent]], None]


class KeyProbing:
    """`progress` wakes it after each event, 401 and reading; `report` takes the keyring's events."""

    def __init__(self, keyring: Keyring, probe: Probe, progress: ChangeSignal, report: Report, log: Any) -> None:
        self._keyring = keyring
        self._probe = probe
        self._progress = progress
        self._report = report
        self._log = log
        self._reported: KeyRecord | None = None
        """The key whose undecided probe the log has reported."""

    def use_probe(self, probe: Probe) -> None:
        """Sends further probes with another function."""
        self._probe = probe
        self._progress.notify()  # whether requests test a key may have changed too

    async def run(self) -> None:
        """Probes until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            requests_probe = self._keyring.policy.requests_probe
            now_s = loop.time()
            use = self._keyring.choose_for_probe(now_s)
            if use is None:
                next_s = self._keyring.known.next_probe_s(requests_probe=requests_probe)
                await self._progress.wait(None if next_s == math.inf else next_s - now_s)
                continue
            verdict = await self._probe(use.record.key)
            if verdict is KeyVerdict.ACCEPTED and requests_probe:
                verdict = KeyVerdict.UNKNOWN  # another upstream may serve the default path without a key
            self._report(self._keyring.settle(use, verdict, loop.time()))
            if verdict is KeyVerdict.UNKNOWN and not requests_probe:
                if self._reported is not use.record:
                    # With a wrong key_probe the key would stay a candidate for ever, so the operator must know.
                    self._reported = use.record
                    self._log.warning("key_probe_undecided", key=use.record.key.name)
                await self._progress.wait(_PROBE_AGAIN_S)
