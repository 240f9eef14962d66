"""Sentinels, clusters, TLS and logins, with real servers (`make test-fleet`)."""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from fleet.redis_server import RedisServer, redis_server
from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.client import find_server
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, CoordinationUnusable
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.aio.look_up import LookUps
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support import eventually
from support.commands.fleet_proxies import PASSWORD, RIGHTS, Callers, coordinated, fleet, make_user, until
from support.commands.ports import free_port
from support.commands.process import ANY_PORTS, environment, running
from support.commands.redis_groups import SERVICE, cluster, sentinel_group

pytestmark = pytest.mark.system


def policy(url: str) -> FleetPolicy:
    return FleetPolicy(RedisAddress.parse(url), "a", required=False)


@asynccontextmanager
async def connected(url: str, name: str = "a") -> AsyncIterator[tuple[RedisBus, list[bytes], list[str]]]:
    """Runs a bus. Yields it, what it hears, and why it loses its connection."""
    bus = RedisBus(policy(url), name)
    heard: list[bytes] = []
    lost: list[str] = []
    bus.start(heard.append, lost.append, lambda _: None)
    try:
        await eventually.until(lambda: bus.connected)
        yield bus, heard, lost
    finally:
        await bus.stop()


async def use(bus: RedisBus, heard: list[bytes]) -> None:
    """Leads once, and hears its own beat."""
    won = await bus.campaign(0)
    assert won is not None
    assert await bus.renew(won.epoch, 1, b"beat", b"kept") == 0
    await eventually.until(lambda: b"beat" in heard)
    heard.clear()
    await bus.resign(won.epoch)


def is_replica(server: RedisServer) -> bool:
    try:
        return b"role:slave" in server.ask("INFO", "replication")
    except ConnectionError:  # it closes all connections when its role changes
        return False


# --- Sentinel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
async def test_after_a_failover_the_bus_finds_the_new_master(fault: str) -> None:
    with sentinel_group(PASSWORD) as group:
        assert await check(policy(group.url)) is None
        async with connected(group.url) as (bus, heard, lost):
            await use(bus, heard)
            old = group.master
            old.signal(getattr(signal, fault))
            if fault == "SIGSTOP":  # the bus has no other sign than the silence
                await eventually.until(lambda: group.master is not old)
            await eventually.until(lambda: bool(lost))
            await eventually.until(lambda: bus.connected and group.master is not old)
            if fault == "SIGSTOP":
                old.signal(signal.SIGCONT)  # the former master still takes itself for one, for a moment
            assert await find_server(policy(group.url), LookUps()) == ("127.0.0.1", group.master.port)
            await use(bus, heard)


async def test_a_failover_by_hand_is_noticed_by_the_read_only_server() -> None:
    with sentinel_group() as group:
        async with connected(group.url) as (bus, heard, lost):
            old = group.master
            group.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
            await eventually.until(lambda: group.master is not old)
            await eventually.until(lambda: is_replica(old))
            await eventually.until(lambda: bool(lost))
            await eventually.until(lambda: bus.connected)
            await use(bus, heard)


async def test_a_dead_sentinel_is_passed_over_and_an_unknown_service_is_an_error() -> None:
    with sentinel_group() as group:
        group.sentinels[0].kill()
        assert await check(policy(group.url)) is None
        with pytest.raises(CoordinationUnusable, match="knows no service 'other'"):
            await check(policy(group.url.replace(f"/{SERVICE}", "/other")))
        for sentinel in group.sentinels:
            sentinel.kill()
        assert "cannot be reached" in str(await check(policy(group.url)))


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
def test_no_caller_fails_in_a_failover(fault: str) -> None:
    with sentinel_group() as group, fleet(group.url, 3, "--caller-header", "X-Caller") as proxies:
        until(lambda: coordinated(proxies))
        with Callers(proxies, 3) as callers:
            time.sleep(2)
            old = group.master
            old.signal(getattr(signal, fault))
            until(lambda: group.master is not old)
            until(lambda: coordinated(proxies))
            time.sleep(1)
            if fault == "SIGSTOP":
                old.signal(signal.SIGCONT)
                time.sleep(2)
        assert set(callers.statuses) == {200}
        until(lambda: coordinated(proxies))


# --- cluster ------------------------------------------------------------------------------------------


