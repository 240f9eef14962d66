"""Which GETs are identical: those for which the upstream would get the same, but for ids."""

from typing import Final

from nanonets_proxy.core.http.header_plans import HeaderPlans
from nanonets_proxy.core.http.headers import (
    FORWARDING_PREFIX,
    NOT_FORWARDED,
    PLAIN_CONNECTION_VALUES,
    nominated_fields,
    without_fields,
)
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.policy import HandlerPolicy

# They name one request among others and are never equal, but no server responds differently because of them.
_IDS: Final = frozenset(
    {
        *(b"x-request-id", b"x-correlation-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"uber-trace-id"),
        *(b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"baggage"),
        *(b"sentry-trace", b"x-datadog-trace-id", b"x-datadog-parent-id", b"x-datadog-tags"),
    }
)


Identical = tuple[str, bytes, bytes, str]
"""The target, the fields, the Host and the caller that identical GETs have in common."""


class Identity:
    """Compares the GETs of one environment."""

    def __init__(self, policy: HandlerPolicy, services: Services) -> None:
        own = {policy.credentials_header.lower().encode(), policy.cost_header.lower().encode()}
        dropped = NOT_FORWARDED | _IDS | own
        self._plans = HeaderPlans((b"connection",), frozenset(), dropped, FORWARDING_PREFIX, drops_lookalikes=True)
        self._keeps_host = policy.keeps_host
        self._pool = services.client.pool
        self.may_differ = _IDS | {b"traceparent", b"tracestate"}
        """The fields, in lower case, that the upstream gets and that identical GETs may differ in."""

    def of(self, context: RequestContext) -> Identical:
        """Returns a key that identical GETs without a body have in common."""
        section = context.request.section
        if section.compared_fields is None:
            section.compared_fields = self._compared_fields(section.names, section.values)
        # The caller counts if it shares no connection either.
        return (
            context.target,
            section.compared_fields,
            context.head.host if self._keeps_host else b"",
            context.record.caller if self._pool.per_caller else "",
        )

    def _compared_fields(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> bytes:
        """Returns the lines that the upstream gets of a header section, without ids."""
        plan = self._plans[names]
        (connection_at,) = plan.places
        if connection_at is not None and (plan.special or values[connection_at] not in PLAIN_CONNECTION_VALUES):
            names, values = without_fields(nominated_fields(names, values), names, values)
            plan = self._plans[names]
        return plan.template % values
