"""The key scrubber: the key in a response."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_scrubber import KeyForms, KeyScrubber

KEY = ApiKey.parse("sk-test-0123456789", "test")
PLAIN, BASIC = b"sk-test-0123456789", b"c2stdGVzdC0wMTIzNDU2Nzg5Og"
FORMS = KeyForms(KEY.secrets())


def scrubbed(*pieces: bytes) -> tuple[bytes, bool]:
    scrubber = KeyScrubber(FORMS)
    body = b"".join([*map(scrubber.feed, pieces), scrubber.end()])
    return body, scrubber.found


def test_asterisks_replace_every_form_octet_by_octet() -> None:
    for form in KEY.secrets():
        assert FORMS.blank(b"<" + form + b">" + form) == b"<" + b"*" * len(form) + b">" + b"*" * len(form)


def test_data_without_the_key_is_returned_itself() -> None:
    data = b"nothing here"
    assert FORMS.blank(data) is data
    assert KeyForms(()).blank(data) is data


def test_a_key_as_short_as_a_word_is_not_searched_for() -> None:
    forms = KeyForms(ApiKey.parse("ok", "test").secrets())
    assert forms.blank(b"ok") == b"ok"


@given(st.lists(st.integers(0, 60), max_size=6), st.sampled_from([PLAIN, BASIC]))
def test_the_key_is_blanked_wherever_the_body_is_cut_and_the_length_stays(cuts: list[int], form: bytes) -> None:
    body = b"before sk-tes " + form + b" after " + form[:9]
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(places)]
    blanked, found = scrubbed(*pieces)
    # A cut after the key's own Base64 leaves that of the colon, which is not a secret.
    assert re.fullmatch(rb"before sk-tes \*{18,}(Og|g)? after " + form[:9], blanked)
    assert len(blanked) == len(body)
    assert found


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_a_body_without_the_key_is_unchanged(pieces: list[bytes]) -> None:
    assert scrubbed(*pieces) == (b"".join(pieces), False)


def test_only_the_possible_start_of_a_key_is_held_back() -> None:
    scrubber = KeyScrubber(FORMS)
    assert scrubber.feed(b'{"code": 1} ') == b'{"code": 1} '
    assert scrubber.feed(b"sk-tes") == b""
    assert scrubber.feed(b"x") == b"sk-tesx"


def test_the_whole_of_a_long_body_is_searched() -> None:
    filler = b"x" * 1_000_000
    assert scrubbed(filler, PLAIN, filler, PLAIN) == ((filler + b"*" * len(PLAIN)) * 2, True)
