"""Reports a certificate of the listeners that has expired or will soon, as an alert: at once, and then once a day.

A certificate is due when a tenth of its validity is left: tools renew one of 90 days, and one of a day, at a third.
"""

import asyncio
import re
import ssl
import time
from pathlib import Path
from typing import Final

from nanonets_proxy.core.net.certificate import validity
from nanonets_proxy.core.status.state import duration
from nanonets_proxy.telemetry.alerts import Alerts

_CHECK_EACH_S: Final = 3600.0
_REPORT_EACH_S: Final = 86400.0
_DUE_SHARE: Final = 0.1
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ADVICE: Final = "put a new certificate into the file; the proxy reads it within a second, without a restart"


class CertificateAlarm:
    """Checks the first certificate of a file, which is that of the listeners. Call `start`, then `stop`."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._timer: asyncio.TimerHandle | None = None
        self._path: Path | None = None
        self._reported_at_s = -_REPORT_EACH_S

    def start(self, path: Path) -> None:
        """Checks the file now, and every hour."""
        self.stop()
        if path != self._path:
            self._path, self._reported_at_s = path, -_REPORT_EACH_S
        loop = asyncio.get_running_loop()
        self.check(loop.time())
        self._timer = loop.call_later(_CHECK_EACH_S, self.start, path)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def check(self, now_s: float) -> None:
        """Reports the certificate if it is due. A file that cannot be read is reported elsewhere."""
        if self._path is None or now_s - self._reported_at_s < _REPORT_EACH_S:
            return
        try:
            pem = _PEM.search(self._path.read_bytes())
            begins, ends = validity(ssl.PEM_cert_to_DER_cert(pem[0].decode()) if pem else b"")
        except (OSError, ValueError):
            return
        left_s = ends - time.time()
        if left_s >= _DUE_SHARE * (ends - begins):
            return
        self._reported_at_s = now_s
        when = f"expires in {duration(left_s)}" if left_s > 0 else f"expired {duration(-left_s)} ago"
        self._alerts.report(
            "certificate_expires",
            _ADVICE,
            log_always=True,
            path=str(self._path),
            sentence=f"The listeners' certificate in {self._path} {when}: callers reject an expired one.",
        )
