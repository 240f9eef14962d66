"""Settings of access control: authentication, access rules, budgets, connection limits."""

from typing import Annotated

from pydantic import Field

from nanonets_proxy.server.tls_policy import ListenerTlsPolicy
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import (
    AccessRules,
    BudgetRules,
    CallerTokens,
    HttpToken,
    OptionalPath,
    SecretPath,
    UserIds,
)
from nanonets_proxy.settings.model.quantities import Count, Duration, Metavar, Size, Switch


class AccessSettings(ProgramSettings):
    """With the defaults, only the listeners' addresses restrict callers."""

    caller_tokens: CallerTokens = Field(
        (),
        description="Callers and their tokens, each as NAME sha256:HEX; `nanonets-proxy token NAME` makes one. If "
        "any is set, every caller must send its token in Authorization, where a client puts the API key: as user "
        "name or password of Basic, as Bearer, or alone. NAME then names the caller in budgets, the queue and the "
        "log.",
    )
    caller_tokens_file: SecretPath = Field(
        None,
        description="File with one NAME sha256:HEX per line, instead of caller_tokens. The proxy reloads it when "
        "it changes.",
    )
    caller_token_header: HttpToken = Field(
        "",
        description="Request header that holds only the token, instead of Authorization. Empty: Authorization.",
    )
    allow_uids: UserIds = Field(
        (),
        description="User ids that may call on unix sockets. Empty: every user that the socket's mode allows.",
    )
    tls_cert: OptionalPath = Field(
        None,
        description="PEM file with the certificate for `listen`. The proxy reloads it when it changes. Empty: no "
        "TLS.",
    )
    tls_key: SecretPath = Field(None, description="PEM file with the private key of tls_cert.")
    tls_client_ca: OptionalPath = Field(
        None,
        description="PEM file with the authorities that sign client certificates. If set, every caller must show a "
        "client certificate, or a token if tokens are set. The certificate's first URI or DNS name, else its "
        "common name, names the caller.",
    )

    policy: AccessRules = Field(
        (),
        description="Rules of the form [CALLER:] allow|deny METHODS PATH, such as `allow GET|POST /api/v4/**`. A "
        "deny wins over every allow. If a caller has allow rules of its own, only those apply to it. Without any "
        "allow rule, everything that is not denied is allowed. Ambiguous paths are always rejected.",
    )
    read_only: Switch = Field(default=False, description="Allow only GET, HEAD and OPTIONS.")
    daily_budget: BudgetRules = Field(
        (),
        description="Maximum requests per day (UTC): `5000` for each caller, `billing: 20` for the caller billing.",
    )
    policy_dry_run: Switch = Field(
        default=False,
        description="Only log and count the requests that policy, read_only and daily_budget would reject.",
    )

    max_connections: Annotated[int, Count(16, 1_000_000), Metavar("NUMBER")] = Field(
        12_000,
        description="Maximum connections from callers. A new connection beyond it replaces an idle one, or one "
        "whose upload has stalled.",
    )
    max_connections_per_peer: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        1024, description="Maximum connections from one address. Loopback and unix sockets are exempt."
    )
    body_timeout: Duration = Field(1800.0, description="Maximum time to receive the whole body of a request.")
    min_body_rate: Size = Field(
        1024,
        description="Minimum rate of a request's body, in bytes per second, measured over 30 s of waiting for the "
        "caller. A slower body ends with a 408. 0: no minimum.",
    )

    def requires_authentication(self) -> bool:
        """Returns whether every caller must show a token or a client certificate."""
        return self.has_tokens() or self.tls_client_ca is not None

    def has_tokens(self) -> bool:
        """Returns whether a setting names callers' tokens."""
        return bool(self.caller_tokens) or self.caller_tokens_file is not None

    def listener_tls(self) -> ListenerTlsPolicy | None:
        """Returns how the listeners use TLS, or None for plain HTTP."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return ListenerTlsPolicy(self.tls_cert, self.tls_key, self.tls_client_ca, required=not self.has_tokens())
