"""Runs the containers of the manifests as a node would: their environment, user, mounts, probes and stop, for real.

The pod has a network of its own. One address of the node, outside every private range, is that of the kubelet.
"""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from system.deploy.tools import Document, kustomize, only
from system.podman import IMAGE, STRICT, podman, run, succeed, wait_for

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("image")]

KEY, NEXT_KEY = "k8s-3f1c9a7e5b2d4860", "k8s-77aa9c0b12de4f35"
TOKEN, NEXT_TOKEN = make_token(b"\x01" * TOKEN_BYTES), make_token(b"\x02" * TOKEN_BYTES)
POD, NODE, STRANGER = "203.0.113.2", "203.0.113.1", "203.0.113.9"  # RFC 5737: documentation
SANDBOX = "127.0.0.1:9000"
_CALL = """
import http.client, json, sys
address, port, path, source, fields = json.loads(sys.argv[1])
connection = http.client.HTTPConnection(address, port, timeout=10, source_address=source and (source, 0))
try:
    connection.request("GET", path, headers=fields)
    response = connection.getresponse()
    print(json.dumps([response.status, response.read().decode()]))
except ConnectionRefusedError:
    print(json.dumps([0, "refused"]))
"""


class MountedSecret:
    """A directory as Kubernetes lays it out: a new version replaces the link `..data`."""

    def __init__(self, path: Path, mode: int, group: int) -> None:
        self.path, self._mode, self._group, self._version = path, mode, group, 0
        path.mkdir()
        path.chmod(0o755)

    def update(self, name: str, text: str) -> None:
        self._version += 1
        version = self.path / f"..{self._version}"
        version.mkdir(mode=0o755)
        (version / name).write_text(text)
        (version / name).chmod(self._mode)
        os.chown(version / name, 0, self._group)
        (self.path / "..new").symlink_to(version.name)
        (self.path / "..new").rename(self.path / "..data")
        if not (self.path / name).is_symlink():
            (self.path / name).symlink_to(f"..data/{name}")


@dataclass(frozen=True, slots=True)
class Pod:
    """A running proxy, and the namespaces of its pod and of its node."""

    container: str
    pod_network: str
    node_network: str
    secrets: dict[str, MountedSecret]

    def from_node(
        self, port: int, path: str, *, source: str = NODE, fields: dict[str, str] | None = None
    ) -> tuple[int, str]:
        return _get(self.node_network, POD, port, path, source, fields)

    def from_service(self, path: str) -> int:
        """Calls as the service in the same pod does."""
        return _get(self.pod_network, "localhost", 8080, path)[0]

    def active_fingerprints(self) -> set[str]:
        ready = json.loads(self.from_node(8081, "/readyz")[1])
        return {key["fingerprint"] for key in ready["key"]["keys"] if key["state"] == "active"}

    def stop(self) -> int:
        podman("kill", "--signal=TERM", self.container)
        return int(podman("wait", self.container, timeout_s=60.0))


def _get(
    network: str, address: str, port: int, path: str, source: str = "", fields: dict[str, str] | None = None
) -> tuple[int, str]:
    request = json.dumps([address, port, path, source, fields or {}])
    status, text = json.loads(succeed("ip", "netns", "exec", network, sys.executable, "-c", _CALL, request))
    return status, text


