"""Reports whether a gate decides for the whole fleet: the events `fleet_joined` and `fleet_alone`.

A change is logged at once, and a fault again when its reason changes, and once a minute while it lasts. A replica
that joins and leaves its fleet again and again, as on an overloaded machine, logs `_BURST` events, and then one in
`_LEAST_S`. When that ends, the latest event is true after `_LEAST_S` at most.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Final

import structlog

from nanonets_proxy.admission.fleet.lead import OTHER_VERSION
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.telemetry.alerts import Alerts

_LOOK_EACH_S: Final = 1.0
_REPEAT_S: Final = 60.0
_LEAST_S: Final = 30.0
_BURST: Final = 20
_ADVICE: Final = (
    "check that the server of coordination runs, responds within 50 ms, and can be reached from this machine; "
    "nanonets-proxy check tests it"
)
_FINISH: Final = "finish the upgrade: end the replicas of the earlier version"


class FleetReports:
    """The reports about one replica."""

    def __init__(self, replica: Replica, address: str, alerts: Alerts, log_fields: Mapping[str, str]) -> None:
        self._replica = replica
        self._address = address
        self._alerts = alerts
        self._log = structlog.get_logger(**log_fields)
        self._loop = asyncio.get_running_loop()
        self._reason = ""
        """Why the replica is alone."""
        self._is_untold = False
        """Whether the log does not have the latest change yet."""
        self._told_reason: str | None = None
        """The reason in the latest event; None: the replica had joined."""
        self._told_at_s = -math.inf
        self._paid_until_s = -math.inf
        """Each event pays for `_LEAST_S`, and `_BURST` events may be paid in advance."""
        self._timer: asyncio.TimerHandle | None = None

    def note(self, reason: str) -> None:
        """Notes that the state of the replica has changed, for this reason."""
        self._alerts.end("fleet_alone")  # also of the other kind: the cause has changed
        self._reason = reason
        if not self._replica.state.is_coordinated:
            self._is_untold = reason != self._told_reason
            self._report(may_log=self._is_untold and self._may_log)
        else:
            self._is_untold = True
            if self._may_log:
                self._tell()
        self._watch()

    def stop(self) -> None:
        """Reports nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._timer is None and (self._is_untold or not self._replica.state.is_coordinated):
            self._timer = self._loop.call_later(_LOOK_EACH_S, self._look)

    def _look(self) -> None:
        """Tells what the log lacks."""
        self._timer, state = None, self._replica.state
        if state is State.JOINING:  # for a moment
            self._watch()
            return
        if not state.is_coordinated:
            fault = self._replica.fault
            if (fault.partition(": ")[2] or fault) not in self._reason:
                self._reason, self._is_untold = fault, True
            if self._told_at_s + _REPEAT_S <= self._loop.time():
                self._is_untold = True
        if self._is_untold and self._may_log:
            self._tell()
        self._watch()

    @property
    def _may_log(self) -> bool:
        return self._paid_until_s - self._loop.time() <= (_BURST - 1) * _LEAST_S

    def _tell(self) -> None:
        replica = self._replica
        if not replica.state.is_coordinated:
            self._report(may_log=True)
            return
        role = "leader" if replica.state is State.LEADING else "follower"
        names = {"replica": replica.position.name, "leader": replica.position.leader}
        self._log.info("fleet_joined", role=role, **names, replicas=replica.replicas)
        self._on_told(None)

    def _report(self, *, may_log: bool) -> None:
        is_upgrade = self._reason == OTHER_VERSION
        is_logged = self._alerts.report(
            "fleet_alone",
            _FINISH if is_upgrade else _ADVICE,
            kind="version" if is_upgrade else "",
            lasting=True,
            log_always=may_log,
            address=self._address,
            reason=self._reason,
            leader=self._replica.position.leader or None,
            replicas=self._replica.replicas,
            others=self._replica.own.others,
        )
        if is_logged:
            self._on_told(self._reason)

    def _on_told(self, reason: str | None) -> None:
        now_s = self._loop.time()
        self._is_untold, self._told_reason, self._told_at_s = False, reason, now_s
        paid_until_s = max(self._paid_until_s, now_s) + _LEAST_S
        self._paid_until_s = min(paid_until_s, now_s + _BURST * _LEAST_S)  # an alert may log by itself
