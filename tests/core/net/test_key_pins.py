"""Pins of public keys, compared with certificates and digests of another library."""

from hashlib import sha256

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.net.key_pins import format_pin, parse_pin, public_key_digest


@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_the_digest_is_that_of_the_subject_public_key_info(kind: trustme.KeyType) -> None:
    pem = trustme.CA(key_type=kind).issue_cert("localhost", key_type=kind).cert_chain_pems[0].bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key_digest(certificate.public_bytes(Encoding.DER)) == sha256(info).digest()


def test_a_version_1_certificate_without_a_version_field_is_read() -> None:
    key = b"\x30\x01k"
    body = b"".join([b"\x02\x01\x01", b"\x30\x00", b"\x30\x00", b"\x30\x00", b"\x30\x00", key])
    inner = b"\x30" + bytes([len(body)]) + body
    assert public_key_digest(b"\x30" + bytes([len(inner)]) + inner) == sha256(key).digest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\x30\x00",  # the length exceeds the data
        b"\x30\x02\x31\x00",  # a set, not a sequence
        b"\x30\x04\x30\x02\x02\x00",  # fields are missing
        b"\x30\x84\xff\xff\xff\xff",  # a length of 4 GiB
    ],
)
def test_a_truncated_or_foreign_structure_is_not_a_certificate(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a certificate"):
        public_key_digest(data)


@given(st.binary(max_size=40))
def test_bytes_that_are_not_a_certificate_raise_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a certificate"):
        public_key_digest(b"\x30\x10\x31\x00" + data)
    with pytest.raises(ValueError, match="is not a certificate"):
        public_key_digest(data[:5])


def test_a_pin_parses_from_its_own_text() -> None:
    digest = sha256(b"key").digest()
    assert parse_pin(format_pin(digest)) == digest


@pytest.mark.parametrize("text", ["", "sha256//", "sha256//AAAA", "sha256//!", format_pin(b"x" * 32)[8:]])
def test_a_malformed_pin_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a pin"):
        parse_pin(text)
