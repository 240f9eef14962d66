"""Real Redis servers that belong together: a master with its Sentinels, and a cluster."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from fleet.redis_server import RedisServer, redis_server
from support.commands.fleet_proxies import until
from support.commands.ports import free_port

SERVICE = "main"
_SENTINELS = 3
_MASTERS = 3
_SLOTS = 16384


class Servers(Protocol):
    """What a fleet is coordinated by."""

    @property
    def url(self) -> str: ...

    @property
    def master(self) -> RedisServer:
        """The server that has the fleet's keys, and takes writes."""


class Replicated(Servers, Protocol):
    """Servers that fail over."""

    @property
    def replica(self) -> RedisServer:
        """The server that takes over from the master."""


class Sentinel(RedisServer):
    """A Sentinel that calls a master down after 0.5 s."""

    def __init__(self, folder: Path, master: int, password: str) -> None:
        super().__init__(folder, password)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        if password:
            lines += [f"requirepass {password}", f"sentinel auth-pass {SERVICE} {password}"]
        self._config = folder / f"sentinel-{self.port}.conf"
        self._config.write_text("\n".join(lines) + "\n")

    def arguments(self) -> list[str]:
        return [str(self._config), "--sentinel"]


@dataclass
class SentinelGroup:
    """A master, its replica, and three Sentinels."""

    servers: dict[int, RedisServer]
    """By port."""
    sentinels: list[Sentinel]
    url: str

    @property
    def master(self) -> RedisServer:
        """The master, as the first Sentinel knows it."""
        answer = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.servers[int(answer.split()[-1])]

    @property
    def replica(self) -> RedisServer:
        master = self.master
        return next(server for server in self.servers.values() if server is not master)

    def knows_replicas(self) -> bool:
        """Returns whether all Sentinels know the replica, and each other: only then can they fail over."""
        answers = [sentinel.ask("SENTINEL", "MASTER", SERVICE).split() for sentinel in self.sentinels]
        return all(
            int(words[words.index(name) + 2]) == count
            for words in answers
            for name, count in ((b"num-slaves", 1), (b"num-other-sentinels", _SENTINELS - 1))
        )


@contextmanager
def sentinel_group(password: str = "") -> Iterator[SentinelGroup]:
    """Runs a master, a replica and their Sentinels during the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sentinels")))
        master = stack.enter_context(redis_server(password))
        replica = stack.enter_context(redis_server(password, "--replicaof", "127.0.0.1", str(master.port)))
        sentinels = [Sentinel(folder, master.port, password) for _ in range(_SENTINELS)]
        for sentinel in sentinels:
            stack.callback(sentinel.kill)
            sentinel.start()
        login = f":{password}@" if password else ""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        servers = {server.port: server for server in (master, replica)}
        group = SentinelGroup(servers, sentinels, f"redis+sentinel://{login}{hosts}/{SERVICE}")
        until(group.knows_replicas)
        yield group


@contextmanager
def cluster(*options: str, nodes: int = _MASTERS) -> Iterator[list[RedisServer]]:
    """Runs a cluster during the block, whose first three nodes have the slots."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis_server("", "--cluster-enabled", "yes", "--cluster-port", str(free_port()), *options)
            )
            for _ in range(nodes)
        ]
        for number, server in enumerate(servers[:_MASTERS]):
            slots = range(number * _SLOTS // _MASTERS, (number + 1) * _SLOTS // _MASTERS)
            server.ask("CLUSTER", "ADDSLOTS", *map(str, slots))
        for server in servers[1:]:
            port = server.options[server.options.index("--cluster-port") + 1]
            servers[0].ask("CLUSTER", "MEET", "127.0.0.1", str(server.port), port)
        known = f"cluster_known_nodes:{nodes}\r".encode()
        until(lambda: all(_is_up(server, known) for server in servers))
        yield servers


def _is_up(server: RedisServer, known: bytes) -> bool:
    info = server.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and known in info


@dataclass
class ReplicatedCluster:
    """Three masters, each with a replica, which takes over after a second."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def master(self) -> RedisServer:
        """The master that has keys. Raises LookupError while there is none."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                if b"role:master" in node.ask("INFO", "replication") and node.ask("DBSIZE") != b":0\r\n":
                    return node
        raise LookupError("no master has keys")

    @property
    def replica(self) -> RedisServer:
        at = self.nodes.index(self.master)
        return self.nodes[(at + _MASTERS) % len(self.nodes)]


def _replicates(replica: RedisServer, master: str) -> bool:
    """Lets a node become a replica. Returns False while it does not know the master yet."""
    try:
        return replica.ask("CLUSTER", "REPLICATE", master) == b"+OK\r\n"
    except ValueError:
        return False


@contextmanager
def replicated_cluster() -> Iterator[ReplicatedCluster]:
    """Runs a cluster with replicas during the block."""
    with cluster("--cluster-node-timeout", "1000", nodes=2 * _MASTERS) as nodes:
        for master, replica in zip(nodes[:_MASTERS], nodes[_MASTERS:], strict=True):
            name = master.ask("CLUSTER", "MYID").split()[-1].decode()
            until(partial(_replicates, replica, name))
        until(lambda: all(b"master_link_status:up" in node.ask("INFO", "replication") for node in nodes[_MASTERS:]))
        yield ReplicatedCluster(nodes)
