"""Settings of a fleet: replicas that share one rate limit."""

from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_settings import NoDecode

from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.settings.model.access import AccessSettings
from nanonets_proxy.settings.model.fields import Text, secret_string
from nanonets_proxy.settings.model.quantities import Metavar, Switch


def _redis_or_none(value: Any) -> RedisAddress | None:
    text = secret_string(value)
    return RedisAddress.parse(text) if text else None


_OptionalRedis: TypeAlias = Annotated[
    RedisAddress | None,
    PlainValidator(_redis_or_none),
    PlainSerializer(lambda value: str(value or ""), return_type=str),
    WithJsonSchema({"type": "string"}),
    NoDecode,
    Metavar("URL"),
]


class FleetSettings(AccessSettings):
    """Where the replicas meet, and which of them share a limit."""

    coordination: _OptionalRedis = Field(
        None,
        description="Experimental. URL of a Redis or Valkey server over which all replicas of this proxy share one "
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
        description="Report not ready at /readyz while the server of coordination is away. Callers are served all "
        "the same.",
    )
