"""Lines of shapes, and the table that makes shapes for what comes again."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanonets_proxy.core.http.head_patterns import PatternTable, are_readable, line


def taken(name: bytes, text: bytes) -> bool:
    return re.fullmatch(line(name, captured=True), text) is not None


@pytest.mark.parametrize("name", [b"X-Odd", b"Set.Cookie", b"a*b|c^", b"!#$%&'+-`~_z"])
def test_a_name_stands_for_itself_in_its_own_spelling(name: bytes) -> None:
    assert taken(name, name + b": x\r\n")
    for other in (name.swapcase(), name + b"x", name[1:], name.replace(b".", b"-"), name.replace(b"*", b"")):
        assert taken(name, other + b": x\r\n") is (other == name)


@pytest.mark.parametrize(
    "text",
    [
        b"A:x\r\n",
        b"A:  x\r\n",
        b"A : x\r\n",
        b"A:\tx\r\n",
        b"A: x \r\n",
        b"A: x\n",
        b"A: x\r\n\r\n",
        b"A: x\r",
        b"A: x",
    ],
)
def test_a_line_is_written_in_one_way_only(text: bytes) -> None:
    assert not taken(b"A", text)


@given(
    st.binary(max_size=4)
    | st.text(st.sampled_from("\t\r\n\0 !:~\x7f\x80\xff"), max_size=6).map(lambda s: s.encode("latin-1"))
)
@example(b"")
@example(b" ")
@example(b"caf\xe9  %")
def test_a_value_is_of_visible_octets_and_of_spaces_within(value: bytes) -> None:
    is_visible = all(octet in range(0x20, 0x7F) or octet >= 0x80 for octet in value)
    assert taken(b"A", b"A: %b\r\n" % value) == (is_visible and value != b"" and value == value.strip(b" "))


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length"])
@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (b"0", True),
        (b"12", True),
        (b"9" * 15, True),
        (b"9" * 16, False),
        (b"", False),
        (b"+1", False),
        (b"1 2", False),
        (b"1 ", False),
        (b"1,1", False),
        (b"0x1", False),
        (b"\xb2", False),
    ],
)
def test_a_length_is_of_digits(name: bytes, value: bytes, is_taken: bool) -> None:
    assert taken(name, b"%b: %b\r\n" % (name, value)) is is_taken


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (b"keep-alive", True),
        (b"Keep-Alive", True),
        (b"close", False),
        (b"keep-alive, close", False),
        (b"keep-alive ", False),
        (b"KEEP-ALIVE", False),
        (b"Upgrade", False),
    ],
)
def test_a_connection_field_says_no_more_than_to_stay(value: bytes, is_taken: bool) -> None:
    assert taken(b"Connection", b"Connection: %b\r\n" % value) is is_taken


def test_values_are_captured_one_by_one_or_not_and_lines_as_one() -> None:
    expression = b"".join(
        [
            line(b"A", captured=False),
            b"(",
            line(b"B", captured=False),
            line(b"Content-Length", captured=True),
            b")",
            line(b"Connection", captured=False),
            line(b"C", captured=True),
        ]
    )
    found = re.fullmatch(expression, b"A: 1\r\nB: 2 3\r\nContent-Length: 4\r\nConnection: keep-alive\r\nC: 5\r\n")
    assert found is not None
    assert found.groups() == (b"B: 2 3\r\nContent-Length: 4\r\n", b"4", b"5")


@pytest.mark.parametrize(
    ("names", "is_readable"),
    [
        ([], True),
        ([b"a", b"a"], True),
        ([b"a"] * 64, True),
        ([b"a"] * 65, False),
        ([b"a" * 2000, b"a" * 48], True),
        ([b"a" * 2000, b"a" * 49], False),
        ([b"a", b"transfer-encoding"], False),
        ([b"upgrade"], False),
        ([b"proxy-connection"], False),
    ],
)
def test_too_many_names_and_those_that_change_the_meaning_of_the_rest_are_the_parsers(
    names: list[bytes], is_readable: bool
) -> None:
    assert are_readable(names) is is_readable


def table(made: list[int]) -> PatternTable[int, str]:
    def make(key: int) -> str:
        made.append(key)
        return str(key)

    return PatternTable(lambda key: key >= 0, make)


def test_a_shape_is_made_once_for_a_key_that_comes_twice() -> None:
    made: list[int] = []
    shapes = table(made)
    assert [shapes.find(key) for key in (1, 2, 1, 1, 2)] == [None, None, "1", "1", "2"]
    assert made == [1, 2]


def test_a_key_that_may_have_no_shape_gets_none() -> None:
    made: list[int] = []
    shapes = table(made)
    assert [shapes.find(-1) for _ in range(3)] == [None] * 3
    assert made == []


def test_so_many_shapes_are_made_and_no_more() -> None:
    made: list[int] = []
    shapes = table(made)
    for key in range(100):
        shapes.find(key)
        shapes.find(key)
    assert made == list(range(64))
    assert [shapes.find(key) for key in (0, 63, 64)] == ["0", "63", None]


@pytest.mark.parametrize(("others", "is_known"), [(255, True), (256, False)])
def test_what_came_once_is_forgotten_behind_hundreds_of_others(others: int, is_known: bool) -> None:
    shapes = table([])
    for key in range(others + 1):
        shapes.find(key)
    assert (shapes.find(0) is not None) is is_known
