"""Every vector against the second implementation, and the files against the script that writes them."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from outroute.identity import Certificate, Identity, Learned, Register, node_id
from outroute.packet import Rejection, accept, as_packets, withdraw
from outroute.schema import Landmarks

from . import second, second_shares

VECTORS = Path(__file__).parents[2] / "vectors"


def read(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def generate() -> Any:
    sys.path.insert(0, str(VECTORS))
    try:
        return importlib.import_module("generate")
    finally:
        sys.path.remove(str(VECTORS))


@pytest.fixture(scope="module")
def agreed() -> dict[str, second.Agreed]:
    return {case["schema"]: second.Agreed(case["declared"]) for case in read("schemas")}


def test_the_script_writes_the_same_files(generate: Any) -> None:
    made = generate.files()
    assert sorted(made) == sorted(p.name for p in VECTORS.glob("*.json"))
    for name, text in made.items():
        assert text == (VECTORS / name).read_text(encoding="utf-8"), f"{name}: run python vectors/generate.py"


def test_schemas(agreed: dict[str, second.Agreed]) -> None:
    cases = read("schemas")
    assert {c["declared"]["outcome"]["kind"] for c in cases} == {"binary", "categorical", "numeric"}
    for case in cases:
        s = agreed[case["schema"]]
        assert s.canonical == case["canonical_text"].encode() == bytes.fromhex(case["canonical"])
        assert json.loads(s.canonical)["landmarks"] == case["landmarks"]["id"] == s.marks_id.hex()
        assert s.id.hex() == case["id"]
        assert len(s.weights) == case["width"]
        assert s.weights == case["slot_weights"]
        assert s.artefact.hex() == case["landmarks_artefact"]
        assert len(s.marks) == case["landmarks"]["count"]
        assert Landmarks.from_bytes(s.artefact).codes.tolist() == s.marks


def test_agreements() -> None:
    cases = read("agreements")
    reached = set()
    for case in cases:
        s = second.Agreed(case["declared"])
        assert s.canonical == case["canonical_text"].encode()
        assert s.id.hex() == case["id"]
        keys = {bytes(SigningKey(bytes.fromhex(seed)).verify_key).hex() for seed in case["seeds"]}
        assert keys == set(case["declared"]["organisations"])
        for one in case["signed"]:
            pairs = [(bytes.fromhex(x["organisation"]), bytes.fromhex(x["signature"])) for x in one["signatures"]]
            assert second.counted(s, pairs) == one["counted"], one["note"]
            assert (len(one["counted"]) >= case["declared"]["quorum"]) == one["quorum_reached"]
            reached.add(one["quorum_reached"])
    assert reached == {True, False}


def test_conditions(agreed: dict[str, second.Agreed]) -> None:
    for case in read("conditions"):
        s, codes = agreed[case["schema"]], case["codes"]
        assert not second.bad_codes(s, codes)
        assert second.fingerprint(s, codes).hex() == case["fingerprint"]
        assert second.nearest(s, codes, 4) == case["nearest"]
        assert second.cell(s, codes) == case["cell"]
        assert second.facet_number(s, codes) == case["facet"]
        assert second.address(s, case["facet"], case["cell"], b"").hex() == case["address"]
        secret = bytes.fromhex(case["secret"])
        assert second.address(s, case["facet"], case["cell"], secret).hex() == case["address_with_secret"]


def test_encodings(agreed: dict[str, second.Agreed]) -> None:
    cases = read("encodings")
    for case in cases["values"]:
        (f,) = (f for f in agreed[case["schema"]].fields if f["name"] == case["field"])
        assert [second.quantise(f, v) for v in case["values"]] == case["codes"]
    for case in cases["cohorts"]:
        assert second.cohort(agreed[case["schema"]], case["members"]) == case["codes"]
    for case in cases["outcomes"]:
        assert list(second.moments(agreed[case["schema"]], case["mean"], case["variance"])) == case["codes"]


def test_private() -> None:
    cases = read("private")
    known = {case["schema"]: second.Agreed(case["declared"]) for case in cases["schemas"]}
    for case in cases["schemas"]:
        s = known[case["schema"]]
        assert s.canonical == case["canonical_text"].encode()
        assert s.id.hex() == case["id"]
        assert s.marks == case["landmarks"]
    for case in cases["regions"]:
        rows = second.regions(known[case["schema"]])
        assert rows == case["codes"]
        assert [second.facet_number(known[case["schema"]], row) for row in rows] == case["facets"]
    for case in cases["assigned"]:
        assert second.region(known[case["schema"]], case["codes"]) == case["region"]
    for case in cases["added"]:
        assert second.adds(known[case["schema"]], case["outcome"]) == case["adds"]
    for case in cases["packets"]:
        s, data = known[case["schema"]], bytes.fromhex(case["bytes"])
        assert second.packet(s, bytes.fromhex(case["author_seed"]), case) == data
        assert second.accept(s, data, case["now"]) == "NONE"
        assert [v % 2**32 for v in case["sums"]] == case["outcome"]
        facet = second.facet_number(s, case["conditions"])
        assert second.address(s, facet, second.cell(s, case["conditions"]), b"").hex() == case["address"]
    for case in cases["rejected"]:
        assert second.accept(known[case["schema"]], bytes.fromhex(case["bytes"]), case["now"]) == case["reason"]


def test_packets(agreed: dict[str, second.Agreed]) -> None:
    kinds = set()
    for case in read("packets"):
        s, data = agreed[case["schema"]], bytes.fromhex(case["bytes"])
        seed = bytes.fromhex(case["author_seed"])
        kinds.add((s.outcome["kind"], "withdraws" in case))
        if "withdraws" in case:
            assert second.withdrawal(seed, bytes.fromhex(case["withdraws"])) == data
            assert second.slot(bytes.fromhex(case["withdraws"])) == second.slot(data)
        else:
            assert second.packet(s, seed, case) == data
        assert second.accept(s, data, case["now"]) == "NONE"
        assert second.identity(data).hex() == case["identity"]
        assert second.slot(data).hex() == case["slot"]
        assert second.expiry(s, data) == case["expiry"]
        assert second.node_id(bytes(SigningKey(seed).verify_key)).hex() == case["node"]
        if "committed" in case:
            proof = case["committed"]
            observations = list(zip(proof["codes"], proof["outcomes"], strict=True))
            made = second.commitment(bytes.fromhex(proof["secret"]), observations)
            assert made.hex() == case["commitment"]
    assert len(kinds) == 6


def test_rejected(agreed: dict[str, second.Agreed]) -> None:
    cases = read("rejected")
    assert {c["number"] for c in cases} == set(range(1, 20)), "every reason is met"
    for case in cases:
        assert second.accept(agreed[case["schema"]], bytes.fromhex(case["bytes"]), case["now"]) == case["reason"], case
        assert second.REASONS[case["reason"]] == case["number"] == Rejection[case["reason"]]


def test_both_read_the_reasons_alike() -> None:
    assert {r.name: int(r) for r in Rejection} == second.REASONS


def test_both_agree_on_packets_of_other_schemas(generate: Any, agreed: dict[str, second.Agreed]) -> None:
    """Each vector against each schema at two times: the same reason from both implementations."""
    known = {key: generate.make_schema(d) for key, d in generate.declared().items()}
    for case in [*read("packets"), *read("rejected")]:
        data = bytes.fromhex(case["bytes"])
        if len(data) != 512:
            continue
        for key in ("heart", "stay", "tiny"):
            for now in (case["now"], case["now"] + 10**10):
                (reason,) = accept(data, known[key], now).reason.tolist()
                assert Rejection(reason).name == second.accept(agreed[key], data, now)


def test_certificates() -> None:
    cases = read("certificates")
    for case in cases:
        data = bytes.fromhex(case["bytes"])
        made = second.certificate(
            bytes.fromhex(case["organisation_seed"]),
            bytes.fromhex(case["node_seed"]),
            case["not_before"],
            case["not_after"],
        )
        assert (made == data) == any(h["holds"] for h in case["holds"])
        for h in case["holds"]:
            assert second.holds(data, h["now"]) == Certificate.from_bytes(data).holds(h["now"]) == h["holds"]
    assert {h["holds"] for case in cases for h in case["holds"]} == {True, False}


def test_statements() -> None:
    told = set()
    for case in read("statements"):
        data = [bytes.fromhex(one) for one in case["statements"]]
        now = case["now"]
        for order in (data, data[::-1]):
            register, known = Register(), second.Known(order)
            for one in order:
                assert isinstance(register.learn(one, now), Learned)
            for said in case["keys"]:
                key = bytes.fromhex(said["key"])
                assert register.organisation_of(key, now) == known.organisation(key, now)
                assert known.organisation(key, now).hex() == said["organisation"], case["note"]
                both = said["revoked"], said["compromised"]
                assert (register.revoked(key, now), register.compromised(key, now)) == known.revoked(key, now) == both
                chain = [bytes.fromhex(one) for one in said["chain"]]
                assert list(register.lineage(key)) == known.chain(key) == chain, case["note"]
                told.add((*both, len(chain)))
        assert all(second.genuine(one) for one in data)
    assert told == {(False, False, 1), (True, False, 1), (True, True, 1), (False, False, 2)}


def test_keys_agree() -> None:
    seed = bytes(range(32))
    assert Identity(seed).public_key == bytes(SigningKey(seed).verify_key)
    assert node_id(Identity(seed).public_key) == second.node_id(Identity(seed).public_key)


def test_a_withdrawal_is_made_alike(agreed: dict[str, second.Agreed]) -> None:
    case = next(c for c in read("packets") if c["schema"] == "heart" and "withdraws" not in c)
    seed, data = bytes.fromhex(case["author_seed"]), bytes.fromhex(case["bytes"])
    made = withdraw(as_packets(data), Identity(seed)).tobytes()
    assert made == second.withdrawal(seed, data)
    assert second.accept(agreed["heart"], made, case["now"]) == "NONE"


def test_shares(agreed: dict[str, second.Agreed]) -> None:
    for case in read("shares"):
        s = agreed[case["schema"]]
        for one in case["contributions"]:
            whole = second_shares.vector(s, one["codes"], one["outcome"])
            first = second_shares.drawn(bytes.fromhex(one["seed"]), len(whole))
            other = bytes.fromhex(one["other_share"])
            numbers = [int.from_bytes(other[at : at + 8], "little") for at in range(0, len(other), 8)]
            assert [(a + b) % 2**64 for a, b in zip(first, numbers, strict=True)] == whole
        window = max(s.time["bucket"], s.time["lifetime"] // 4)
        groups = second_shares.cohorts(s, case["contributions"], case["k"], window)
        added = sorted(one["id"] for group in groups for one in group)
        assert added == case["added"]
        assert hashlib.sha256(bytes.fromhex("".join(added))).hexdigest() == case["digest"]
        assert case["cohorts"] == [
            [g[0]["facet"], min(o["cell"] for o in g), max(o["bucket"] for o in g), len(g), len({o["site"] for o in g})]
            for g in groups
        ]
        pair = second_shares.pair_key([bytes.fromhex(seed) for seed in case["synthesizer_seeds"]], s.id)
        assert pair.hex() == case["pair_key"]
        packets = [bytes.fromhex(one) for one in case["packets"]]
        assert sum(int.from_bytes(data[92:96], "little") for data in packets) == len(added)
        for number, data in enumerate(packets):
            assert data[40:72] == pair
            named = hashlib.sha256(bytes.fromhex(case["digest"]) + number.to_bytes(4, "little")).digest()[:8]
            assert data[72:80] == named
            now = int.from_bytes(data[80:88], "little", signed=True) + s.time["bucket"]
            assert second.accept(s, data, now) == "NONE"
