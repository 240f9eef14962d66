"""Makes clients of Redis, and finds the server that a URL means.

Only a process with `coordination` loads redis-py, so this module imports it where it is needed.
"""

import asyncio
import ssl
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.admission.fleet.bus.port import CoordinationUnusable
from nanonets_proxy.aio.look_up import LookUps
from nanonets_proxy.core.net.redis_address import RedisAddress, RedisKind
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMEOUT_S: Final = 1.0
_TO_ASK_S: Final = 0.5  # there may be several to ask

Server = tuple[str, int]


class ServerUnknown(Exception):
    """No Sentinel, or no node of the cluster, says where the server is. It may know later."""


def make_client(address: RedisAddress, server: Server, **options: Any) -> Any:
    """Returns a client of one server. Raises CoordinationUnusable if the library is not installed.

    Without `socket_timeout` among the options, only connecting has a time limit: set one for each command. Before
    Python 3.12, a command with a time limit of the library's own sometimes ignores that its task is cancelled.
    """
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise CoordinationUnusable("coordination: install the extra nanonets-proxy[redis]") from None
    if address.tls:
        options |= {
            "ssl": True,
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
            "ssl_ca_certs": address.ca_file or None,
            "ssl_certfile": address.cert_file or None,
            "ssl_keyfile": address.key_file or None,
        }
    return Redis(
        host=server[0],
        port=server[1],
        **{
            "db": address.database,
            "username": address.user or None,
            "password": address.password or None,
            "socket_timeout": None,
            "socket_connect_timeout": TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        | _unnamed(Redis)
        | options,
    )


def _unnamed(redis: Any) -> dict[str, None]:
    """Returns the options without which each connection names its library, for which the user has no right."""
    # redis-py 7 has one option instead of two.
    names = ("driver_info",) if "driver_info" in signature(redis).parameters else ("lib_name", "lib_version")
    return dict.fromkeys(names)


def tls_context(address: RedisAddress) -> ssl.SSLContext | None:
    """Returns the context of TLS; None: the URL asks for none.

    Raises CoordinationUnusable if a file of the URL cannot be used.
    """
    if not address.tls:
        return None
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if address.ca_file:
            context.load_verify_locations(address.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CoordinationUnusable(f"coordination: ssl_ca_certs {address.ca_file}: {error}") from None
    try:
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file or None)
    except (OSError, ssl.SSLError) as error:
        files = f"ssl_certfile {address.cert_file}, ssl_keyfile {address.key_file or 'in the same file'}"
        raise CoordinationUnusable(f"coordination: {files}: {error}") from None
    return context


async def find_server(policy: FleetPolicy, look_ups: LookUps) -> Server:
    """Returns the server that holds the fleet's keys, once its name can be looked up.

    Raises:
        ServerUnknown: nobody that was asked knows it now.
        CoordinationUnusable: nobody that was asked will ever know it.
        OSError, TimeoutError, NoThread: the look-up of its name has failed, or takes too long.
        Exceptions of redis-py: the last one that was asked refuses the login or is away.
    """
    address = policy.address
    match address.kind:
        case RedisKind.SERVER:
            found = address.hosts[0]
        case RedisKind.SENTINEL:
            found = await _ask_each(address, look_ups, _ask_sentinel)
        case RedisKind.CLUSTER:
            from redis.crc import key_slot

            slot = key_slot(policy.prefix().encode())
            found = await _ask_each(address, look_ups, lambda *of: _ask_node(slot, *of))
    await look_ups.wait(found[0], TIMEOUT_S)
    return found


async def _ask_each(address: RedisAddress, look_ups: LookUps, ask: Any) -> Server:
    """Asks one host after the other, until one knows the server."""
    fault: Exception = ServerUnknown("no host is named")
    for host in address.hosts:
        try:
            await look_ups.wait(host[0], _TO_ASK_S)
            async with asyncio.timeout(_TO_ASK_S):
                found: Server = await ask(address, host)
        except CoordinationUnusable as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one host, another may know
            if not isinstance(fault, CoordinationUnusable):
                # The time limit of asyncio has no words.
                fault = error if str(error) else TimeoutError(f"{host[0]}:{host[1]} does not respond")
        else:
            return found
    raise fault


async def _ask_sentinel(address: RedisAddress, host: Server) -> Server:
    """Asks a Sentinel for the master. Sentinels with a login of their own must have that of the servers."""
    from redis.exceptions import AuthenticationError, ResponseError

    command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
    async with make_client(address, host, db=0, username=None, password=None) as client:
        try:
            found = await client.execute_command(*command)
        except (AuthenticationError, ResponseError) as error:
            if "NOAUTH" not in str(error) and "uthentication required" not in str(error):
                raise _explained(error, host) from None
            async with make_client(address, host, db=0) as known:
                found = await known.execute_command(*command)
    if found is None:
        name, (sentinel, port) = address.service, host
        raise CoordinationUnusable(f"coordination: the Sentinel {sentinel}:{port} knows no service {name!r}")
    return _text(found[0]), int(found[1])


async def _ask_node(slot: int, address: RedisAddress, host: Server) -> Server:
    """Asks a node of the cluster for the master of a slot."""
    from redis.exceptions import ResponseError

    async with make_client(address, host) as client:
        try:
            # In two words, the library does not parse the response: its form differs between versions.
            slots: Iterable[Any] = await client.execute_command("CLUSTER", "SLOTS")
        except ResponseError as error:
            raise _explained(error, host) from None
    for first, last, master, *_ in slots:
        if first <= slot <= last:
            return _text(master[0]) or host[0], int(master[1])
    raise ServerUnknown(f"the cluster of {host[0]}:{host[1]} has no master for slot {slot}")


def _explained(error: Exception, host: Server) -> Exception:
    """Returns a clearer error if the host is another kind of server than the URL says."""
    where, words = f"{host[0]}:{host[1]}", str(error)
    if "unknown command" in words:
        return CoordinationUnusable(f"coordination: {where} is no Sentinel")
    if "cluster support disabled" in words:
        return CoordinationUnusable(f"coordination: {where} is no node of a cluster: write redis://")
    return error


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def may_have_moved(error: Exception) -> bool:
    """Returns whether the error may mean that another server has the fleet's keys now."""
    from redis import exceptions as e

    gone = (e.ConnectionError, e.TimeoutError, TimeoutError, e.ReadOnlyError, e.MovedError, e.ClusterDownError)
    # Redis 6 quotes the error of a command within that of the script, so the library does not know its kind.
    return isinstance(error, gone) or "-READONLY " in str(error)


def words(error: Exception) -> str:
    """Returns an error of the library in one line."""
    return " ".join(f"{type(error).__name__}: {str(error) or 'no response'}".split())[:200]
