"""A certificate that has expired or will soon is an alert, once a day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
import trustme
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.certificate_alarm import CertificateAlarm
from nanonets_proxy.telemetry.alerts import Alerts

_CA = trustme.CA()


def _write(path: Path, *, life: timedelta, left: timedelta) -> None:
    until = datetime.now(UTC) + left
    issued = _CA.issue_cert("localhost", not_before=until - life, not_after=until)
    issued.private_key_and_cert_chain_pem.write_to_path(path)


async def _sentences(path: Path) -> list[str]:
    with structlog.testing.capture_logs() as events:
        alarm = CertificateAlarm(Alerts(CollectorRegistry()))
        alarm.start(path)
        alarm.start(path)
        alarm.stop()
    assert all(event["event"] == "certificate_expires" for event in events)
    return [event["sentence"].replace(str(path), "PEM") for event in events]


@pytest.mark.parametrize(
    ("life", "left", "when"),
    [
        (timedelta(days=90), timedelta(days=10), None),
        (timedelta(hours=24), timedelta(hours=3), None),
        (timedelta(days=90), timedelta(days=7, seconds=30), "expires in 7 d"),
        (timedelta(hours=24), timedelta(hours=2, seconds=30), "expires in 2 h"),
        (timedelta(days=90), -timedelta(days=2, seconds=30), "expired 2 d ago"),
    ],
)
async def test_a_certificate_is_due_when_a_tenth_of_its_validity_is_left(
    life: timedelta, left: timedelta, when: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "tls.pem"
    _write(path, life=life, left=left)
    expected = [] if when is None else [f"The listeners' certificate in PEM {when}: callers reject an expired one."]
    assert await _sentences(path) == expected


async def test_it_is_reported_again_after_a_day_or_as_another_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, life=timedelta(days=90), left=-timedelta(days=1))
    with structlog.testing.capture_logs() as events:
        alarm = CertificateAlarm(Alerts(CollectorRegistry()))
        alarm.start(tmp_path / "a")
        alarm.start(tmp_path / "b")
        assert len(events) == 2
        alarm.check(alarm._reported_at_s + 86_000)
        assert len(events) == 2
        alarm.check(alarm._reported_at_s + 86_401)
        assert len(events) == 3
        alarm.stop()


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"])
async def test_a_file_that_is_no_certificate_is_reported_elsewhere(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    if content is not None:
        path.write_bytes(content)
    assert await _sentences(path) == []
