"""The ports of a request: what it needs of keys, jobs, traces, the usage ledger, and of other requests."""

from typing import TYPE_CHECKING, Protocol

from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import KeyHistory, KeyUse, KeyVerdict, Ruling
from nanonets_proxy.errors import RateLimited
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.received import Received

if TYPE_CHECKING:
    from nanonets_proxy.request.context import RequestContext


class KeyProvider(Protocol):
    """The keys of one environment. `keys/key_manager.py` implements it."""

    def has_usable_key(self) -> bool:
        """Returns whether requests can be sent; if not, they must be held."""

    def reason_of_401(self) -> str:
        """Returns what a 401 of the upstream concerns, for operators and callers."""

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float:
        """Waits until the request can be sent, or until `deadline_s`. Returns the loop's time then."""

    def choose_fast(self) -> KeyUse | None:
        """Returns the key for a request without a rejection; None: call `choose`."""

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """Returns the key for any request. Before `deadline_s` it may return None: then hold the request first."""

    def accept_fast(self, use: KeyUse) -> bool:
        """Ends a use whose key was accepted. Returns False if `settle` must decide."""

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> Ruling:
        """Ends a use, notes a rejection of the key in `history`, and returns what happens to the request."""

    async def wait_for_ruling(self, use: KeyUse, history: KeyHistory, deadline_s: float) -> Ruling:
        """Waits until a ruling to WAIT becomes RELAY or SEND_AGAIN, or until `deadline_s`."""


class JobSteps(Protocol):
    """A durable job that is forwarded: records each step before it counts."""

    def waits_on(self, error: RateLimited) -> bool:
        """Returns whether the job waits on, instead of ending with the upstream's latest 429."""

    async def begin(self) -> None:
        """Records that the request is being sent, before its first byte is."""

    def send_again(self) -> None:
        """Records that the request was not executed, and waits to be sent again."""


class JobTaker(Protocol):
    """Takes the requests that concern durable jobs (docs/jobs.md); `jobs/endpoint.py` implements it."""

    def owns(self, target: str) -> bool:
        """Returns whether a target belongs to the jobs instead of the upstream."""

    async def take(self, context: "RequestContext") -> bool:
        """Responds to a request about jobs, or for a job. Returns False for a request that is to be forwarded.

        Raises a ProxyError or ConnectionError.
        """


class Tracer(Protocol):
    """Decides which requests are sampled, and exports their spans."""

    def samples(self, trace: TraceContext | None) -> bool:
        """Returns whether a request is sampled; `trace` is the caller's."""

    def observe(self, request: AccessRecord) -> None:
        """Takes the record of a sampled request, once it is finished."""


class AttemptNotes(Protocol):
    """Notes the attempts of a request in the usage ledger."""

    status: int
    """The status of the current attempt's response; 0: none has come."""

    def begin(self) -> None: ...
    def end(self) -> None: ...


class Sharing(Protocol):
    """What a request has to do with identical ones, or with GETs of what it writes (`coalescing/`)."""

    @property
    def concerns_others(self) -> object:
        """False, or empty, while it concerns no other request. Then the methods need not be called."""

    @property
    def is_wanted(self) -> bool:
        """Whether other callers wait for the response."""

    def begin_attempt(self, context: "RequestContext", key: ApiKey) -> None:
        """Notes that the request is being sent with a key. May replace the context's `head`."""

    async def receive(self, context: "RequestContext", received: Received) -> Received:
        """Takes note of the response before it is relayed. Returns it with the part of its body that was read.

        May return another response in place of a 304.
        """

    def end_attempt(self, context: "RequestContext") -> None:
        """Notes that an attempt has ended, with or without a response."""
