"""The sandbox's settings."""

from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import NoDecode, SettingsConfigDict

from nanonets_proxy.core.net.addresses import TcpListener
from nanonets_proxy.sandbox.policy import (
    HintStyle,
    LimitKind,
    LimitRule,
    LimitScope,
    SandboxPolicy,
    check_fault,
    parse_limit,
)
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import Listeners, ListOf, SandboxKeys, parse_string
from nanonets_proxy.settings.model.quantities import Count, Delay, Metavar, OneOf, Share, Switch, ValueOf


def _limit(value: Any) -> LimitRule | None:
    return parse_limit(parse_string(value))


class SandboxSettings(ProgramSettings):
    """All settings of the simulated API. `serve --sandbox` ignores `listen` and `api_keys`."""

    model_config = SettingsConfigDict(env_prefix="NANONETS_SANDBOX_", title="nanonets-proxy sandbox")

    listen: Listeners = Field(
        (TcpListener("localhost", 8090),),
        description="Addresses to serve on: host:port, [::1]:8090, :8090 for all interfaces, or unix:/path.",
    )
    api_keys: SandboxKeys = Field(
        (), description="API keys to accept. Empty: the sandbox makes a key and prints it at start."
    )
    limit: Annotated[
        LimitRule | None,
        ValueOf(_limit, {"type": "string"}, lambda rule: "none" if rule is None else str(rule)),
        NoDecode,
        Metavar("LIMIT"),
    ] = Field(LimitRule(60, 60.0), description="Requests per time, such as 20/60s. none: no limit.")
    limit_kind: Annotated[LimitKind, OneOf(tuple(LimitKind), LimitKind), Metavar("KIND")] = Field(
        LimitKind.FIXED_WINDOW, description="How the limit counts: fixed, sliding, bucket or concurrency."
    )
    limit_scope: Annotated[LimitScope, OneOf(tuple(LimitScope), LimitScope), Metavar("SCOPE")] = Field(
        LimitScope.DOCUMENTED,
        description="Requests that the limit covers. documented: as Nanonets documents; account: all v4 requests; "
        "v2-predict: the OCR predictions of each v2 model; all: all requests.",
    )
    hint: Annotated[HintStyle, OneOf(tuple(HintStyle), HintStyle), Metavar("PLACE")] = Field(
        HintStyle.BODY, description="Where a 429 says when to try again: body, header, both or none."
    )
    latency: Delay = Field(0.0, description="Delay added to every response, except for 401s and 429s.")
    failure_rate: Share = Field(0.0, description="Share of requests that fail with 503, from 0 to 1.")
    faults: Annotated[tuple[str, ...], ListOf(check_fault), NoDecode, Metavar("FAULT")] = Field(
        (),
        description="What happens to the first requests, in order: a status from 400 to 599, disconnect, or ok.",
    )
    pending_polls: Annotated[int, Count(0, 1_000_000), Metavar("NUMBER")] = Field(
        1, description="Number of polls for which an asynchronous document stays pending."
    )

    etags: Switch = Field(
        default=False,
        description="Give each 200 to a GET an ETag, and send a 304 to a request whose condition names it.",
    )

    def policy(self, api_keys: tuple[str, ...]) -> SandboxPolicy:
        """Returns the behaviour of a simulated API that accepts `api_keys`."""
        return SandboxPolicy(
            api_keys=api_keys,
            limit=self.limit,
            limit_kind=self.limit_kind,
            limit_scope=self.limit_scope,
            hint=self.hint,
            latency_s=self.latency,
            failure_rate=self.failure_rate,
            faults=self.faults,
            pending_polls=self.pending_polls,
            etags=self.etags,
        )
