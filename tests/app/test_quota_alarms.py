"""An alarm about a quota, from the gate of a running proxy to what its operators see."""

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.ratelimit.news import QuotaChanged
from nanonets_proxy.core.ratelimit.quota_watch import Accepted, QuotaChange, QuotaFinding
from support.proxy_harness import running_proxy


async def test_a_change_of_a_quota_is_an_alert_of_its_environment() -> None:
    finding = QuotaFinding(QuotaChange.SHORT, Accepted(20, 10.0), (Accepted(12, 10.0),))
    async with running_proxy(Origin("http", "127.0.0.1", 1)) as proxy:
        proxy.proxy._gate.news.add([QuotaChanged("account", finding)])
        proxy.room._poll(0.0)
        (alert,) = proxy.proxy.alerts.to_json()
    assert (alert["event"], alert["alarm"], alert["scope"]) == ("quota_alarm", "quota_short", "account")
