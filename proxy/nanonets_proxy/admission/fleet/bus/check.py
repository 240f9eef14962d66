"""The check of `coordination` at start."""

import ssl
from typing import Any, Final

from nanonets_proxy.admission.fleet.bus.client import (
    TIMEOUT_S,
    ServerUnknown,
    find_server,
    make_client,
    tls_context,
)
from nanonets_proxy.admission.fleet.bus.port import CoordinationUnusable
from nanonets_proxy.admission.fleet.bus.scripts import CAMPAIGN, RENEW, RESIGN, keys
from nanonets_proxy.aio.look_up import LookUps
from nanonets_proxy.core.ratelimit.fleet.policy import PROTOCOL, FleetPolicy

_ACL_IN_SCRIPT: Final = ("user executing the script", "ACL failure in script")
_MAY_PASS: Final = ("read only replica", "maxmemory", "MISCONF", "NOREPLICAS", "MASTERDOWN")
"""Of errors of a server that takes no writes now."""
_KEEP: Final = """
redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('HSET', KEYS[1], 'at_ms', '0')
redis.call('PEXPIRE', KEYS[1], 1000)
"""
"""The commands that the scripts do without if they fail, or run only while another replica leads."""


async def check(policy: FleetPolicy) -> str | None:
    """Returns why Redis cannot be reached now; None if it can. Raises CoordinationUnusable if it never will.

    A server that is away may come back. A wrong password, a missing right or another kind of server will not.
    """
    address = policy.address
    # Before the library's exceptions: it may not be installed.
    client = make_client(address, address.hosts[0])
    from redis import exceptions

    tls_context(address)
    try:
        client = make_client(address, await find_server(policy, LookUps()), socket_timeout=TIMEOUT_S)
        await _rehearse(client, f"{policy.prefix()}:check", f"{policy.common_prefix()}:check")
    except (exceptions.BusyLoadingError, exceptions.ClusterDownError, ServerUnknown) as error:
        return f"{address}: {error}"
    except exceptions.MovedError:
        raise CoordinationUnusable(
            f"coordination: {address} is a node of a cluster: write redis+cluster://"
        ) from None
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        raise CoordinationUnusable(f"coordination: {address} refuses the login: {error}") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            reason = error.__context__.verify_message
            raise CoordinationUnusable(f"coordination: {address} has no trusted certificate: {reason}") from None
        return f"{address} cannot be reached: {error}"
    except exceptions.RedisError as error:
        if isinstance(error, exceptions.NoPermissionError) or _is_any_of(_ACL_IN_SCRIPT, error):
            raise CoordinationUnusable(
                f"coordination: the user of {address} lacks a right that docs/fleet.md lists: {error}"
            ) from None
        if _is_any_of(_MAY_PASS, error):
            return f"{address}: {error}"
        if "unknown command" in str(error):
            raise CoordinationUnusable(
                f"coordination: {address} runs no scripts; if it is a Sentinel, write redis+sentinel://HOST/SERVICE"
            ) from None
        raise CoordinationUnusable(f"coordination: {address} cannot be used: {error}") from None
    finally:
        await client.aclose()
    return None


def _is_any_of(words: tuple[str, ...], error: Exception) -> bool:
    return any(word in str(error) for word in words)


async def _rehearse(client: Any, prefix: str, common_prefix: str) -> None:
    """Does once what a replica does with Redis, with keys and a channel of its own. Each needs a right."""
    own = keys(prefix, common_prefix)
    won = await client.register_script(CAMPAIGN)(keys=own, args=["check", 0, 1000, PROTOCOL])
    if won:
        me = f"{int(won[0])} check"
        await client.register_script(RENEW)(keys=own, args=[me, 1000, prefix, b"", b"", 1000, PROTOCOL, 1])
        await client.register_script(RESIGN)(keys=own[:1], args=[me])
    await client.eval(_KEEP, 1, own[1])
    await client.publish(prefix, b"")
    pubsub = client.pubsub()
    try:
        await pubsub.subscribe(prefix)
        await pubsub.get_message(timeout=1.0)
        await pubsub.ping()
        await pubsub.get_message(timeout=1.0)
    finally:
        await pubsub.aclose()
