"""The form of each message. A message has it before anything acts on it.

A replica may be defective, and anybody with the password of Redis can send messages. If a message turned out to be
malformed while a replica acts on it, half of a change would stay behind. JSON has no NaN and no infinity, so a
number within its bounds is finite. Unknown fields are ignored.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from nanonets_proxy.admission.fleet.beliefs import NAME
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.core.ratelimit.fleet.arrivals import MAX_SENDERS
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import MAX_ANNOUNCED_S
from nanonets_proxy.core.ratelimit.scopes.static_limits import MAX_COUNT, MAX_PERIOD_S, PAGES, REQUESTS
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, load
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason

MAX_REPLICAS: Final = MAX_SENDERS
NUMBERS: Final = 2**53
"""All numbers of claims, epochs and stamps are smaller: the scripts in Redis count in floats."""
_MAX_PLACES: Final = 100_000
_MAX_WAIT_S: Final = 1e10
_MAX_COST: Final = 1e6
_MAX_USE: Final = 32  # twice as many groups as a leader tells of a scope
_MAX_REPORT_S: Final = 60.0  # a gate waits for at most 30 s
_MAX_NAME: Final = 64

Check = Callable[[Any], bool]


def is_number(value: object) -> bool:
    """Returns whether a value may be a number of a claim, an epoch or a stamp."""
    return type(value) is int and 0 <= value < NUMBERS


def is_name(value: object) -> bool:
    """Returns whether a value may be the name of a replica, or the hash of another name."""
    return type(value) is str and len(value) <= _MAX_NAME and value.isascii() and value.isprintable()


def is_between(least: float, most: float) -> Check:
    """Returns the check of a number with bounds."""
    return lambda value: type(value) in (int, float) and least <= value <= most


def _is_count(most: int) -> Check:
    return lambda value: type(value) is int and 1 <= value <= most


def _is_one_of(*values: str) -> Check:
    return lambda value: type(value) is str and value in values


def _is_none_or(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_list(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _is_row(*checks: Check) -> Check:
    return lambda value: (
        type(value) is list
        and len(value) == len(checks)
        and all(check(each) for check, each in zip(checks, value, strict=True))
    )


def _is_map(check: Check) -> Check:
    return lambda value: type(value) is dict and all(is_name(key) and check(each) for key, each in value.items())


def _is_object(value: object) -> bool:
    return type(value) is dict


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _has_each_number_once(rows: list[Any]) -> bool:
    return len({row[0] for row in rows}) == len(rows)


_is_span = is_between(0, MAX_PERIOD_S)
_is_wait = is_between(-_MAX_WAIT_S, _MAX_WAIT_S)
_is_cost = is_between(1, _MAX_COST)
_is_limit = _is_row(_is_count(MAX_COUNT), is_between(1e-6, MAX_PERIOD_S), _is_one_of(REQUESTS, PAGES))
_is_told = _is_row(is_number, _is_span, _is_object, _is_count(MAX_REPLICAS), _is_span)
_is_grant = _is_row(is_name, _is_span, _is_cost)
_is_held = _is_row(is_number, is_name, is_name, _is_wait, _is_cost, _is_span, _is_bool)
_is_closure = _is_row(_is_list(_is_row(_is_span, _is_cost, is_number)), _is_span)
_is_use = _is_list(_is_row(_is_span, is_between(1, MAX_COUNT)))
_numbers = _is_list(is_number)


class _Form(NamedTuple):
    """The checks of the fields of a message."""

    needed: dict[str, Check]
    optional: dict[str, Check]


_OF_CLAIM: Final = _Form({"n": is_number}, {})
_FORMS: Final = {
    "beat": _Form(
        {"replicas": _is_count(MAX_REPLICAS)},
        {
            "beliefs": _is_object,
            "gathers": _is_bool,
            "others": _is_count(MAX_REPLICAS),
            "use": _is_map(lambda value: _is_use(value) and len(value) <= _MAX_USE),
            "told": _is_told,
        },
    ),
    "granted": _Form({"log": _is_list(_is_grant)}, {}),
    "resign": _Form({"log": _is_list(_is_grant)}, {}),
    "here": _Form({}, {}),
    "hello": _Form(
        {
            "places": _is_count(_MAX_PLACES),
            "scopes": _is_map(_is_closure),
            "held": lambda value: _is_list(_is_held)(value) and _has_each_number_once(value),
            "refused": _numbers,
            "logged": _is_list(_is_row(is_number, is_number)),
            "beliefs": _is_told,
        },
        {},
    ),
    "welcome": _Form({"log": _is_list(_is_grant)}, {}),
    "who": _Form({}, {}),
    "bye": _Form({}, {}),
    "ask": _Form(
        {
            "n": is_number,
            "scope": is_name,
            "lane": is_name,
            "kind": is_name,
            "wait": _is_wait,
            "urgency": lambda value: type(value) is int and 0 <= value <= 7,
            "cost": _is_cost,
        },
        {},
    ),
    "leave": _OF_CLAIM,
    "grant": _Form({"n": is_number}, {"report_in": is_between(0, _MAX_REPORT_S), "again": _is_bool}),
    "wait": _OF_CLAIM,
    "lost": _OF_CLAIM,
    "refuse": _Form(
        {"n": is_number, "reason": _is_one_of(*(each.value for each in Reason)), "retry": _is_span},
        {"position": is_number},
    ),
    "sent": _OF_CLAIM,
    "unanswered": _OF_CLAIM,
    "end": _Form(
        {"n": is_number, "how": _is_one_of(*(each.value for each in Outcome))},
        {"hint": _is_none_or(_is_span), "quota": _is_bool},
    ),
    "cost": _Form({"n": is_number, "cost": _is_cost}, {}),
    "advice": _Form(
        {
            "n": is_number,
            "advice": _is_row(_is_none_or(is_number), is_between(0, MAX_ANNOUNCED_S), _is_none_or(_is_limit)),
        },
        {},
    ),
    "alive": _Form({"places": _is_count(_MAX_PLACES), "held": _numbers, "paused": _numbers, "waits": _numbers}, {}),
    "used": _Form({"counts": _is_list(_is_row(is_name, is_number, is_name, is_number, is_number))}, {}),
}


def read(message: Message) -> str:
    """Checks a message, and reads the beliefs in it. Raises ValueError if a field is missing or has another form.

    Returns why beliefs were left out; empty: none were. Without them, the message still says how to act together.
    """
    what = message.get("t")
    form = _FORMS.get(what) if isinstance(what, str) else None
    if form is None:
        raise ValueError(f"unknown message {str(what)[:_MAX_NAME]!r}")
    for name, check in form.needed.items():
        if name not in message or not check(message[name]):
            raise ValueError(f"{what}: {name} is {'malformed' if name in message else 'missing'}")
    for name, check in form.optional.items():
        if name in message and not check(message[name]):
            raise ValueError(f"{what}: {name} is malformed")
    if ("others" in message) != ("told" in message):
        raise ValueError(f"{what}: others without told, or told without others")
    return _read_beliefs(message)


def _read_beliefs(message: Message) -> str:
    """Replaces the documents of beliefs by their scopes."""
    left_out = ""
    if message["t"] == "beat" and "beliefs" in message:
        scopes, left_out = _scopes(message.pop("beliefs"))
        if not left_out:
            message["beliefs"] = scopes
    told = "beliefs" if message["t"] == "hello" else "told"
    if told in message:
        epoch, age_s, document, *leader = message[told]
        scopes, left_out = _scopes(document)
        message[told] = epoch, age_s, scopes, *leader
    return left_out


def _scopes(document: object) -> tuple[list[ScopeSnapshot], str]:
    """Returns the scopes of beliefs, and why they cannot be read."""
    try:
        scopes, _ = load(document, NAME, 0.0)
    except ValueError as error:
        return [], f"its limits cannot be read: {error}"
    if not all(is_name(scope.scope) for scope in scopes):
        return [], "its limits cannot be read: the name of a scope is malformed"
    return scopes, ""
