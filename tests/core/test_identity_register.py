"""What keys say about keys, and that members who know the same agree."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import OutrouteError
from outroute.identity import (
    CLOCK_SKEW_SECONDS,
    STATEMENT_BYTES,
    Identity,
    Learned,
    Membership,
    Purpose,
    Refused,
    Register,
    Revocation,
    Statement,
    StatementReason,
    Succession,
    read_statement,
    register,
)

from . import second as second_implementation

NOW = 1_700_000_000
YEAR = 365 * 86_400


def key(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


WARD, CLINIC, THIEF = key(1), key(2), key(3)
NODE, OTHER, NEXT = key(11), key(12), key(13)


def member(org: Identity, node: Identity, *, since: int = NOW, until: int = NOW + YEAR) -> Membership:
    return Membership.accept(node, org.certify(node.public_key, not_before=since, not_after=until))


def knowing(*statements: Statement, organisations: tuple[bytes, ...] = (), now: int = NOW) -> Register:
    made = Register(organisations)
    for one in statements:
        found = made.learn(one.to_bytes(), now)
        assert isinstance(found, Learned), found
    return made


SAMPLES: list[Statement] = [
    member(WARD, NODE),
    Revocation.make(WARD, NODE.public_key, at=NOW),
    Revocation.make(WARD, NODE.public_key, at=NOW, compromised=True),
    Succession.make(WARD, CLINIC, at=NOW),
    Succession.make(
        NODE, NEXT, at=NOW, certificate=WARD.certify(NEXT.public_key, not_before=NOW, not_after=NOW + YEAR)
    ),
]


@pytest.mark.parametrize("statement", SAMPLES, ids=lambda one: type(one).__name__)
def test_statements_travel_and_no_bit_of_them_can_be_changed(statement: Statement) -> None:
    data = statement.to_bytes()
    assert len(data) <= STATEMENT_BYTES
    assert read_statement(data) == statement
    assert statement.genuine()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        found = read_statement(bytes(changed))
        assert found is None or not found.genuine()
    for size in (0, 3, 4, 5, len(data) - 1):
        assert read_statement(data[:size]) is None
    assert read_statement(data + b"\0") is None


@given(st.binary(max_size=STATEMENT_BYTES + 1))
def test_any_bytes_are_a_statement_or_none(data: bytes) -> None:
    for one in (data, b"ORS\x01" + data):
        found = read_statement(one)
        assert found is None or found.to_bytes() == one
        assert isinstance(Register().learn(one, NOW), Refused)


def test_a_certificate_alone_makes_no_member() -> None:
    """An organisation cannot claim a foreign node: the node's own signature is missing."""
    stolen = WARD.certify(NODE.public_key, not_before=NOW, not_after=NOW + YEAR)
    forged = Membership(certificate=stolen, signature=WARD.sign(Purpose.MEMBERSHIP, stolen.to_bytes()))
    assert Register().learn(forged.to_bytes(), NOW) == Refused(reason=StatementReason.SIGNATURE)
    with pytest.raises(OutrouteError) as caught:
        Membership.accept(OTHER, stolen)
    assert caught.value.code == "identity.other_key"


def test_members_count_under_their_organisation_in_time() -> None:
    known = knowing(member(WARD, NODE, since=NOW, until=NOW + 100))
    start, end = NOW - CLOCK_SKEW_SECONDS, NOW + 100 + CLOCK_SKEW_SECONDS
    for now, inside in ((start - 1, False), (start, True), (end, True), (end + 1, False)):
        expected = WARD if inside else NODE
        assert known.organisation_of(NODE.public_key, now) == expected.public_key
        assert known.organisations_at(now) == ({NODE.public_key: WARD.public_key} if inside else {})
    assert known.organisation_of(OTHER.public_key, NOW) == OTHER.public_key


def test_the_last_organisation_joined_counts() -> None:
    known = knowing(member(WARD, NODE, since=NOW - 100), member(CLINIC, NODE, since=NOW - 50))
    assert known.organisation_of(NODE.public_key, NOW) == CLINIC.public_key


def test_a_stolen_node_key_enrols_nobody() -> None:
    """Only keys of organisations certify: what a node's key certifies counts as a stranger, whatever the order."""
    real, fake = member(WARD, NODE), member(NODE, THIEF)
    for statements in ((real, fake), (fake, real)):
        known = knowing(*statements)
        assert known.organisation_of(THIEF.public_key, NOW) == THIEF.public_key
        assert not known.certifies(NODE.public_key)
    named = Register((WARD.public_key,))
    assert isinstance(named.learn(real.to_bytes(), NOW), Learned)
    assert named.learn(fake.to_bytes(), NOW) == Refused(reason=StatementReason.FOREIGN)


