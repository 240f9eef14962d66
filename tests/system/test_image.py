"""The container image: its content, and its start, service and end under a strict policy."""

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy import __version__
from system.podman import (
    BASE,
    ENVIRON_UNREADABLE,
    IMAGE,
    ON_HOST,
    READ_ENVIRON,
    TOOLS,
    build,
    call,
    podman,
    run,
    run_once,
    sandbox,
    started,
    succeed,
    wait_for,
)

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("image")]

API_KEY = "sys-3f1c9a7e5b2d4860"
MEGABYTE = 1_000_000


def _inspect(image: str) -> Any:
    return json.loads(podman("image", "inspect", image))[0]


def _in_image(program: str, *options: str) -> str:
    """Runs a Python program in a new container of the image, and returns its output."""
    done = run_once("-c", program, options=("--entrypoint=python", *options))
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- content --------------------------------------------------------------------------------


def test_the_dockerfile_passes_its_linter() -> None:
    succeed(TOOLS / "hadolint", "Dockerfile")


def test_the_image_configures_start_stop_and_health_check() -> None:
    image = _inspect(IMAGE)
    config = image["Config"]
    assert config["Entrypoint"] == ["env", "--block-signal=TERM,INT", "nanonets-proxy"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["User"] == "10001:10001"
    assert image["Healthcheck"]["Test"] == ["CMD", "nanonets-proxy", "healthcheck"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}


def test_its_labels_name_program_version_and_license() -> None:
    labels = _inspect(IMAGE)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "nanonets-proxy"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_runs_the_version_of_this_source() -> None:
    assert run_once("--version").stdout == f"nanonets-proxy {__version__}\n"


def test_the_build_context_has_only_the_necessary_files(tmp_path: Path) -> None:
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text(f"FROM {BASE}\nCOPY . /context\n")
    tag = "nanonets-proxy-test-context"
    podman("build", "--layers=false", f"--file={containerfile}", f"--tag={tag}", ".")
    try:
        program = (
            "import os; print('\\n'.join(os.path.join(d, f)[9:] for d, _, fs in os.walk('/context') for f in fs))"
        )
        files = podman("run", "--rm", "--network=none", tag, "python3", "-c", program).split()
    finally:
        run("podman", "rmi", "--force", tag)
    assert {file for file in files if not file.startswith("proxy/")} == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements/build.txt",
        "requirements/extra-aws.txt",
        "requirements/extra-pages.txt",
        "requirements/extra-redis.txt",
        "requirements/extra-vault.txt",
        "requirements/run.txt",
    }
    assert "proxy/nanonets_proxy/cli/main.py" in files
    assert not [file for file in files if "__pycache__" in file]


def test_all_files_belong_to_root_and_only_root_can_write() -> None:
    program = """
import os, stat
for top in ("/opt", "/etc/nanonets-proxy"):
    for directory, names, files in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in (*names, *files))]:
            entry = os.lstat(path)
            if entry.st_uid or entry.st_gid or (entry.st_mode & 0o022 and not stat.S_ISLNK(entry.st_mode)):
                print(path)
"""
    assert _in_image(program) == ""


def test_it_contains_neither_build_tools_nor_a_package_cache() -> None:
    program = """
import importlib.util, os
print([path for path in ("/src", "/opt/build", "/root/.cache", "/run/secrets") if os.path.exists(path)])
print([name for name in ("pip", "setuptools", "hatchling", "pytest") if importlib.util.find_spec(name)])
"""
    assert _in_image(program, "--user=0") == "[]\n[]\n"


def test_extras_of_the_package_are_a_build_argument() -> None:
    tag = "nanonets-proxy-test-extras"
    try:
        build("--build-arg=EXTRAS=aws,vault", f"--tag={tag}")
        program = "import boto3, hvac; print('both')"
        options = ("--rm", "--network=none", "--no-healthcheck", "--entrypoint=python")
        assert podman("run", *options, tag, "-c", program) == "both\n"
    finally:
        run("podman", "rmi", "--force", tag)


def test_an_unknown_extra_ends_the_build_with_a_sentence() -> None:
    with pytest.raises(
        AssertionError,
        match="EXTRAS: there is no extra called azure; use aws, pages, redis or vault, or several with commas",
    ):
        build("--build-arg=EXTRAS=azure", "--tag=nanonets-proxy-test-extras")


def test_it_contains_the_bytecode_of_every_module_that_serves() -> None:
    program = """
import os, sys
import nanonets_proxy.cli.main, nanonets_proxy.cli.commands
import nanonets_proxy.process.settings_reader, nanonets_proxy.process.serve
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
cached = [spec.cached for spec in specs if spec.has_location and spec.cached]
print(len(cached) > 300, [path for path in cached if not os.path.exists(path)])
"""
    assert _in_image(program) == "True []\n"


def test_the_bytecode_of_its_packages_does_not_depend_on_timestamps() -> None:
    # PEP 552: flags follow the magic number; 1 means a hash that is never checked.
    program = """
import importlib.util, os
for directory, _, files in os.walk("/opt/nanonets-proxy/lib"):
    for path in (os.path.join(directory, name) for name in files if name.endswith(".py")):
        with open(importlib.util.cache_from_source(path), "rb") as file:
            if file.read(8)[4:] != b"\\x01\\0\\0\\0":
                print(path)
"""
    assert _in_image(program) == ""


def test_it_adds_less_than_60_mb_to_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    size_bytes = _inspect(IMAGE)["Size"]
    added_bytes = size_bytes - _inspect(BASE)["Size"]
    with capsys.disabled():
        print(f"\nimage: {size_bytes / MEGABYTE:.0f} MB, {added_bytes / MEGABYTE:.0f} MB of these above its base")  # noqa: T201 - shown to the user of the tests
    assert added_bytes < 60 * MEGABYTE


