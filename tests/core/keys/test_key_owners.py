"""A key of one environment is not also that of another upstream."""

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.audience import Audience, AuthScheme
from nanonets_proxy.core.keys.key_owners import KeyOwners
from nanonets_proxy.core.net.addresses import Origin

API, OTHER = Origin("https", "app.nanonets.com", 443), Origin("https", "extraction-api.nanonets.com", 443)


def key(text: str, source: str, audience: Audience) -> ApiKey:
    return ApiKey.parse(text, source).bound_to(audience)


def test_environments_with_one_upstream_may_share_a_key() -> None:
    owners = KeyOwners()
    owners.add(key("s3cret", "env:A", Audience(API)))
    owners.add(key("s3cret", "file:/b", Audience(API)))
    owners.add(key("another", "env:C", Audience(OTHER, AuthScheme.BEARER)))


@pytest.mark.parametrize("audience", [Audience(OTHER), Audience(API, AuthScheme.BEARER)])
def test_a_key_for_two_upstreams_or_schemes_is_unusable_and_not_shown(audience: Audience) -> None:
    owners = KeyOwners()
    owners.add(key("s3cret", "env:A", Audience(API)))
    with pytest.raises(KeyUnusable) as caught:
        owners.add(key("s3cret", "file:/b", audience))
    assert str(caught.value) == (
        f"the API key of file:/b is for {audience.origin} ({audience.scheme}), and for {API} (basic) too (env:A): "
        "a key goes to one upstream, so each of these environments needs its own"
    )
