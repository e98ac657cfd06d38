"""Keys, certificates, and that one kind of signature never passes for another."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from outroute.errors import OutrouteError
from outroute.identity import (
    CERTIFICATE_BYTES,
    CLOCK_SKEW_SECONDS,
    Certificate,
    Identity,
    Purpose,
    node_id,
    verify,
)
from outroute.packet import as_packets
from outroute.packet.accept import verify_signatures

from .making import ALICE, BOB, packets_of, schema_of

START, END = 1000, 2000


def test_keys_are_those_of_rfc_8032() -> None:
    """Section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert Identity(seed).public_key == key
    assert Identity(seed).id == node_id(key) == hashlib.sha256(b"outroute node v1\0" + key).digest()


def test_a_seed_has_32_bytes() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(OutrouteError) as caught:
            Identity(bytes(size))
        assert caught.value.code == "identity.seed"


def test_text_never_shows_the_secret() -> None:
    seed = bytes(range(100, 132))
    who = Identity(seed)
    for text in (
        repr(who),
        str(who),
        f"{who}",
        repr([who]),
        repr(who.certify(who.public_key, not_before=0, not_after=1)),
    ):
        assert seed.hex() not in text
        assert repr(seed)[2:-1] not in text
    assert repr(who) == f"Identity({who.id.hex()[:12]})"
    assert not hasattr(who, "__dict__")


def test_purposes_are_apart() -> None:
    message = b"a message"
    for purpose in Purpose:
        signature = ALICE.sign(purpose, message)
        for other in Purpose:
            assert verify(other, ALICE.public_key, message, signature) == (other is purpose)
        assert not verify(purpose, BOB.public_key, message, signature)
        assert not verify(purpose, ALICE.public_key, message + b"!", signature)
    prefixes = [p.value for p in Purpose]
    assert all(p.endswith(b"\0") and p.count(b"\0") == 1 for p in prefixes), "no prefix begins another"


def test_a_certificate_signature_is_no_packet_signature() -> None:
    packet = packets_of(schema_of(), np.random.default_rng(0), 1)
    body = packet.tobytes()[:448]
    assert verify_signatures(packet).tolist() == [True]
    for purpose in (Purpose.CERTIFICATE, Purpose.ANNOUNCEMENT):
        assert verify_signatures(as_packets(body + ALICE.sign(purpose, body))).tolist() == [False]
    cert = struct.pack("<32s32sqq", ALICE.public_key, BOB.public_key, START, END)
    assert Certificate.from_bytes(cert + ALICE.sign(Purpose.CERTIFICATE, cert)).holds(START)
    assert not Certificate.from_bytes(cert + ALICE.sign(Purpose.PACKET, cert)).holds(START)


def test_wrong_lengths_never_verify() -> None:
    """A longer signature would move the border between signature and message."""
    message = b"message"
    signature = ALICE.sign(Purpose.PACKET, message)
    smuggled = ALICE.sign(Purpose.PACKET, b"x" + Purpose.CERTIFICATE.value + message) + Purpose.PACKET.value + b"x"
    for bad in (b"", signature[:63], signature + b"\0", smuggled):
        assert not verify(Purpose.PACKET, ALICE.public_key, message, bad)
        assert not verify(Purpose.CERTIFICATE, ALICE.public_key, message, bad)
    for key in (b"", ALICE.public_key[:31], ALICE.public_key + b"\0"):
        assert not verify(Purpose.PACKET, key, message, signature)
    assert not verify(Purpose.PACKET, bytes(32), message, bytes(64))
    assert not verify(Purpose.PACKET, b"\xff" * 32, message, signature)


def test_certificates_hold_in_their_time_give_or_take_the_skew() -> None:
    cert = ALICE.certify(BOB.public_key, not_before=START, not_after=END)
    assert Certificate.from_bytes(cert.to_bytes()) == cert
    assert len(cert.to_bytes()) == CERTIFICATE_BYTES == 144
    assert CLOCK_SKEW_SECONDS == 600
    for now, holds in ((START - 601, False), (START - 600, True), (END + 600, True), (END + 601, False)):
        assert cert.holds(now) is holds


def test_flipping_any_bit_of_a_certificate_breaks_it() -> None:
    data = ALICE.certify(BOB.public_key, not_before=START, not_after=END).to_bytes()
    for bit in range(8 * CERTIFICATE_BYTES):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        cert = Certificate.from_bytes(bytes(flipped))
        assert not cert.holds(max(START, cert.not_before))


def test_misuse_of_certificates() -> None:
    for size in (0, 143, 145):
        with pytest.raises(OutrouteError) as caught:
            Certificate.from_bytes(bytes(size))
        assert caught.value.code == "identity.certificate"
    with pytest.raises(OutrouteError) as caught:
        Certificate(organisation=bytes(32), node=bytes(33), not_before=0, not_after=1, signature=bytes(64))
    assert caught.value.code == "identity.certificate"
    for key, end in ((bytes(31), END), (BOB.public_key, START - 1)):
        with pytest.raises(OutrouteError) as caught:
            ALICE.certify(key, not_before=START, not_after=end)
        assert caught.value.code == "identity.certify"