# --- start -----------------------------------------------------------------------------


def test_with_defaults_it_becomes_healthy_without_a_shell_and_capabilities() -> None:
    no_shell = "--volume=/dev/null:/bin/sh:ro"
    with started("serve", "--sandbox", options=("--network=none", no_shell)) as container:
        assert container.event("started")["listen"] in (["0.0.0.0:8080"], ["0.0.0.0:8080", "[::]:8080"])
        assert "curl http://localhost:8080/api/v4/workflows\n" in container.logs()
        wait_for("a passing health check", container.is_healthy)
        assert container.inspect()["State"]["Health"]["Status"] == "healthy"
        status = dict(
            line.split(":\t", 1)
            for line in container.python("print(open('/proc/1/status').read())").splitlines()
            if line
        )
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def test_the_health_check_fails_if_no_proxy_responds() -> None:
    with started("sandbox", options=("--network=none",)) as container:
        container.event("sandbox_started")
        assert not container.is_healthy()


@pytest.mark.parametrize(
    ("options", "arguments", "sentence"),
    [
        ((), (), "no API key was given: "),
        (
            ("--env=NANONETS_PROXY_LISTN=x",),
            ("serve",),
            "NANONETS_PROXY_LISTN: unknown setting (environment); did you",
        ),
        ((), ("serve", "--sandbox", "--spool-dir=/opt"), "spool_dir: /opt cannot hold request bodies: "),
        (("--env=NANONETS_API_KEY=a:b",), (), "the API key of env:NANONETS_API_KEY has a colon in it"),
    ],
)
def test_an_invalid_setting_ends_it_with_one_sentence_and_exit_code_2(
    options: tuple[str, ...], arguments: tuple[str, ...], sentence: str
) -> None:
    done = run_once(*arguments, options=options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nanonets-proxy: {sentence}")
    assert done.stderr.count("\n") == 1


# --- service -----------------------------------------------------------------------------


def test_it_serves_the_sandbox_to_callers_without_a_key() -> None:
    with started("serve", "--sandbox", options=ON_HOST) as container:
        address = container.event("started")["listen"][0]
        status, body = call(address, "/api/v4/workflows")
    assert status == 200
    assert json.loads(body) == {"workflows": []}


def test_a_key_in_a_secret_file_is_used_and_not_revealed(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{API_KEY}\n")
    key_file.chmod(0o444)
    secret = f"--volume={key_file}:/run/secrets/nanonets_api_key:ro"
    with (
        sandbox(API_KEY) as upstream,
        started(options=(*ON_HOST, secret, f"--env=NANONETS_PROXY_UPSTREAM={upstream}")) as container,
    ):
        event = container.event("started")
        assert event["key"] == "file:/run/secrets/nanonets_api_key"
        assert call(event["listen"][0], f"/api/v4/workflows?api_key={API_KEY}")[0] == 200
        container.event("request")
        assert container.python(READ_ENVIRON) == ENVIRON_UNREADABLE
        shown = [
            json.dumps(container.inspect()),
            container.logs(),
            container.python("print(open('/proc/1/cmdline').read())"),
            call(event["admin_listen"][0], "/metrics")[1],
        ]
    forms = (API_KEY, base64.b64encode(f"{API_KEY}:".encode()).decode().rstrip("="))
    assert all(shown)
    assert not [form for form in forms for text in shown if form in text]


# --- end -------------------------------------------------------------------------------


def _started_with_upstream(upstream: str) -> Any:
    return started(
        options=(*ON_HOST, f"--env=NANONETS_PROXY_UPSTREAM={upstream}", f"--env=NANONETS_API_KEY={API_KEY}")
    )


def _in_background(address: str, responses: list[int]) -> threading.Thread:
    """Sends a GET in a thread, which appends the status to `responses`; 0 if the connection breaks."""

    def work() -> None:
        try:
            responses.append(call(address, "/api/v4/workflows")[0])
        except OSError:
            responses.append(0)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _wait_until_in_flight(admin: str) -> None:
    wait_for("a request in flight", lambda: "\nnanonets_proxy_in_flight 1.0\n" in call(admin, "/metrics")[1])


def test_after_sigterm_it_completes_the_request_in_flight_and_exits_with_0() -> None:
    responses: list[int] = []
    with sandbox(API_KEY, "--latency=2s") as upstream, _started_with_upstream(upstream) as container:
        event = container.event("started")
        caller = _in_background(event["listen"][0], responses)
        _wait_until_in_flight(event["admin_listen"][0])
        container.signal("TERM")
        assert container.exit_code(within_s=10) == 0
        caller.join()
        assert container.event("stopped")["cut_off"] == 0
    assert responses == [200]


def test_a_sigterm_right_after_the_start_ends_it() -> None:
    with started("serve", "--sandbox", options=("--network=none",)) as container:
        container.signal("TERM")
        assert container.exit_code(within_s=10) in (0, 128 + 15)


def test_a_second_sigterm_ends_it_immediately() -> None:
    responses: list[int] = []
    with sandbox(API_KEY, "--latency=20s") as upstream, _started_with_upstream(upstream) as container:
        event = container.event("started")
        caller = _in_background(event["listen"][0], responses)
        _wait_until_in_flight(event["admin_listen"][0])
        container.signal("TERM")
        container.event("draining")
        container.signal("TERM")
        assert container.exit_code(within_s=5) == 128 + 15
        caller.join()
    assert responses == [0]
