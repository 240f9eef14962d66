"""The part of `check` that connects to the upstream: tests the connection, the certificate and the key."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nanonets_proxy.cli.check import CheckResult
from nanonets_proxy.core.http.head_writer import request_head
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.settings import Settings
from nanonets_proxy.settings.configure import dial_policy
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import UpstreamTlsCertificate, UpstreamTlsProtocol
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.key_probe import DEFAULT_PATH
from nanonets_proxy.upstream.policy import DialPolicy

_TIMEOUT_S: Final = 30.0


def check_upstream(settings: Settings, key: ApiKey, environ: Mapping[str, str]) -> list[CheckResult]:
    """Returns up to three results: `upstream`, `tls` (https only), `key accepted`. Stops at the first failure."""
    return asyncio.run(_check_upstream(settings, key, dial_policy(settings, environ)))


async def _check_upstream(settings: Settings, key: ApiKey, policy: DialPolicy) -> list[CheckResult]:
    upstream = str(settings.upstream)
    dialer = Dialer(replace(policy, idle_timeout_s=_TIMEOUT_S))
    reachable = CheckResult("upstream", ok=True, detail=f"{upstream} is reachable")
    try:
        connection = await dialer.dial()
    except (UpstreamTlsCertificate, UpstreamTlsProtocol) as error:
        return [reachable, CheckResult("tls", ok=False, detail=_sentence(error))]
    except ProxyError as error:
        return [CheckResult("upstream", ok=False, detail=f"{upstream}: {_sentence(error)}")]
    results = [reachable]
    if connection.tls_version is not None:
        results.append(CheckResult("tls", ok=True, detail=f"{connection.tls_version}, certificate verified"))
    try:
        results.append(await _check_key(connection, settings, key))
    except ProxyError as error:
        results.append(CheckResult("key accepted", ok=False, detail=f"unknown: {_sentence(error)}"))
    finally:
        connection.close()
    return results


async def _check_key(connection: UpstreamConnection, settings: Settings, key: ApiKey) -> CheckResult:
    host, path = settings.upstream.authority.encode(), settings.key_probe or DEFAULT_PATH
    fields = (b"Connection", b"close"), (b"Authorization", key.authorization(settings.upstream))
    request = UpstreamRequest("GET", request_head(b"GET", path.encode(), host, *fields), None)
    connection.start(request)
    connection.write(request.head)
    connection.finish_request(_TIMEOUT_S)
    status = (await connection.head()).status
    if 200 <= status < 300:
        return CheckResult("key accepted", ok=True, detail=f"the upstream accepts {key.name}")
    if status in (401, 403):
        return CheckResult("key accepted", ok=False, detail=f"the upstream rejects {key.name} ({status})")
    return CheckResult("key accepted", ok=False, detail=f"unknown: GET {path} got the response {status}")


def _sentence(error: ProxyError) -> str:
    facts = [error.details[name] for name in ("reason", "host") if name in error.details]
    facts += [f"tried {', '.join(tried)}"] if (tried := error.log_details.get("tried")) else []
    return f"{error.message.rstrip('.')} ({'; '.join(facts)})" if facts else error.message.rstrip(".")
