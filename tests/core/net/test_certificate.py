"""The validity of certificates, compared with another library."""

from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.net.certificate import validity

_CA = trustme.CA()


@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2120])
def test_the_validity_is_read_in_both_forms_of_time(year: int) -> None:
    until = datetime(year, 3, 4, 5, 6, 7, tzinfo=UTC)
    pem = _CA.issue_cert("localhost", not_before=until - timedelta(days=90), not_after=until)
    certificate = x509.load_pem_x509_certificate(pem.cert_chain_pems[0].bytes())
    begins, ends = validity(certificate.public_bytes(Encoding.DER))
    assert ends == until.timestamp() == certificate.not_valid_after_utc.timestamp()
    assert ends - begins == 90 * 86_400


@given(st.binary(max_size=60))
def test_bytes_that_are_not_a_certificate_raise_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        validity(b"\x30\x10\x31\x00" + data)
    with pytest.raises(ValueError, match=r"."):
        validity(data[:5])


@given(st.datetimes(datetime(1950, 1, 2), datetime(9999, 12, 31)))  # noqa: DTZ001 - hypothesis wants naive ones
def test_each_day_of_the_calendar_is_read(at: datetime) -> None:
    times = b"\x18\x0f%b\x18\x0f%b" % ((at.strftime("%Y%m%d%H%M%SZ").encode(),) * 2)
    body = b"\x02\x01\x01" + b"\x30\x00" * 2 + b"\x30" + bytes([len(times)]) + times
    inner = b"\x30" + bytes([len(body)]) + body
    begins, ends = validity(b"\x30" + bytes([len(inner)]) + inner)
    assert begins == ends == at.replace(microsecond=0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", [b"20260102030405+", b"2026013030405Z!", b"YYYYMMDDHHMMSSZ"])
def test_a_time_of_another_form_raises_a_value_error(text: bytes) -> None:
    times = (b"\x18\x0f" + text) * 2
    body = b"\x02\x01\x01" + b"\x30\x00" * 2 + b"\x30" + bytes([len(times)]) + times
    inner = b"\x30" + bytes([len(body)]) + body
    with pytest.raises(ValueError, match="is not a certificate"):
        validity(b"\x30" + bytes([len(inner)]) + inner)


def test_a_validity_that_is_cut_short_raises_a_value_error() -> None:
    body = b"\x02\x01\x01" + b"\x30\x00" * 2 + b"\x30\x00"  # the validity is empty and the last field
    inner = b"\x30" + bytes([len(body)]) + body
    with pytest.raises(ValueError, match="is not a certificate"):
        validity(b"\x30" + bytes([len(inner)]) + inner)
