"""Reports the keyring's events in the log and the metrics, and unusable keys as alerts too."""

from collections.abc import Sequence
from typing import Any, Final

from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.core.keys.key_records import KeyEvent, KeyEventKind, KeyringState
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_metrics import KeyMetrics

_REJECTED_STATES: Final = {
    KeyEventKind.CANDIDATE_REJECTED: "candidate",
    KeyEventKind.ACTIVE_REJECTED: "active",
    KeyEventKind.PREVIOUS_REJECTED: "previous",
}
_REASONS: Final = {
    KeyEventKind.CANDIDATE_REJECTED: "the upstream rejects the key that the source holds: correct it there",
    KeyEventKind.ACTIVE_REJECTED: "the upstream rejects the key that it accepted before",
    KeyEventKind.HOLD_STARTED: "no key is known to work; the requests with a 401 wait for a new key",
}
_NO_KEY_WORKS: Final = "the source brought no new key: callers get the upstream's 401 until it does"
_BRING_A_KEY: Final = (
    "put a valid key there: a changed file is read within a second; for any other source, run nanonets-proxy reload"
)
_HARMLESS: Final = (KeyEventKind.ACTIVATED, KeyEventKind.CANDIDATE_FOUND, KeyEventKind.REQUEST_REJECTED)
_GAP: Final = (KeyEventKind.HOLD_STARTED, KeyEventKind.HOLD_ENDED)
_UNUSABLE: Final = (*_REJECTED_STATES, *_GAP)


class KeyEventReporter:
    """Writes the events of one environment to its log and metrics."""

    def __init__(self, log: Any, metrics: KeyMetrics, alerts: Alerts) -> None:
        self._log = log
        self._alerts = alerts
        self._metrics = metrics
        self._was_key_accepted = False
        self._is_gap = False

    def report(self, events: Sequence[KeyEvent], state: KeyringState) -> None:
        """Reports the events; `state` is the keyring's state after them."""
        for event in events:
            if event.kind in _GAP:
                self._is_gap = event.kind is KeyEventKind.HOLD_STARTED
        for event in events:
            self._count(event, state)
            self._write(event, state)
            if event.kind is KeyEventKind.CANDIDATE_FOUND and (mistake := event.record.key.mistake()) is not None:
                key = event.record.key
                self._log.warning("key_looks_wrong", key=key.name, reason=f"the API key of {key.name} {mistake}")
            self._alert(event, state)

    def source_failed(self, sentence: str) -> None:
        """Reports that the source cannot be read."""
        text = (
            f"{sentence[:1].upper()}{sentence[1:]}. The proxy keeps the key that it has, but could not start again."
        )
        self._alerts.report("key_unusable", _BRING_A_KEY, kind="source", sentence=text)

    def source_works_again(self, source: str) -> None:
        """Reports that the source can be read again."""
        self._log.info("key_source_works_again", source=source)
        self._alerts.end("key_unusable", "source")

    def source_key_is_usable(self) -> None:
        """Reports that the upstream does not reject the key that the source holds."""
        self._alerts.end("key_unusable", "candidate")

    def _alert(self, event: KeyEvent, state: KeyringState) -> None:
        kind, source = event.kind, event.record.key.name
        outcome = _outcome(event, state) if kind is KeyEventKind.HOLD_ENDED else state.value
        if outcome == KeyringState.SERVING.value and kind in (KeyEventKind.ACTIVATED, KeyEventKind.HOLD_ENDED):
            self._alerts.end("key_unusable", "rejected")
        if kind in _UNUSABLE and outcome != KeyringState.SERVING.value:
            # With a wrong key from the start, requests wait for one reading only.
            waits = self._is_gap and outcome == KeyringState.HOLDING.value
            effect = "requests wait for a new one" if waits else "callers get its 401"
            text = f"Nanonets rejects every known API key (401), at last that of {source}: {effect}."
            self._alerts.report("key_unusable", _BRING_A_KEY, kind="rejected", sentence=text)
        elif kind is KeyEventKind.CANDIDATE_REJECTED:
            text = f"Nanonets rejects the new API key of {source} (401): the previous one stays in use."
            self._alerts.report("key_unusable", _BRING_A_KEY, kind="candidate", sentence=text)

    def _count(self, event: KeyEvent, state: KeyringState) -> None:
        kind = event.kind
        if (rejected := _REJECTED_STATES.get(kind)) is not None:
            self._metrics.rejections.labels(rejected).inc()
        elif kind is KeyEventKind.ACTIVATED:
            if self._was_key_accepted:
                self._metrics.rotations.inc()
            self._was_key_accepted = True
        elif kind is KeyEventKind.HOLD_ENDED:
            self._metrics.gaps.labels(_outcome(event, state)).inc()

    def _write(self, event: KeyEvent, state: KeyringState) -> None:
        key, kind = event.record.key, event.kind
        fields: dict[str, Any] = {"key": key.name, "fingerprint": key.fingerprint()}
        if (reason := _REASONS.get(kind)) is not None:
            fields["reason"] = reason
        log = self._log.info if kind in _HARMLESS else self._log.warning
        if kind is KeyEventKind.HOLD_ENDED:
            outcome = _outcome(event, state)
            fields |= {"state": outcome, "lasted_s": round(event.lasted_s, 3)}
            log = self._log.info
            if outcome == KeyringState.EXHAUSTED.value:
                log, fields["reason"] = self._log.error, _NO_KEY_WORKS
        elif kind is KeyEventKind.REQUEST_REJECTED:
            fields["target"] = loggable_target(event.target)
        log(kind.value, **fields)


def _outcome(event: KeyEvent, state: KeyringState) -> str:
    """Returns the state after a wait for a key: `spent` also if the key is still doubted."""
    doubt = event.record.doubt
    is_still_doubted = doubt is not None and doubt.is_over
    return KeyringState.EXHAUSTED.value if is_still_doubted else state.value
