"""Fixtures that several test folders share."""

import gc
import importlib.util
import os
import resource
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.eventually import WAIT_S

# A busy machine pauses an example for longer than hypothesis's 0.2 s, and that is no fault of the program.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Each run tries the same examples, so that a change alone turns the suite red. `make explore` looks for new ones.
settings.register_profile("repeat", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeat")


def pytest_configure() -> None:
    """Gives each run the same limit of open files and the same signals, however it was started."""
    # `serve` raises its limit too. Otherwise the proxies within the tests lower theirs.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A script starts its background commands with SIGINT ignored. The programs under test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Hides the collected tests from the garbage collector: they last, and each of its runs would read them all."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Returns one worker more than there are processors: tests of processes and timers wait half of their time."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, 4) + 1


@pytest.fixture
def one_day() -> None:
    """Waits for midnight, UTC, if it is near: daily budgets and the usage of today begin anew then."""
    left_s = -time.time() % 86_400
    if left_s < WAIT_S:
        time.sleep(left_s + 0.01)


@pytest.fixture
def run_every_client_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """`run(base_url, api_key)` makes every call of the client `nanonetsclient`. It blocks: run it in a thread."""
    monkeypatch.setenv("NO_PROXY", "*")  # the client obeys proxy variables, but the tests use loopback
    path = Path(__file__).parent / "support" / "commands" / "nanonetsclient_calls.py"
    spec = importlib.util.spec_from_file_location("nanonetsclient_calls", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda base_url, api_key: module.run_every_call(base_url, api_key, tmp_path)
