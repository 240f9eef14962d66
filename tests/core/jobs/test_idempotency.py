"""Idempotency keys and the fingerprints of payloads."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.jobs.idempotency import Fingerprint, idempotency_key
from nanonets_proxy.errors import BadRequest

MULTIPART = b"multipart/form-data; boundary="


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b' "with spaces" ', "with spaces"),
        (rb'"a \"quoted\" \\ key"', r'a "quoted" \ key'),
        (b'"' + b"x" * 255 + b'"', "x" * 255),
    ],
)
def test_a_key_is_a_string_with_or_without_its_quotes(value: bytes, key: str) -> None:
    assert idempotency_key([value]) == key


def test_without_the_field_there_is_no_key() -> None:
    assert idempotency_key([]) is None


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b'""'],
        [b"two words"],
        [b'"open'],
        [b"x" * 256],
        [b'"caf\xe9"'],
        [b'"a"; b'],
        [b"a", b"a"],
        [rb'"\x"'],
    ],
)
def test_a_malformed_or_repeated_key_is_an_error(values: list[bytes]) -> None:
    with pytest.raises(BadRequest, match="Idempotency-Key"):
        idempotency_key(values)


def fingerprint(*pieces: bytes, target: bytes = b"/x", content_type: bytes = b"text/plain") -> bytes:
    own = Fingerprint("POST", target, [content_type])
    for piece in pieces:
        own.add(piece)
    return own.digest()


def test_a_payload_is_its_method_target_and_body() -> None:
    prints = {
        fingerprint(b"a"),
        fingerprint(b"b"),
        fingerprint(b""),
        fingerprint(b"a", target=b"/y"),
        Fingerprint("PUT", b"/x", []).digest(),
    }
    assert len(prints) == 5


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.sampled_from([b"", MULTIPART + b"aab"]))
def test_the_pieces_of_a_body_do_not_matter(body: bytes, cuts: list[int], content_type: bytes) -> None:
    body = body.replace(b"\x00", b"aab").replace(b"\x01", b"aa")
    at = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(at)]
    whole = fingerprint(body, content_type=content_type)
    assert fingerprint(*pieces, content_type=content_type) == whole


@pytest.mark.parametrize(
    "kind", [MULTIPART + b"%b", b'Multipart/Form-Data;charset=utf-8; Boundary="%b"', MULTIPART + b"%b; x=y"]
)
def test_a_boundary_does_not_matter_and_the_parts_do(kind: bytes) -> None:
    def upload(boundary: bytes, text: bytes) -> bytes:
        return fingerprint(b"--%b\r\n\r\n%b\r\n--%b--" % (boundary, text, boundary), content_type=kind % boundary)

    assert upload(b"one", b"text") == upload(b"another", b"text")
    assert upload(b"one", b"text") != upload(b"one", b"other")