def test_a_stolen_node_key_cannot_revoke_or_follow() -> None:
    known = knowing(
        member(WARD, NODE),
        member(WARD, OTHER),
        Revocation.make(NODE, OTHER.public_key, at=NOW),
        Revocation.make(NODE, WARD.public_key, at=NOW),
        Succession.make(NODE, THIEF, at=NOW),
        Succession.make(
            NODE, THIEF, at=NOW, certificate=THIEF.certify(THIEF.public_key, not_before=NOW, not_after=NOW + YEAR)
        ),
    )
    assert not known.revoked(OTHER.public_key, NOW)
    assert not known.revoked(WARD.public_key, NOW)
    assert known.current(NODE.public_key) == NODE.public_key
    assert known.origin(THIEF.public_key) == THIEF.public_key


@pytest.mark.parametrize("compromised", [False, True])
def test_a_revocation_counts_from_whom_it_may(compromised: bool) -> None:
    said = Revocation.make(WARD, NODE.public_key, at=NOW, compromised=compromised)
    foreign = Revocation.make(CLINIC, NODE.public_key, at=NOW, compromised=True)
    known = knowing(said, foreign)
    assert not known.revoked(NODE.public_key, NOW), "no membership is known yet"
    assert isinstance(known.learn(member(WARD, NODE).to_bytes(), NOW), Learned)
    assert known.revocations_of(NODE.public_key, NOW) == (said,)
    assert known.compromised(NODE.public_key) is compromised
    assert known.member_revoked(NODE.id, NOW)
    assert not known.member_revoked(OTHER.id, NOW)


def test_a_revocation_cannot_be_undone() -> None:
    known = knowing(member(WARD, NODE), Revocation.make(WARD, NODE.public_key, at=NOW))
    for later in (
        member(WARD, NODE, since=NOW + 1, until=NOW + 2 * YEAR),
        member(CLINIC, NODE, since=NOW + 2),
        Revocation.make(WARD, NODE.public_key, at=NOW + 5),
    ):
        known.learn(later.to_bytes(), NOW + 10)
        assert known.revoked(NODE.public_key, NOW + 10)
    assert known.revoked(NODE.public_key, NOW + 10 * YEAR), "nor by waiting until the certificate is over"
    worse = Revocation.make(WARD, NODE.public_key, at=NOW + 9, compromised=True)
    known.learn(worse.to_bytes(), NOW + 10)
    assert known.compromised(NODE.public_key)
    known.learn(Revocation.make(WARD, NODE.public_key, at=NOW - 9).to_bytes(), NOW + 10)
    assert known.compromised(NODE.public_key)


def test_a_revocation_of_the_future_is_refused_beyond_the_skew() -> None:
    for at, good in ((NOW + CLOCK_SKEW_SECONDS, True), (NOW + CLOCK_SKEW_SECONDS + 1, False)):
        known = knowing(member(WARD, NODE))
        found = known.learn(Revocation.make(WARD, NODE.public_key, at=at).to_bytes(), NOW)
        assert isinstance(found, Learned) is good
        assert known.revoked(NODE.public_key, NOW) is good
        if isinstance(found, Refused):
            assert found.reason is StatementReason.FUTURE


@pytest.mark.parametrize("compromised", [False, True])
def test_an_organisation_revoked_by_itself_takes_its_nodes_with_it(compromised: bool) -> None:
    known = knowing(
        member(WARD, NODE),
        member(WARD, OTHER),
        member(CLINIC, OTHER),
        Revocation.make(WARD, WARD.public_key, at=NOW, compromised=compromised),
        Revocation.make(THIEF, CLINIC.public_key, at=NOW),
    )
    assert known.revoked(WARD.public_key, NOW)
    assert known.revoked(NODE.public_key, NOW)
    assert known.compromised(NODE.public_key) is compromised
    assert not known.revoked(OTHER.public_key, NOW), "it belongs to another organisation too"
    assert known.organisation_of(OTHER.public_key, NOW) == CLINIC.public_key


def test_an_organisation_keeps_its_name_when_its_key_changes() -> None:
    renewed = member(CLINIC, NODE, since=NOW + 1)
    known = knowing(member(WARD, NODE), Succession.make(WARD, CLINIC, at=NOW), renewed, now=NOW + 1)
    assert known.organisation_of(NODE.public_key, NOW) == WARD.public_key
    assert known.lineage(CLINIC.public_key) == (WARD.public_key, CLINIC.public_key)
    assert known.current(WARD.public_key) == CLINIC.public_key
    known.learn(Revocation.make(WARD, WARD.public_key, at=NOW + 1).to_bytes(), NOW + 1)
    assert not known.revoked(NODE.public_key, NOW + 1), "the new key has certified it again"
    known.learn(Revocation.make(CLINIC, NODE.public_key, at=NOW + 1).to_bytes(), NOW + 1)
    assert known.revoked(NODE.public_key, NOW + 1)


