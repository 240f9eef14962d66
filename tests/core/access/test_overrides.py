"""Names that make some servers use another method or path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.overrides import has_overriding_parameter, is_overriding_field

OVERRIDING_FIELDS = [
    *("base-url", "http-url", "method", "request-uri", "url", "x-arr-original-url", "x-envoy-original-path"),
    *("x-forwarded-method", "x-forwarded-path", "x-forwarded-uri", "x-http-destinationurl", "x-http-method"),
    *("x-http-method-override", "x-http-path-override", "x-httpmethodoverride", "x-method", "x-method-override"),
    *("x-ms-original-url", "x-original-method", "x-original-path", "x-original-uri", "x-original-url", "x-path"),
    *("x-override-url", "x-proxy-url", "x-real-path", "x-replaced-path", "x-request-uri", "x-rewrite-uri"),
    *("x-rewrite-url", "x-script-name", "x-tunneled-verb", "x-verb-override"),
]
USUAL_FIELDS = [
    *("accept", "access-control-request-method", "content-length", "content-location", "host", "link", "origin"),
    *(
        "prefer",
        "referer",
        "traceparent",
        "upgrade-insecure-requests",
        "user-agent",
        "x-api-key",
        "x-forwarded-for",
    ),
    *("x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto", "x-real-ip", "x-request-id"),
    *("x-requested-with", "x-url-scheme", "x"),
]


@pytest.mark.parametrize("name", OVERRIDING_FIELDS)
@pytest.mark.parametrize("separator", ["-", "_", ".", "", "!-"])
def test_a_field_that_overrides_the_method_or_path_is_recognised(name: str, separator: str) -> None:
    assert is_overriding_field(name.replace("-", separator).encode())


def test_the_length_of_a_name_does_not_matter() -> None:
    assert is_overriding_field(b"x" + b"-" * 10_000 + b"method")
    assert not is_overriding_field(b"x" * 10_000)


@pytest.mark.parametrize("name", USUAL_FIELDS)
def test_a_usual_field_overrides_nothing(name: str) -> None:
    assert not is_overriding_field(name.encode())


@pytest.mark.parametrize(
    "query",
    [
        *("_method=DELETE", "a=b&_METHOD=x", "a;_method", "_method[]=x", "_method[a]=x", "+_method=x", "__method"),
        *("%5fmethod=", "%255Fmethod=", "%25255Fmethod=", "_%6dethod", "_method%00=x", "%EF%BC%BFmethod=x"),
        *(".method=x", "-method=x", "$method=x", "$httpMethod=x", "_http_method=x", "_url=/x", "_path=/x"),
        *("X-HTTP-Method-Override=x", "x_http_method_override", "x.http.method", "x%2Dmethod", "method_override=x"),
        *("http_method=x", "methodOverride", "_verb=x"),
        pytest.param("%20" * 1000 + "_method", id="after a thousand spaces"),
    ],
)
def test_a_parameter_that_overrides_the_method_or_path_is_recognised(query: str) -> None:
    assert has_overriding_parameter(f"/x?{query}")
    assert has_overriding_parameter(f"/x?page=1&{query}")


@pytest.mark.parametrize(
    "target",
    [
        *("/x", "/x?", "/_method=x", "/x?method=_method", "/x?my_method=x", "/x?url=https://a.example/_method"),
        *(
            "/x?urls=1&path=a&_=1",
            "/x?" + "&" * 9000,
            "/x?request_id=1",
            "/x?payment_method=card",
            "/x?file_path=a&original_url=b",
        ),
    ],
)
def test_a_usual_parameter_overrides_nothing(target: str) -> None:
    assert not has_overriding_parameter(target)


@given(st.text(max_size=50), st.binary(max_size=100))
def test_every_name_has_an_answer(query: str, name: bytes) -> None:
    assert has_overriding_parameter(f"/x?{query}") in (True, False)
    assert is_overriding_field(name) in (True, False)
