"""Settings of the listeners: their addresses, and the peers that may call."""

from pydantic import Field

from nanonets_proxy.core.net.addresses import TcpListener
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import (
    CallerTokens,
    HostPatterns,
    HttpToken,
    Listeners,
    Networks,
    OptionalListeners,
)
from nanonets_proxy.settings.model.quantities import Duration, Switch


class ListenerSettings(ProgramSettings):
    """The callers' listener and the admin listener."""

    listen: Listeners = Field(
        (TcpListener("localhost", 8080),),
        description="Addresses for callers: host:port, [::1]:8080, :8080 for all interfaces, or "
        "unix:/path?mode=0660&owner=app:team. localhost stands for 127.0.0.1 and ::1; it and :8080 include IPv6 "
        "only if the machine has it. Port 0 takes a free port, which the event `started` shows.",
    )
    admin_listen: OptionalListeners = Field(
        (TcpListener("localhost", 8081),),
        description="Addresses of the admin listener, in the same forms: the dashboard, /status, /metrics, /livez, "
        "/readyz, /reload and /restart. off: none.",
    )
    admin_allow_from: Networks = Field(
        (),
        description="Networks that may use the admin listener, instead of those in allow_from. Loopback and unix "
        "sockets may always use it.",
    )
    admin_tokens: CallerTokens = Field(
        (),
        description="Tokens for the admin listener, each as NAME sha256:HEX; `nanonets-proxy token NAME` makes "
        "one. If any is set, requests from other machines must send one, as Authorization: Bearer or as the user "
        "name of Basic. /livez and /readyz need none, but show no details without it.",
    )
    admin_quit: Switch = Field(
        default=False,
        description="Accept POST /quitquitquit on the admin listener: it drains the proxy at once, and the process "
        "ends. Every caller of the admin listener may send it.",
    )
    allow_from: Networks = Field(
        (),
        description="Networks that may call, such as 10.0.0.0/8. Loopback and unix sockets may always call. A "
        "listener on any other address needs this setting, unless callers have tokens or certificates.",
    )
    allowed_hosts: HostPatterns = Field(
        (),
        description="Further host names and addresses that a request's Host may have; *.example.com matches every "
        "name below example.com. Always allowed: localhost, names below it, loopback addresses, "
        "host.docker.internal, host.containers.internal and the names in `listen`. On a connection to another "
        "address than loopback also: that address, names without a dot, names below .local, .internal, .svc and "
        ".home.arpa, and names whose last label is no top-level domain, such as service.namespace in Kubernetes.",
    )
    caller_header: HttpToken = Field(
        "",
        description="Request header that names the caller, for fair queueing and the log. Callers may choose any "
        "name, so daily_budget, and policy rules for one caller, cannot be set with it. Empty: the source address "
        "names the caller.",
    )
    keep_alive: Duration = Field(3630.0, description="How long an idle connection from a caller stays open.")
    head_timeout: Duration = Field(
        30.0, description="Maximum time from the first byte of a request to the end of its header section."
    )