def test_a_new_key_of_an_organisation_may_revoke_what_the_old_one_enrolled() -> None:
    known = knowing(
        member(WARD, NODE),
        Succession.make(WARD, CLINIC, at=NOW),
        Revocation.make(CLINIC, NODE.public_key, at=NOW),
    )
    assert known.revoked(NODE.public_key, NOW)


def test_what_a_stolen_organisation_key_names_as_its_successor_does_not_count() -> None:
    known = knowing(member(WARD, NODE), Succession.make(WARD, THIEF, at=NOW))
    assert known.current(WARD.public_key) == THIEF.public_key
    known.learn(Revocation.make(WARD, WARD.public_key, at=NOW, compromised=True).to_bytes(), NOW)
    assert known.current(WARD.public_key) == WARD.public_key
    assert known.origin(THIEF.public_key) == THIEF.public_key


def test_a_node_of_an_organisation_is_followed_where_the_organisation_vouches() -> None:
    vouched = WARD.certify(NEXT.public_key, not_before=NOW, not_after=NOW + YEAR)
    step = Succession.make(NODE, NEXT, at=NOW, certificate=vouched)
    theft = Succession.make(NODE, THIEF, at=NOW)
    for statements in ((member(WARD, NODE), step, theft), (theft, step, member(WARD, NODE))):
        known = knowing(*statements)
        assert known.current(NODE.public_key) == NEXT.public_key
        assert known.origin(NEXT.public_key) == NODE.public_key
    known.learn(Revocation.make(WARD, NODE.public_key, at=NOW, compromised=True).to_bytes(), NOW)
    assert known.current(NODE.public_key) == NEXT.public_key
    assert not known.revoked(NEXT.public_key, NOW)


def test_forks_merges_and_circles_do_not_count() -> None:
    a, b, c, d = (key(100 + i) for i in range(4))

    def steps(*pairs: tuple[Identity, Identity]) -> Register:
        return knowing(*(Succession.make(old, new, at=NOW) for old, new in pairs))

    fork = steps((a, b), (a, c))
    assert fork.current(a.public_key) == a.public_key
    merge = steps((a, c), (b, c), (c, d))
    assert merge.origin(d.public_key) == c.public_key
    assert merge.current(a.public_key) == a.public_key
    circle = steps((a, b), (b, c), (c, a))
    for one in (a, b, c):
        assert circle.lineage(one.public_key) == (one.public_key,)
    assert steps((a, b), (b, c), (c, d)).lineage(b.public_key) == tuple(one.public_key for one in (a, b, c, d))


def test_a_key_that_names_many_successors_takes_little_room() -> None:
    known = Register()
    for i in range(30):
        found = known.learn(Succession.make(NODE, key(200 + i), at=NOW).to_bytes(), NOW)
        assert isinstance(found, Learned) or found.reason is StatementReason.FORKED
    assert len(known) == register.SUCCESSORS_LIMIT
    assert known.current(NODE.public_key) == NODE.public_key


def test_a_thief_of_an_old_key_cannot_undo_what_the_new_one_revoked() -> None:
    known = knowing(
        member(WARD, NODE),
        Succession.make(WARD, CLINIC, at=NOW),
        Revocation.make(CLINIC, NODE.public_key, at=NOW),
    )
    for i in range(30):
        known.learn(Succession.make(WARD, key(200 + i), at=NOW - 1).to_bytes(), NOW)
    known.learn(Revocation.make(WARD, WARD.public_key, at=NOW, compromised=True).to_bytes(), NOW)
    assert known.current(WARD.public_key) == WARD.public_key
    assert known.revoked(NODE.public_key, NOW)


def test_strangers_are_refused_where_organisations_are_named() -> None:
    known = Register((WARD.public_key,))
    for strange in (
        member(THIEF, OTHER),
        Revocation.make(THIEF, NODE.public_key, at=NOW),
        Succession.make(THIEF, OTHER, at=NOW),
    ):
        assert known.learn(strange.to_bytes(), NOW) == Refused(reason=StatementReason.FOREIGN)
    for good in (
        member(WARD, NODE),
        Revocation.make(NODE, NODE.public_key, at=NOW),
        Succession.make(WARD, CLINIC, at=NOW),
        member(CLINIC, OTHER),
    ):
        assert isinstance(known.learn(good.to_bytes(), NOW), Learned)
    assert known.revoked(NODE.public_key, NOW)


