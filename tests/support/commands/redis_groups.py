"""Real Redis servers that belong together: a master with its Sentinels, and a cluster."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fleet.redis_server import RedisServer, redis_server
from support.commands.fleet_proxies import until
from support.commands.ports import free_port

SERVICE = "main"
_SENTINELS = 3
_NODES = 3
_SLOTS = 16384


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
            lines += [
                f"requirepass {password}",
                f"sentinel sentinel-pass {password}",
                f"sentinel auth-pass {SERVICE} {password}",
            ]
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
def cluster() -> Iterator[list[RedisServer]]:
    """Runs a cluster of three masters during the block."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(redis_server("", "--cluster-enabled", "yes", "--cluster-port", str(free_port())))
            for _ in range(_NODES)
        ]
        for number, node in enumerate(nodes):
            first, last = number * _SLOTS // _NODES, (number + 1) * _SLOTS // _NODES - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node in nodes[1:]:
            port = node.options[node.options.index("--cluster-port") + 1]
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port), port)
        until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes))
        yield nodes
