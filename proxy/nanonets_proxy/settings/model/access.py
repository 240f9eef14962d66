"""The settings of the boundary: who may call besides what the addresses say, what, how often, and how much."""

from typing import Annotated

from pydantic import Field

from nanonets_proxy.server.tls import ListenerTlsPolicy
from nanonets_proxy.settings.model.access_fields import BudgetRules, CallerTokens, PolicyRules, UserIds
from nanonets_proxy.settings.model.fields import OptionalPath, Token
from nanonets_proxy.settings.model.keys import KeySettings
from nanonets_proxy.settings.model.quantities import Count, Duration, Metavar, Switch


class BoundarySettings(KeySettings):
    """All of it is off, or wide, by default: the listeners' addresses are the boundary then."""

    caller_tokens: CallerTokens = Field(
        (),
        description="Who may call: NAME sha256:HEX, as `nanonets-proxy token NAME` writes it. From the first on, "
        "every caller needs a token, as Authorization: Bearer, or as the API key of a client. The name is the "
        "caller's in turns, budgets and log.",
    )
    caller_tokens_file: OptionalPath = Field(
        None, description="File with one such line for each token, watched for change."
    )
    caller_token_header: Token = Field(
        "", description="The request header that holds the token instead, and nothing else. Empty: Authorization."
    )
    allow_uids: UserIds = Field(
        (), description="Users, by number, that may call on unix sockets. Empty: all whom the socket's mode lets."
    )
    tls_cert: OptionalPath = Field(
        None, description="PEM file of the certificate that `listen` shows, watched for change. Empty: no TLS."
    )
    tls_key: OptionalPath = Field(None, description="PEM file of its private key.")
    tls_client_ca: OptionalPath = Field(
        None,
        description="PEM file of the authorities of client certificates. Each caller needs one then, or a token; "
        "the first URI or DNS name in it, or its common name, is the caller's.",
    )

    policy: PolicyRules = Field(
        (),
        description="What may be called: [CALLER:] allow|deny METHODS PATH, such as `allow GET|POST /api/v4/**`. A "
        "deny wins. A caller with allows of its own has these only; without any allow, what is not denied is "
        "allowed. Paths that could be read in two ways are refused.",
    )
    read_only: Switch = Field(default=False, description="Allow GET, HEAD and OPTIONS only.")
    daily_budget: BudgetRules = Field(
        (), description="Most requests of a caller in a day (UTC): 5000 for each, or billing: 5000 for one."
    )
    policy_dry_run: Switch = Field(
        default=False, description="Only log and count what policy, read_only and daily_budget would refuse."
    )

    max_connections: Annotated[int, Count(16, 1_000_000), Metavar("NUMBER")] = Field(
        12_000,
        description="Most connections of callers. A further one takes the place of the oldest without a request.",
    )
    max_connections_per_peer: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        1024, description="Most connections of one address, loopback and unix sockets apart."
    )
    body_timeout: Duration = Field(
        1800.0,
        description="Longest time that a request's body may take to come, however steadily it trickles.",
    )

    def requires_authentication(self) -> bool:
        """Whether nobody is served without a token or a client certificate."""
        return bool(self.caller_tokens or self.caller_tokens_file or self.tls_client_ca)

    def listener_tls(self) -> ListenerTlsPolicy | None:
        """None: callers speak plain HTTP."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        has_tokens = bool(self.caller_tokens or self.caller_tokens_file)
        return ListenerTlsPolicy(self.tls_cert, self.tls_key, self.tls_client_ca, required=not has_tokens)