def test_room_is_bounded_by_organisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "STATEMENTS_PER_ORGANISATION", 3)
    monkeypatch.setattr(register, "ORGANISATIONS_LIMIT", 2)
    known = Register((WARD.public_key, CLINIC.public_key, THIEF.public_key))
    for i in range(3):
        assert isinstance(known.learn(member(WARD, key(50 + i), until=NOW + 10).to_bytes(), NOW), Learned)
    full = Refused(reason=StatementReason.FULL)
    assert known.learn(member(WARD, key(53)).to_bytes(), NOW) == full
    assert isinstance(known.learn(member(CLINIC, key(53)).to_bytes(), NOW), Learned), "others have room"
    assert isinstance(known.learn(member(WARD, key(50), until=NOW + 20).to_bytes(), NOW), Learned), "it was there"
    late = NOW + YEAR
    assert isinstance(known.learn(member(WARD, key(53), until=late).to_bytes(), late), Learned), "the others are over"
    assert len(known) == 2
    open_to_all = Register()
    assert isinstance(open_to_all.learn(member(WARD, key(50)).to_bytes(), NOW), Learned)
    assert isinstance(open_to_all.learn(member(CLINIC, key(51)).to_bytes(), NOW), Learned)
    assert open_to_all.learn(member(THIEF, key(52)).to_bytes(), NOW) == full


def test_the_list_of_statements_can_be_read_on() -> None:
    known = Register()
    place, seen = 0, []
    for i in range(7):
        known.learn(member(WARD, key(60 + i)).to_bytes(), NOW)
        known.learn(member(WARD, key(60), until=NOW + YEAR + i).to_bytes(), NOW)
        new, place = known.statements(place, limit=3)
        seen += new
    rest, place = known.statements(place)
    assert place == known.length
    assert known.statements(place) == ([], place)
    assert set(known.statements()[0]) <= set(seen + rest)
    assert len(known.statements()[0]) == len(known) == 7


def test_the_list_is_renumbered_before_it_grows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "BLANKS_LIMIT", 4)
    known = Register()
    for i in range(50):
        known.learn(member(WARD, NODE, until=NOW + YEAR + i).to_bytes(), NOW)
    assert known.length <= 8
    assert known.epoch > 0
    assert len(known.statements()[0]) == 1


KEYS = [key(300 + i) for i in range(5)]


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    kind = draw(st.sampled_from("mrsc"))
    one, other = draw(st.permutations(KEYS))[:2]
    at = NOW - draw(st.integers(0, 3))
    if kind == "m":
        return member(one, other, since=at, until=NOW + draw(st.integers(0, 3)))
    if kind == "r":
        subject = draw(st.sampled_from([one, other]))
        return Revocation.make(one, subject.public_key, at=at, compromised=draw(st.booleans()))
    vouched = None
    if kind == "c":
        vouched = draw(st.sampled_from(KEYS)).certify(other.public_key, not_before=at, not_after=NOW + 9)
    return Succession.make(one, other, at=at, certificate=vouched)


@dataclass
class Said:
    """Everything that a register says about some keys."""

    known: Register
    answers: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        for one in KEYS:
            k = one.public_key
            self.answers += [
                self.known.organisation_of(k, NOW),
                self.known.revocations_of(k, NOW),
                self.known.compromised(k, NOW),
                self.known.lineage(k),
                self.known.certifies(k),
                self.known.member_revoked(one.id, NOW),
            ]


@settings(max_examples=150, deadline=None)
@given(st.lists(statements(), max_size=14), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(said: list[Statement], rng: random.Random) -> None:
    first, second = Register(), Register()
    for one in said:
        first.learn(one.to_bytes(), NOW)
    for one in rng.sample(said, len(said)) + said:
        second.learn(one.to_bytes(), NOW)
    assert Said(first).answers == Said(second).answers
    assert sorted(first.statements()[0]) == sorted(second.statements()[0])
    third = Register()
    for data in first.statements()[0]:
        assert isinstance(third.learn(data, NOW, checked=True), Learned)
    assert Said(third).answers == Said(first).answers
    other = second_implementation.Known(first.statements()[0])
    for k in (one.public_key for one in KEYS):
        assert first.organisation_of(k, NOW) == other.organisation(k, NOW)
        assert (first.revoked(k, NOW), first.compromised(k, NOW)) == other.revoked(k, NOW)
        assert list(first.lineage(k)) == other.chain(k)


@settings(max_examples=100, deadline=None)
@given(st.lists(statements(), max_size=12))
def test_asking_changes_nothing_and_what_is_revoked_stays_so(said: list[Statement]) -> None:
    """Whatever is learnt after it, a key that a revocation by itself or by its organisation hit stays revoked."""
    hit = KEYS[0].public_key
    known = knowing(
        member(WARD, KEYS[0]),
        Succession.make(WARD, CLINIC, at=NOW),
        Revocation.make(CLINIC, hit, at=NOW),
    )
    for one in said:
        known.learn(one.to_bytes(), NOW)
        assert known.revoked(hit, NOW)
        Said(known)
