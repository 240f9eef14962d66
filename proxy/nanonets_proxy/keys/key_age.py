"""Reports a key that is too old, as an alert: at once, and then once a day."""

from typing import Final

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.telemetry.alerts import Alerts

CHECK_EVERY_S: Final = 3600.0
_REPORT_EVERY_S: Final = 86400.0
_DAY_S: Final = 86400.0
_ADVICE: Final = "rotate the key: make a new one at Nanonets, bring it to this source, then revoke the old one"


class KeyAgeAlarm:
    """Remembers which key was reported, and when. `now_s` is on a clock that never goes back."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._reported: ApiKey | None = None
        self._reported_at_s = 0.0

    def report(self, key: ApiKey, age_s: float, max_age_s: float, now_s: float) -> None:
        """Reports a key that is older than `max_age_s`, unless it was reported in the last 24 hours."""
        if key == self._reported and now_s - self._reported_at_s < _REPORT_EVERY_S:
            return
        self._reported, self._reported_at_s = key, now_s
        age_days = round(age_s / _DAY_S, 1)
        sentence = (
            f"The API key of {key.name} is {age_days:g} days old; key_max_age is {max_age_s / _DAY_S:g} days."
        )
        self._alerts.report("key_old", _ADVICE, log_always=True, key=key.name, age_days=age_days, sentence=sentence)
