"""The check of `coordination` at start."""

import ssl

from nanonets_proxy.admission.fleet.bus.client import ServerUnknown, check_tls_files, find_server, make_client
from nanonets_proxy.admission.fleet.bus.port import CoordinationUnusable
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy


async def check(policy: FleetPolicy) -> str | None:
    """Returns why Redis cannot be reached now; None if it can. Raises CoordinationUnusable if it never will.

    A server that is away may come back. A wrong password, a missing right or another kind of server will not.
    """
    address = policy.address
    client = make_client(address, address.hosts[0])  # before the library's exceptions: it may not be installed
    from redis import exceptions

    check_tls_files(address)
    try:
        client = make_client(address, await find_server(policy))
        await client.eval("return redis.call('GET', KEYS[1])", 1, f"{policy.prefix()}:lease")
        await client.publish(f"{policy.prefix()}:check", b"")
    except (exceptions.BusyLoadingError, exceptions.ClusterDownError, ServerUnknown) as error:
        return f"{address}: {error}"
    except exceptions.MovedError:
        raise CoordinationUnusable(
            f"coordination: {address} is a node of a cluster: write redis+cluster://"
        ) from None
    except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
        raise CoordinationUnusable(f"coordination: {address} refuses the login: {error}") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            reason = error.__context__.verify_message
            raise CoordinationUnusable(f"coordination: {address} has no trusted certificate: {reason}") from None
        return f"{address} cannot be reached: {error}"
    except exceptions.RedisError as error:
        if "unknown command" in str(error):
            raise CoordinationUnusable(
                f"coordination: {address} runs no scripts; if it is a Sentinel, write redis+sentinel://HOST/SERVICE"
            ) from None
        raise CoordinationUnusable(f"coordination: {address} cannot be used: {error}") from None
    finally:
        await client.aclose()
    return None
