"""Settings of a fleet: replicas that share one rate limit."""

from pydantic import Field

from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import OptionalRedis, Text
from nanonets_proxy.settings.model.quantities import Switch


class FleetSettings(ProgramSettings):
    """Where the replicas meet, and which of them share a limit."""

    coordination: OptionalRedis = Field(
        None,
        description="URL of a Redis or Valkey server over which all replicas of this proxy share one "
        "rate limit, such as rediss://user:password@redis.internal:6379/0, redis+sentinel://host1,host2/main or "
        "redis+cluster://host1,host2. While the server is away, each replica uses its share of what is known. "
        "Empty: this proxy decides alone.",
    )
    coordination_account: Text = Field(
        "",
        description="Name of the Nanonets account, if proxies of several accounts use one server. Proxies with the "
        "same name, upstream and environment share their limits.",
    )
    coordination_required: Switch = Field(
        default=False,
        description="Report not ready at /readyz once the server of coordination has been away for 3 s, or at a "
        "start without it. Callers are served all the same.",
    )
