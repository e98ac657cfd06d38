"""Two packets in one slot: kept as proof by whoever sees both, and worth nothing to anybody who asks."""

from __future__ import annotations

import numpy as np

from outroute.node.evidence import evidence_of
from outroute.node.received import Received
from outroute.packet import PacketArray, build, sign
from outroute.placement import Kept
from outroute.schema import SCALE, Distiller
from outroute.simulation import attack
from outroute.synthesis import Evidence, Records, fit
from store.making import DAY, NOW, SCHEMA, identity


def signed(e: Evidence, author: int, counts: np.ndarray) -> PacketArray:
    """Packets of one node as it would send them."""
    n = len(e.x)
    made = build(
        SCHEMA,
        author=identity(author).public_key,
        sequence=np.arange(n, dtype=np.uint64),
        codes=np.rint(e.x * SCALE).astype(np.uint16),
        size=e.size.astype(np.int64),
        subjects=e.size.astype(np.int64),
        bucket=np.full(n, SCHEMA.time.bucket(NOW - DAY)),
        distiller=Distiller.COHORT,
        counts=counts.astype(np.int64),
        commitment=np.zeros((n, 32), dtype=np.uint8),
    )
    sign(made, identity(author))
    return made


def honest(rng: np.random.Generator, n: int = 60) -> Evidence:
    x = rng.random((n, 2))
    yes = rng.binomial(5, 1 / (1 + np.exp(-6 * (x[:, 0] - 0.5)))).astype(np.float64)
    return Evidence(
        x=x,
        node=np.repeat(np.arange(2), n // 2),
        nodes=(b"a" * 32, b"b" * 32),
        size=np.full(n, 5.0),
        counts=np.stack([5 - yes, yes], axis=1),
        mean=None,
        variance=None,
        bucket=np.zeros(n, dtype=np.int64),
        cell=np.zeros(n, dtype=np.int64),
    )


def test_equivocated_packets_are_proof_and_change_no_answer() -> None:
    rng = np.random.default_rng(4)
    read = honest(rng)
    lie = attack("equivocator", read, 1, rng)
    twice = lie.weight == 0
    assert 0 < twice.sum() < lie.n
    received = Received(SCHEMA, None)
    for author, node in ((1, 0), (2, 1)):
        mine = read.take(np.flatnonzero(read.node == node))
        assert (received.add(signed(mine, author, mine.counts), NOW) == Kept.STORED).all()
    before = received.in_force(NOW)
    first = signed(lie, 3, lie.counts)
    second = signed(lie, 3, lie.counts[:, ::-1])
    differ = twice & (lie.counts[:, 0] != lie.counts[:, 1])
    assert differ.any()
    assert (received.add(first[differ], NOW) == Kept.STORED).all()
    assert (received.add(second[differ], NOW) == Kept.EQUIVOCATION).all()
    # Both are kept as proof, and neither counts: the packets in force are those of the honest, byte by byte.
    assert len(received.everything(NOW)) == len(before) + 2 * differ.sum()
    assert sorted(p.tobytes() for p in received.in_force(NOW)) == sorted(p.tobytes() for p in before)
    own = Records(x=rng.random((40, 2)), y=(rng.random(40) < 0.5).astype(np.float64), group=np.arange(40))
    asked = rng.random((20, 2))
    with_proof = fit(SCHEMA, evidence_of(SCHEMA, received.in_force(NOW)), own, rng=np.random.default_rng(0))
    without = fit(SCHEMA, evidence_of(SCHEMA, before), own, rng=np.random.default_rng(0))
    assert np.array_equal(with_proof.answer(asked).estimate, without.answer(asked).estimate)
    # What it signed once only does count, until elections look at it.
    received.add(first[~twice], NOW)
    assert len(received.in_force(NOW)) == len(before) + (~twice).sum()
    received.close()


def test_weight_zero_is_the_same_as_not_being_there() -> None:
    rng = np.random.default_rng(7)
    read = honest(rng)
    lie = attack("equivocator", read, 2, rng)
    own = Records(x=rng.random((30, 2)), y=(rng.random(30) < 0.5).astype(np.float64), group=np.arange(30))
    asked = rng.random((10, 2))
    left = lie.take(np.flatnonzero(lie.weight > 0))
    answers = [
        fit(SCHEMA, e, own, rng=np.random.default_rng(0)).answer(asked).estimate
        for e in (lie, Evidence(**{f: getattr(left, f) for f in _FIELDS}))
    ]
    assert np.array_equal(*answers)


_FIELDS = ("x", "node", "nodes", "size", "counts", "mean", "variance", "bucket", "cell")