@contextlib.contextmanager
def _networks() -> Iterator[tuple[str, str]]:
    """Yields a network namespace for the pod and one for the node, joined by a pair of interfaces."""
    tag = uuid.uuid4().hex[:6]
    pod, node = f"nnp-pod-{tag}", f"nnp-node-{tag}"
    try:
        for name in (pod, node):
            succeed("ip", "netns", "add", name)
            succeed("ip", "-n", name, "link", "set", "lo", "up")
        succeed("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", node)
        for name, addresses in ((pod, (POD,)), (node, (NODE, STRANGER))):
            for address in addresses:
                succeed("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            succeed("ip", "-n", name, "link", "set", "eth0", "up")
        yield pod, node
    finally:
        for name in (pod, node):
            run("ip", "netns", "delete", name)


@contextlib.contextmanager
def _sandbox(network: str) -> Iterator[None]:
    """Runs the simulated API in a network namespace."""
    command = [sys.executable, "-m", "nanonets_proxy", "sandbox", f"--listen={SANDBOX}"]
    with subprocess.Popen(
        ["ip", "netns", "exec", network, *command],
        env=os.environ | {"NANONETS_SANDBOX_API_KEYS": f"{KEY},{NEXT_KEY}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
        finally:
            process.terminate()


def _options(spec: Document, proxy: Document, secrets: dict[str, MountedSecret]) -> Iterator[str]:
    security = spec["securityContext"] | proxy["securityContext"]
    yield f"--user={security['runAsUser']}:{security['runAsGroup']}"
    known: dict[str, str] = {}
    for variable in proxy["env"]:
        # Kubernetes replaces $(NAME) by an earlier variable.
        value = variable.get("value", NODE)
        for name, earlier in known.items():
            value = value.replace(f"$({name})", earlier)
        known[variable["name"]] = value
        yield f"--env={variable['name']}={value}"
    yield f"--env=NANONETS_PROXY_UPSTREAM=http://{SANDBOX}"
    for mount in proxy["volumeMounts"]:
        if mount["name"] in secrets:
            yield f"--volume={secrets[mount['name']].path}:{mount['mountPath']}:ro"


@contextlib.contextmanager
def _running(spec: Document, proxy: Document, folder: Path) -> Iterator[Pod]:
    """Runs the container `proxy` of a pod until its startup probe succeeds."""
    folder.chmod(0o755)
    group = spec["securityContext"].get("fsGroup", 0)
    secrets = {
        volume["name"]: MountedSecret(folder / volume["name"], volume["secret"]["defaultMode"], group)
        for volume in spec["volumes"]
        if "secret" in volume
    }
    secrets["nanonets-api-key"].update("nanonets_api_key", KEY)
    if "nanonets-callers" in secrets:
        secrets["nanonets-callers"].update("callers", str(CallerToken.of("billing", TOKEN)))
    name = f"nanonets-proxy-test-{uuid.uuid4().hex[:8]}"
    with _networks() as (pod_network, node_network), _sandbox(pod_network):
        try:
            options = (f"--network=ns:/run/netns/{pod_network}", *_options(spec, proxy, secrets))
            podman("run", "--detach", "--name", name, *STRICT, *options, IMAGE)
            pod = Pod(name, pod_network, node_network, secrets)
            probe = proxy["startupProbe"]["httpGet"]
            ports = {port["name"]: port["containerPort"] for port in proxy["ports"]}
            port = ports.get(probe["port"], probe["port"])
            wait_for("the startup probe", lambda: pod.from_node(port, probe["path"])[0] == 200, within_s=60.0)
            yield pod
        finally:
            run("podman", "rm", "--force", "--time=0", name)


def test_the_sidecar_serves_its_pod_only_and_takes_a_new_key(tmp_path: Path) -> None:
    spec = only(kustomize("sidecar"), "Deployment")["spec"]["template"]["spec"]
    (proxy,) = spec["initContainers"]
    with _running(spec, proxy, tmp_path) as pod:
        assert pod.from_service("/api/v4/workflows") == 200
        assert pod.from_node(8080, "/api/v4/workflows") == (0, "refused")
        assert pod.from_node(8081, "/livez")[0] == 200
        assert pod.from_node(8081, "/metrics", source=STRANGER)[0] == 403
        # The proxy writes its log, and podman reads it, a moment later.
        wait_for("the event of the stranger", lambda: f'"peer":"{STRANGER}"' in podman("logs", pod.container))
        first = pod.active_fingerprints()
        pod.secrets["nanonets-api-key"].update("nanonets_api_key", NEXT_KEY)

        def uses_the_next_key() -> bool:
            assert pod.from_service("/api/v4/workflows") == 200
            return pod.active_fingerprints().isdisjoint(first)

        wait_for("the next key", uses_the_next_key)
        assert pod.stop() == 0


def test_the_shared_instance_serves_callers_with_tokens_and_takes_a_new_list(tmp_path: Path) -> None:
    spec = only(kustomize("shared"), "Deployment")["spec"]["template"]["spec"]
    (proxy,) = spec["containers"]
    # A caller's pod has a private address; here the node's address takes that part.
    for variable in proxy["env"]:
        if variable["name"] == "NANONETS_PROXY_ALLOW_FROM":
            variable["value"] += f",{NODE}"
    with _running(spec, proxy, tmp_path) as pod:
        # The name that kubectl shows for the Service.
        fields = {"Host": "nanonets-proxy.nanonets-proxy", "Authorization": f"Bearer {TOKEN}"}
        assert pod.from_node(8080, "/api/v4/workflows", fields=fields)[0] == 200
        assert pod.from_node(8080, "/api/v4/workflows")[0] == 401
        assert pod.from_node(8080, "/api/v4/workflows", fields=fields, source=STRANGER)[0] == 403
        pod.secrets["nanonets-callers"].update("callers", str(CallerToken.of("billing", NEXT_TOKEN)))
        fields["Authorization"] = f"Bearer {NEXT_TOKEN}"
        wait_for("the next token", lambda: pod.from_node(8080, "/api/v4/workflows", fields=fields)[0] == 200)
