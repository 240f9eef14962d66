"""Alarms about a quota: their sentences, and how often they come."""

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.admission.quota_alarms import quota_alarms
from nanonets_proxy.core.ratelimit.news import QuotaChanged, QuotaUsedUp
from nanonets_proxy.core.ratelimit.quota_watch import Accepted, QuotaChange, QuotaFinding
from nanonets_proxy.telemetry.alerts import Alerts


class Scene:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.alerts = Alerts(self.registry)
        self.report = quota_alarms(self.alerts, lambda scope: "pages" if scope == "v2" else "requests", self._clock)

    def _clock(self) -> float:
        return self.now_s

    def found(self, change: QuotaChange, *units: float, scope: str = "account") -> None:
        since = tuple(Accepted(accepted, 10.0) for accepted in units)
        self.report(QuotaChanged(scope, QuotaFinding(change, Accepted(20, 10.0), since)))

    @property
    def used_up(self) -> float:
        labels = {"event": "quota_used_up", "kind": ""}
        return self.registry.get_sample_value("nanonets_proxy_alerts_total", labels) or 0.0

    @property
    def sentences(self) -> list[str]:
        return [alert["sentence"] for alert in self.alerts.to_json()]

    def total(self, kind: str) -> float:
        labels = {"event": "quota_alarm", "kind": kind}
        return self.registry.get_sample_value("nanonets_proxy_alerts_total", labels) or 0.0


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("change", "units", "sentence"),
    [
        (
            QuotaChange.SHORT,
            [16],
            (
                "Nanonets accepted only 16 requests in 10 s in the scope account before it refused one, and at "
                "least 20 until now: another client seems to use the quota, or the limit was lowered."
            ),
        ),
        (
            QuotaChange.SHARED,
            [16, 12],
            (
                "Another client uses the quota of the scope account: Nanonets accepted 16 and then 12 requests in "
                "10 s, and at least 20 until now."
            ),
        ),
        (
            QuotaChange.LOWERED,
            [16, 15, 15, 15],
            (
                "The limit of the scope account seems to be lower: Nanonets accepts about 15 requests in 10 s, "
                "and at least 20 before."
            ),
        ),
    ],
)
def test_each_alarm_is_a_sentence_with_its_figures(
    scene: Scene, change: QuotaChange, units: list[float], sentence: str
) -> None:
    scene.found(change, *units)
    assert scene.sentences == [sentence]
    assert scene.total(f"quota_{change.value}") == 1


@pytest.mark.parametrize(
    ("retry_after_s", "sentence"),
    [
        (
            None,
            (
                "Nanonets says that the quota of the scope account is used up: callers get its 429 at once, and "
                "the next test may come in 1 min."
            ),
        ),
        (
            48_000.0,
            (
                "Nanonets says that the quota of the scope account is used up for 13 h 20 min: callers get its 429 "
                "at once, and the next test may come in 1 min."
            ),
        ),
    ],
)
def test_a_used_up_quota_is_an_alert_with_its_figures(
    scene: Scene, retry_after_s: float | None, sentence: str
) -> None:
    scene.report(QuotaUsedUp("account", retry_after_s, 60.0))
    assert scene.sentences == [sentence]
    assert scene.used_up == 1


def test_a_limit_of_a_minute_that_is_longer_than_max_wait_is_an_alert_once_an_hour(scene: Scene) -> None:
    for minute in range(180):
        scene.now_s = 60.0 * minute
        scene.report(QuotaUsedUp("account", 40.0, 40.0))
    assert scene.used_up == 3
    assert scene.alerts.to_json()[0]["advice"].startswith("raise max_wait")


@pytest.mark.parametrize("retry_after_s", [None, 48_000.0])
def test_a_short_hint_hides_no_used_up_quota(scene: Scene, retry_after_s: float | None) -> None:
    for hint_s in (40.0, retry_after_s, 40.0, retry_after_s):
        scene.report(QuotaUsedUp("account", hint_s, 60.0))
    assert scene.used_up == 2
    scene.report(QuotaUsedUp("v2", retry_after_s, 60.0))
    assert scene.used_up == 3


def test_a_limit_in_pages_has_pages_in_its_sentence(scene: Scene) -> None:
    scene.found(QuotaChange.SHORT, 16, scope="v2")
    assert "only 16 pages in 10 s in the scope v2" in scene.sentences[0]


def test_an_alarm_is_repeated_after_an_hour(scene: Scene) -> None:
    for now_s, total in ((0.0, 1), (3599.0, 1), (3600.0, 2), (3601.0, 2)):
        scene.now_s = now_s
        scene.found(QuotaChange.SHORT, 16)
        assert scene.total("quota_short") == total
    scene.found(QuotaChange.SHORT, 16, scope="v2")
    scene.found(QuotaChange.LOWERED, 16)
    assert (scene.total("quota_short"), scene.total("quota_lowered")) == (3, 1)


def test_the_memory_of_reported_scopes_is_bounded(scene: Scene) -> None:
    for number in range(2000):
        scene.found(QuotaChange.SHORT, 16, scope=f"v2:{number}")
    scene.found(QuotaChange.SHORT, 16, scope="v2:1999")
    assert scene.total("quota_short") == 2000
    scene.found(QuotaChange.SHORT, 16, scope="v2:0")
    assert scene.total("quota_short") == 2001
