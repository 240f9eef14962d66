"""Header plans: which fields pass, and where the known ones are."""

from nanonets_proxy.core.http.header_plans import HeaderPlans

KNOWN = (b"te", b"x-a", b"none")
INSPECTED = frozenset({b"host", b"etag"})
DROPPED = frozenset({b"host", b"te"})


def plans() -> HeaderPlans:
    return HeaderPlans(KNOWN, INSPECTED, DROPPED, b"x-forwarded-")


def test_passing_fields_keep_their_spelling_and_dropped_ones_leave_nothing() -> None:
    plan = plans()[b"hOST", b"X-A", b"TE", b"X-Forwarded-For", b"etag", b"X-A"]
    assert plan.places == (2, 5, None)
    assert plan.special == [(0, b"host"), (1, b"x-a"), (4, b"etag")]
    assert plan.template % (b"h", b"1", b"t", b"f", b"%s", b"") == b"X-A: 1\r\netag: %s\r\nX-A: \r\n"


def test_a_percent_sign_in_a_name_is_not_a_format() -> None:
    plan = plans()[b"X-%b%d", b"%"]
    assert plan.template % (b"1", b"2") == b"X-%b%d: 1\r\n%: 2\r\n"


def test_an_empty_section_has_no_lines() -> None:
    assert plans()[()].template % () == b""


def test_the_same_names_share_a_plan() -> None:
    made = plans()
    assert made[b"A", b"B"] is made[b"A", b"B"]
    assert made[b"A", b"B"] is not made[b"a", b"B"]


def test_the_cache_is_bounded_and_skips_long_lists() -> None:
    made = plans()
    for names in [(b"A",) * 65, (b"A" * 2049,)]:
        assert made[names] == made[names]
        assert made[names] is not made[names]
    for number in range(256):
        assert made[(b"A-%d" % number,)]
    assert len(made) == 256


def test_a_usual_list_gets_its_plan_although_invented_lists_have_filled_the_cache() -> None:
    made = plans()
    for number in range(1000):
        assert made[(b"A-%d" % number,)]
    assert made[b"late",] is made[b"late",]
    assert len(made) == 256
