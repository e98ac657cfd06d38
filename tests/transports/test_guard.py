"""What is found once is remembered; the clock, the place and what is known about keys are looked at every time."""

from __future__ import annotations

import numpy as np

from outroute.identity import Register
from outroute.packet import PacketArray, Rejection, expiry, sign
from outroute.transports import Guard
from outroute.transports.contract import ADDRESS_REFUSED
from store.making import NOW, SCHEMA, identity, make_packets
from transports.rigs import FACETED, addresses_of, cell_address


def seen(count: int = 20) -> tuple[Guard, PacketArray, list[bytes]]:
    """A guard that has found some packets right."""
    guard, packets = Guard([SCHEMA, FACETED]), make_packets(count)
    names = addresses_of(packets)
    assert not guard.check(SCHEMA.id, names, packets, now=NOW).any()
    return guard, packets, names


def test_a_packet_seen_before_expires() -> None:
    guard, packets, names = seen()
    end = int(expiry(SCHEMA, packets).max())
    assert (expiry(SCHEMA, packets) == end).all()
    assert not guard.check(SCHEMA.id, names, packets, now=end - 1).any()
    assert (guard.check(SCHEMA.id, names, packets, now=end) == Rejection.EXPIRED).all()
    assert guard.refused[Rejection.EXPIRED] == len(packets)
    assert guard.verified == len(packets)


def test_a_packet_seen_before_is_early_for_a_clock_that_was_set_back() -> None:
    guard, packets, names = seen()
    early = int(packets["bucket"].min()) - 601
    assert (guard.check(SCHEMA.id, names, packets, now=early) == Rejection.FUTURE).all()


def test_a_packet_seen_before_belongs_to_its_own_schema_and_address() -> None:
    guard, packets, names = seen()
    assert (guard.check(FACETED.id, names, packets, now=NOW) == Rejection.SCHEMA).all()
    elsewhere = [cell_address(int(cell) + 1) for cell in packets["cell"]]
    assert (guard.check(SCHEMA.id, elsewhere, packets, now=NOW) == ADDRESS_REFUSED).all()
    assert not guard.check(SCHEMA.id, names, packets, now=NOW).any()


def test_one_byte_makes_another_packet_and_new_ones_among_the_known_are_checked() -> None:
    guard, packets, names = seen()
    mixed = np.concatenate([packets, make_packets(8, first=100)])
    mixed["signature"][3, 0] ^= 1
    mixed["size"][7] = 0
    places = names + addresses_of(mixed[len(packets) :])
    for _ in range(2):
        found = guard.check(SCHEMA.id, places, mixed, now=NOW)
        assert np.flatnonzero(found).tolist() == [3, 7]
        assert found[3] == Rejection.SIGNATURE
    assert (
        guard.verified == len(packets) + 1 + 8
    )  # the third with its new bytes, the new ones; the seventh was too small


def test_a_wrong_signature_is_remembered_as_wrong() -> None:
    guard, packets = Guard([SCHEMA]), make_packets(5)
    sign(packets, identity(0))
    packets["signature"][:, 0] ^= 1
    for _ in range(2):
        assert (guard.check(SCHEMA.id, addresses_of(packets), packets, now=NOW) == Rejection.SIGNATURE).all()
    assert guard.verified == 5


def test_no_packets_are_right() -> None:
    guard = Guard([SCHEMA]).under(Register([]))
    assert guard.check(SCHEMA.id, [], make_packets(0), now=NOW).tolist() == []