async def test_a_fleet_uses_the_node_of_its_slot_and_follows_the_slot() -> None:
    with cluster() as nodes:
        for node in nodes:
            make_user(node, *RIGHTS.split(), "+cluster|slots")
        url = f"redis+cluster://proxy:{PASSWORD}@127.0.0.1:{nodes[0].port}"
        assert await check(policy(url)) is None
        async with connected(url) as (bus, heard, lost), connected(url, "b") as (other, others, _):
            await use(bus, heard)
            other.send(EVERYBODY, b"all")
            await eventually.until(lambda: heard == [b"all"] and others[-1] == b"all")

            _, port = await find_server(policy(url), LookUps())
            slot = nodes[0].ask("CLUSTER", "KEYSLOT", policy(url).prefix()).strip(b":\r\n").decode()
            owner = next(node for node in nodes if node.port == port)
            new = next(node for node in nodes if node is not owner)
            owner.ask("FLUSHALL")
            name = new.ask("CLUSTER", "MYID").split()[-1].decode()
            for node in (new, owner, *nodes):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
            with pytest.raises(Exception, match="Moved"):
                await bus.campaign(0)
            await eventually.until(lambda: bool(lost))
            await eventually.until(lambda: bus.connected)
            await use(bus, heard)


def test_a_fleet_of_proxies_shares_a_cluster() -> None:
    with cluster() as nodes:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        with fleet(url, 3, "--caller-header", "X-Caller") as proxies:
            until(lambda: coordinated(proxies))
            with Callers(proxies, 2) as callers:
                time.sleep(3)
            assert set(callers.statuses) == {200}


# --- TLS and logins -------------------------------------------------------------------------------------


class Certificates:
    """An authority, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.client = folder / "client.pem"
        self.authority.issue_cert("proxy.example").private_key_and_cert_chain_pem.write_to_path(self.client)
        server = self.authority.issue_cert("127.0.0.1")
        self.server_key, self.server_cert = folder / "server.key", folder / "server.pem"
        server.private_key_pem.write_to_path(self.server_key)
        server.cert_chain_pems[0].write_to_path(self.server_cert)

    def options(self, port: int) -> tuple[str, ...]:
        """Returns the options of a server that asks clients for a certificate."""
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-ca-cert-file", str(self.ca)),
            *("--tls-cert-file", str(self.server_cert), "--tls-key-file", str(self.server_key)),
        )


async def test_tls_with_an_own_authority_and_a_clients_certificate(tmp_path: Path) -> None:
    certificates, port = Certificates(tmp_path), free_port()
    with redis_server(PASSWORD, *certificates.options(port)):
        base = f"rediss://:{PASSWORD}@127.0.0.1:{port}"
        url = f"{base}?ssl_ca_certs={certificates.ca}&ssl_certfile={certificates.client}"
        assert await check(policy(url)) is None
        async with connected(url) as (bus, heard, _):
            await use(bus, heard)

        for wrong, reason in (
            (base, "self-signed certificate|unable to get local issuer"),
            (f"{base}?ssl_ca_certs={tmp_path}/none.pem", "ssl_ca_certs .*No such file"),
            (f"{base}?ssl_certfile={certificates.ca}", "ssl_certfile .*ssl_keyfile in the same file"),
            (url.replace("127.0.0.1", "localhost"), "[Hh]ostname mismatch"),
        ):
            with pytest.raises(CoordinationUnusable, match=f"(?s)^coordination: .*({reason})") as caught:
                await check(policy(wrong))
            assert PASSWORD not in str(caught.value)
        assert "cannot be reached" in str(await check(policy(f"{base}?ssl_ca_certs={certificates.ca}")))


def test_a_proxy_names_the_setting_if_its_authority_is_unknown(tmp_path: Path) -> None:
    certificates, port = Certificates(tmp_path), free_port()
    with redis_server("", *certificates.options(port)):
        env = environment(NANONETS_API_KEY="sandbox-test-key")
        arguments = ("--upstream", "http://127.0.0.1:1", "--coordination", f"rediss://127.0.0.1:{port}")
        with running(["serve", *ANY_PORTS, *arguments], env) as proxy:
            assert proxy.process.wait(60) == 2
        assert b"coordination: rediss://127.0.0.1" in proxy.stderr


# --- another kind of server -----------------------------------------------------------------------------


async def test_another_kind_of_server_than_the_url_says_is_an_error_that_says_so(redis: RedisServer) -> None:
    with pytest.raises(CoordinationUnusable, match="is no Sentinel"):
        await check(policy(f"redis+sentinel://127.0.0.1:{redis.port}/main"))
    with pytest.raises(CoordinationUnusable, match="is no node of a cluster"):
        await check(policy(f"redis+cluster://127.0.0.1:{redis.port}"))
    is_sentinel = pytest.raises(CoordinationUnusable, match=r"write redis\+sentinel://HOST/SERVICE")
    with sentinel_group() as group, is_sentinel:
        await check(policy(f"redis://127.0.0.1:{group.sentinels[0].port}"))
    with cluster() as nodes:
        faults = []
        for node in nodes:
            try:
                await check(policy(f"redis://127.0.0.1:{node.port}"))
            except CoordinationUnusable as error:
                faults.append(str(error))
        assert faults
        assert all("redis+cluster://" in fault for fault in faults)
