"""Permits of forwarded requests: each is settled once, however a request ends. Gate and waiting room are real."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.http.retry import Retries, RetryPolicy
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.audience import Audience
from nanonets_proxy.core.keys.key_records import Ruling
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import ShuttingDown
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.forward import Forwarder
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.server.connection.body_times import BodyTimes
from nanonets_proxy.upstream.errors import UpstreamRefused, UpstreamTimeout
from nanonets_proxy.upstream.response_head import ResponseHead

ORIGIN = Origin("http", "upstream.example", 80)

Result = int | BaseException | None
"""The end of one sending: a status, an error, or None: no end until the task is cancelled."""


class Keys:
    """Has one key, which a test may withhold."""

    def __init__(self) -> None:
        self.withheld = 0
        self.open_uses = 0
        self.later_ruling = Ruling.RELAY

    def has_usable_key(self) -> bool:
        return True

    def choose_fast(self) -> Any:
        return None

    def choose(self, _history: Any, _deadline_s: float) -> Any:
        if self.withheld:
            self.withheld -= 1
            return None
        self.open_uses += 1
        return SimpleNamespace(record=SimpleNamespace(key=ApiKey.parse("key", "test").bound_to(Audience(ORIGIN))))

    def reason_of_401(self) -> str:
        return ""

    def accept_fast(self, _use: Any) -> bool:
        return False

    def settle(self, _use: Any, _verdict: Any, history: Any) -> Ruling:
        """A rejected key is final from the second time on: another key works first."""
        self.open_uses -= 1
        if history is None:
            return Ruling.RELAY
        history.rejections += ((None, 0),)
        return Ruling.RELAY if len(history.rejections) > 1 else Ruling.SEND_AGAIN

    async def wait_for_ruling(self, *_: Any) -> Ruling:
        return self.later_ruling


class Client:
    """Plays the upstream: gives the results one after another."""

    def __init__(self, results: list[Result]) -> None:
        self.results = results
        self.open_connections = 0

    async def send(self, _request: Any) -> Any:
        result = self.results.pop(0)
        if result is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(result, BaseException):
            raise result
        self.open_connections += 1
        head = ResponseHead()
        head.has_advice, head.is_chunked, head.content_type, head.lines = False, False, None, None
        head.status, head.reason, head.names, head.values, head.body_length = result, b"", (), (), 0  # type: ignore[assignment]  # a status by now
        connection = SimpleNamespace(read_nowait=lambda: b"", is_complete=True, trailers=[])
        return connection, head

    def release(self, _connection: Any) -> None:
        self.open_connections -= 1


class Response:
    """Takes the response for the caller, or fails as if the caller were lost."""

    forms: Any = None
    echoed = False

    def __init__(self, *, caller_is_lost: bool = False) -> None:
        self.caller_is_lost = caller_is_lost
        self.statuses: list[int] = []

    def frame(self, _head: Any, _may_stay_open: bool) -> bytes:
        return b""

    def begin(self, _connection: Any, head: ResponseHead, _lines: bytes, _body_start: bytes) -> bool:
        if self.caller_is_lost:
            raise ConnectionResetError
        self.statuses.append(head.status)
        return True

    def send_interim(self, _head: Any) -> None: ...


class Scene:
    """A forwarder whose gate has one place in flight, and the outcomes of all settled permits."""

    def __init__(self, *results: Result, caller_is_lost: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(GatePolicy(max_in_flight=1, max_waiting=10, backoff_first_s=0.001), lambda: 0.0)
        self.room = WaitingRoom(self.gate, self.loop)
        self.keys, self.client = Keys(), Client(list(results))
        self.response = Response(caller_is_lost=caller_is_lost)
        self.outcomes: list[Outcome] = []
        settle = self.gate.settle

        def note_and_settle(ticket: Ticket, outcome: Outcome, *rest: Any, **options: Any) -> None:
            self.outcomes.append(outcome)
            settle(ticket, outcome, *rest, **options)

        self.gate.settle = note_and_settle  # type: ignore[method-assign, assignment]  # the real one follows
        metrics = SimpleNamespace(
            throttled=SimpleNamespace(inc=int),
            retries=SimpleNamespace(inc=int),
            replays=SimpleNamespace(labels=lambda _: SimpleNamespace(inc=int)),
            observe_forecast=lambda *_: None,
        )
        services: Any = SimpleNamespace(
            origin=ORIGIN,
            waiting_room=self.room,
            keys=self.keys,
            client=self.client,
            retries=Retries(RetryPolicy(retries=1, backoff_s=0.001), lambda: 1.0),
            metrics=metrics,
            ledger=None,
            unexpected=None,
        )
        self.forwarder = Forwarder(HandlerPolicy(60.0, 60.0, BodyTimes(60.0, 60.0, 0)), services, self.loop)

    def forward(self) -> "asyncio.Task[None]":
        transport = SimpleNamespace(is_reading=lambda: True)
        connection = SimpleNamespace(transport=transport)
        request: Any = SimpleNamespace(method="GET", target="/x", connection=connection)
        head: Any = SimpleNamespace(
            prefer=(), priority=(), expect_continue=False, body_length=0, fields=b"", host=b"localhost"
        )
        response: Any = self.response
        context = RequestContext(request, AccessRecord(request, "caller"), response, head, "/x", b"GET /x")
        return asyncio.create_task(self.forwarder.forward(context))

    def assert_nothing_is_open(self) -> None:
        assert (self.gate.in_flight, self.gate.waiting) == (0, 0)
        assert (self.keys.open_uses, self.client.open_connections) == (0, 0)
        assert not self.client.results


@pytest.fixture
async def scene() -> AsyncIterator[Callable[..., Scene]]:
    """Makes scenes, and checks at the end that none has left anything open."""
    scenes: list[Scene] = []

    def make(*results: Result, **options: Any) -> Scene:
        scenes.append(Scene(*results, **options))
        return scenes[-1]

    yield make
    for made in scenes:
        made.assert_nothing_is_open()


@pytest.mark.parametrize(
    ("results", "outcomes"),
    [
        ([200], [Outcome.SERVED]),
        ([404], [Outcome.SERVED]),
        ([429, 200], [Outcome.THROTTLED, Outcome.SERVED]),
        ([429, 429, 200], [Outcome.THROTTLED, Outcome.THROTTLED, Outcome.SERVED]),
        ([503, 200], [Outcome.FAILED, Outcome.SERVED]),
        ([503, 503], [Outcome.FAILED, Outcome.SERVED]),
        ([UpstreamRefused("refused"), 200], [Outcome.FAILED, Outcome.SERVED]),
        ([401, 200], [Outcome.SERVED]),
        ([401, 401], [Outcome.KEY_REJECTED]),
        ([401, 429, 200], [Outcome.THROTTLED, Outcome.SERVED]),
    ],
    ids=str,
)
async def test_a_relayed_request_settles_each_of_its_permits_once(
    scene: Callable[..., Scene], results: list[Result], outcomes: list[Outcome]
) -> None:
    made = scene(*results)
    await made.forward()
    assert made.outcomes == outcomes
    assert made.response.statuses == [results[-1]]


@pytest.mark.parametrize(
    ("results", "outcomes"),
    [
        ([UpstreamTimeout("late")], [Outcome.FAILED]),
        ([UpstreamRefused("refused"), UpstreamRefused("refused")], [Outcome.FAILED, Outcome.FAILED]),
        ([401, UpstreamTimeout("late")], [Outcome.FAILED]),
        ([ZeroDivisionError()], [Outcome.FAILED]),
    ],
    ids=str,
)
async def test_an_error_settles_the_permit_and_is_raised(
    scene: Callable[..., Scene], results: list[Result], outcomes: list[Outcome]
) -> None:
    made = scene(*results)
    with pytest.raises((UpstreamTimeout, UpstreamRefused, ZeroDivisionError)):
        await made.forward()
    assert made.outcomes == outcomes


async def test_a_lost_caller_settles_the_permit_of_its_response(scene: Callable[..., Scene]) -> None:
    made = scene(200, caller_is_lost=True)
    with pytest.raises(ConnectionResetError):
        await made.forward()
    assert made.outcomes == [Outcome.SERVED]


async def test_a_request_held_for_a_key_returns_its_permit_unused(scene: Callable[..., Scene]) -> None:
    made = scene(200)
    made.keys.withheld = 1
    await made.forward()
    assert made.outcomes == [Outcome.UNUSED, Outcome.SERVED]


async def test_a_rejected_key_without_a_successor_returns_a_permit_that_was_used(
    scene: Callable[..., Scene],
) -> None:
    made = scene(401, 200)

    def reject(*_: Any) -> Ruling:
        made.keys.open_uses -= 1
        made.keys.withheld = 1 if made.client.results else 0
        return Ruling.SEND_AGAIN if made.client.results else Ruling.RELAY

    made.keys.settle = reject  # type: ignore[method-assign, assignment]  # no other key follows
    await made.forward()
    assert made.outcomes == [Outcome.FAILED, Outcome.SERVED]


@pytest.mark.parametrize(
    ("later_ruling", "outcomes", "status"),
    [
        (Ruling.RELAY, [Outcome.KEY_REJECTED], 401),
        (Ruling.SEND_AGAIN, [Outcome.KEY_REJECTED, Outcome.SERVED], 200),
    ],
)
async def test_a_kept_401_occupies_no_permit(
    scene: Callable[..., Scene], later_ruling: Ruling, outcomes: list[Outcome], status: int
) -> None:
    made = scene(401, 200)
    made.keys.later_ruling = later_ruling

    def wait(*_: Any) -> Ruling:
        made.keys.open_uses -= 1
        return Ruling.WAIT if len(made.client.results) == 1 else Ruling.RELAY

    made.keys.settle = wait  # type: ignore[method-assign, assignment]  # the keyring cannot tell yet
    await made.forward()
    assert made.outcomes == outcomes
    assert made.response.statuses == [status]
    made.client.results.clear()


@pytest.mark.parametrize("turns", range(6))
async def test_a_request_cancelled_at_any_time_settles_its_permit(scene: Callable[..., Scene], turns: int) -> None:
    made = scene(None)
    task = made.forward()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    made.client.results.clear()
    assert made.outcomes == ([Outcome.FAILED] if turns else [])


async def test_a_request_cancelled_between_its_grant_and_its_turn_hands_the_permit_back(
    scene: Callable[..., Scene],
) -> None:
    made = scene(None)
    first, second = made.forward(), made.forward()
    await asyncio.sleep(0)
    assert (made.gate.in_flight, made.gate.waiting) == (1, 1)
    first.cancel()
    await asyncio.sleep(0)  # the first task ends: its permit is granted to the second, which has not run since
    assert (made.gate.in_flight, made.gate.waiting) == (1, 0)
    second.cancel()
    await asyncio.wait([first, second])
    assert second.cancelled()
    assert made.outcomes == [Outcome.FAILED, Outcome.UNUSED]


async def test_a_waiting_request_that_is_rejected_has_no_permit_to_settle(scene: Callable[..., Scene]) -> None:
    made = scene(None)
    first, second = made.forward(), made.forward()
    await asyncio.sleep(0)
    made.room.close()
    with pytest.raises(ShuttingDown):
        await second
    first.cancel()
    await asyncio.wait([first])
    assert made.outcomes == [Outcome.FAILED]
