"""A second implementation of ``docs/specification.md``: plain integers, no NumPy, nothing of outroute.

Written from the specification alone, to find out whether it says enough. Slow on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

SCALE, MISSING, ONE = 65534, 65535, 2**32 - 1
KINDS = {"binary": 1, "categorical": 2, "numeric": 3}
DISTILLERS = {"cohort": 1, "single": 2, "private": 3}
MAY_SEND = {"cohort": [1], "single": [1, 2], "private": [3]}
LAYOUT = struct.Struct("<4sHBB32s32sQqIII32sI10I116H32s8s")
NAMES = """NONE LENGTH MAGIC FLAGS SCHEMA KIND DISTILLER BUCKET FUTURE LIFETIME EXPIRED SIZE WEIGHT OUTCOME CONDITIONS
CELL FINGERPRINT WITHDRAWAL RESERVED SIGNATURE"""
REASONS = {name: number for number, name in enumerate(re.split(r"\s", NAMES))}
Codes = list[int]


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


# Section 1


def text(value: str) -> str:
    return unicodedata.normalize("NFC", value)


def decimal(value: str) -> str:
    sign, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int)
    number = "".join(map(str, digits))
    if exponent >= 0:
        whole, rest = number + "0" * exponent, ""
    else:
        number = number.rjust(-exponent + 1, "0")
        whole, rest = number[:exponent], number[exponent:].rstrip("0")
    plain = (whole.lstrip("0") or "0") + ("." + rest if rest else "")
    return "-" + plain if sign and plain != "0" else plain


def write(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{write(k)}:{write(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert type(value) is int
    return str(value)


def tidy_field(f: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": text(f["name"]), "kind": f["kind"]}
    out["weight"], out["facet"] = decimal(f.get("weight", "1")), f.get("facet", 0)
    if f["kind"] == "numeric":
        out |= {"low": decimal(f["low"]), "high": decimal(f["high"])}
        out |= {"unit": text(f.get("unit", "")), "integer": f.get("integer", 0)}
    else:
        out["categories"] = [text(c) for c in f["categories"]]
    if f.get("role") == "action":
        out["role"] = "action"
    return out


class Agreed:
    """A schema: what the vectors declare, and what follows from it."""

    def __init__(self, declared: dict[str, Any]) -> None:
        self.fields = [tidy_field(f) for f in declared["fields"]]
        given = declared["landmarks"]
        self.marks = given.get("codes") or (
            grid(self.fields, given["grid"]) if "grid" in given else draw(self.fields, given["draw"])
        )
        o = declared["outcome"]
        self.outcome: dict[str, Any] = {"name": text(o["name"]), "kind": o["kind"]}
        if o["kind"] == "numeric":
            self.outcome |= {"low": decimal(o["low"]), "high": decimal(o["high"]), "unit": text(o.get("unit", ""))}
        else:
            self.outcome["classes"] = [text(c) for c in o["classes"]]
        self.privacy, self.time = dict(declared["privacy"]), declared["time"]
        # What is as it always was is not named.
        for name in ("noise", "flip"):
            written = decimal(self.privacy.pop(name, "0"))
            self.privacy |= {} if written == "0" else {name: written}
        if self.privacy.get("dissent", 1) == 1:
            self.privacy.pop("dissent", None)
        self.artefact = struct.pack("<4sHHI", b"ORLM", 1, len(self.marks[0]), len(self.marks))
        self.artefact += b"".join(struct.pack(f"<{len(m)}H", *m) for m in self.marks)
        self.marks_id = sha(b"outroute landmarks v1\0", self.artefact)
        self.canonical = write(
            {
                "version": 1,
                "name": text(declared["name"]),
                "fields": self.fields,
                "outcome": self.outcome,
                "privacy": {**self.privacy, "subject": text(self.privacy["subject"])},
                "time": self.time,
                "landmarks": self.marks_id.hex(),
                "parent": declared["parent"],
                **agreement(declared),
            }
        ).encode()
        self.id = sha(b"outroute schema v1\0", self.canonical)
        self.weights: Codes = []
        self.parts: list[tuple[dict[str, Any], slice]] = []
        for f in self.fields:
            hundredths = int(Decimal(f["weight"]) * 100)
            wide = width(f)
            self.parts.append((f, slice(len(self.weights), len(self.weights) + wide)))
            self.weights += [2 * hundredths] if f["kind"] == "numeric" else [hundredths] * wide
        self.centre = [sum(column) // len(self.marks) for column in zip(*self.marks, strict=True)]
        self.signs = [
            int.from_bytes(sha(b"outroute sketch v1\0", self.id, struct.pack("<H", d)), "little")
            for d in range(len(self.weights))
        ]


def agreement(declared: dict[str, Any]) -> dict[str, Any]:
    if not declared.get("organisations"):
        return {}
    return {"organisations": sorted(declared["organisations"]), "quorum": declared["quorum"]}


def counted(s: Agreed, signatures: list[tuple[bytes, bytes]]) -> list[str]:
    named = json.loads(s.canonical).get("organisations", [])
    good = {key.hex() for key, mark in signatures if signed(key, b"outroute schema v1\0" + s.id, mark)}
    return sorted(good & set(named))


def width(f: dict[str, Any]) -> int:
    return 1 if f["kind"] == "numeric" else len(f["categories"])


# Section 2


def draw(fields: list[dict[str, Any]], count: int) -> list[Codes]:
    seed, attempt, repeats = write(fields).encode(), 0, 0
    rows: list[Codes] = []
    while len(rows) < count and repeats < 256:
        stream = hashlib.shake_256(b"outroute draw v1\0" + struct.pack("<I", attempt) + seed).digest(4 * len(fields))
        row: Codes = []
        for f, u in zip(fields, struct.unpack(f"<{len(fields)}I", stream), strict=True):
            if f["kind"] == "numeric":
                row.append((u * (SCALE + 1)) >> 32)
            else:
                chosen = (u * width(f)) >> 32
                row += [SCALE if i == chosen else 0 for i in range(width(f))]
        attempt += 1
        if row in rows:
            repeats += 1
        else:
            rows.append(row)
            repeats = 0
    return rows


def grid(fields: list[dict[str, Any]], levels: dict[str, int]) -> list[Codes]:
    rows: list[Codes] = [[]]
    for f in fields:
        n, wide = levels.get(f["name"], 1), width(f)
        if f["kind"] == "numeric":
            parts = [[(2 * i + 1) * SCALE // (2 * n)] for i in range(n)]
        elif n > 1 or f["facet"]:
            parts = [[SCALE if i == j else 0 for j in range(wide)] for i in range(n)]
        else:
            parts = [[SCALE // wide + (j < SCALE % wide) for j in range(wide)]]
        rows = [row + part for row in rows for part in parts]
    return rows


# Section 3


def distance(s: Agreed, codes: Codes, mark: Codes) -> int:
    return sum(w * (x - m) ** 2 for w, x, m in zip(s.weights, codes, mark, strict=True) if x != MISSING)


def nearest(s: Agreed, codes: Codes, count: int) -> Codes:
    return sorted(range(len(s.marks)), key=lambda i: (distance(s, codes, s.marks[i]), i))[:count]


def cell(s: Agreed, codes: Codes) -> int:
    return nearest(s, codes, 1)[0]


def fingerprint(s: Agreed, codes: Codes) -> bytes:
    bits = 0
    terms = [
        (w * (x - c), sign) for w, x, c, sign in zip(s.weights, codes, s.centre, s.signs, strict=True) if x != MISSING
    ]
    for j in range(256):
        if sum(value if sign >> j & 1 else -value for value, sign in terms) > 0:
            bits |= 1 << j
    return bits.to_bytes(32, "little")


def facet_number(s: Agreed, codes: Codes) -> int:
    number = 0
    for f, where in s.parts:
        if f["facet"]:
            part = codes[where]
            number = number * (width(f) + 1) + (width(f) if part[0] == MISSING else part.index(SCALE))
    return number


def address(s: Agreed, facet: int, at: int, secret: bytes) -> bytes:
    return hmac.new(secret, b"outroute address v1\0" + s.id + struct.pack("<QI", facet, at), "sha256").digest()


# Section 4


def quantise(f: dict[str, Any], value: float) -> int:
    low, high = float(f["low"]), float(f["high"])
    return round((value - low) / (high - low) * SCALE)


def cohort(s: Agreed, members: list[Codes]) -> Codes:
    out: Codes = []
    for f, where in s.parts:
        present = [m[where] for m in members if m[where][0] != MISSING]
        n = len(present)
        if not n:
            out += [MISSING] * width(f)
            continue
        sums = [sum(column) for column in zip(*present, strict=True)]
        if f["kind"] == "numeric":
            out.append((2 * sums[0] + n) // (2 * n))
            continue
        share = [total // n for total in sums]
        order = sorted(range(len(sums)), key=lambda c: (-(sums[c] - n * share[c]), c))
        for c in order[: SCALE - sum(share)]:
            share[c] += 1
        out += share
    return out


def moments(s: Agreed, mean: float, variance: float) -> tuple[int, int]:
    low, high = float(s.outcome["low"]), float(s.outcome["high"])
    first = round(min(max((mean - low) / (high - low), 0.0), 1.0) * ONE)
    second = round(min(max(4 * variance / (high - low) ** 2, 0.0), 1.0) * ONE)
    return first, min(second, 4 * first * (ONE - first) // ONE)


def commitment(secret: bytes, observations: list[tuple[Codes, float]]) -> bytes:
    rows = sorted(struct.pack(f"<{len(c)}Hd", *c, y) for c, y in observations)
    return hmac.new(secret, b"outroute commitment v1\0" + b"".join(rows), "sha256").digest()


def plain(s: Agreed, codes: Codes) -> Codes:
    """Without facets."""
    out = list(codes)
    for f, where in s.parts:
        if f["facet"]:
            out[where] = [MISSING] * width(f)
    return out


def regions(s: Agreed) -> list[Codes]:
    marks: list[Codes] = []
    for mark in s.marks:
        if plain(s, mark) not in [plain(s, other) for other in marks]:
            marks.append(mark)
    wanted: list[Codes] = []
    combinations = 1
    for f, _ in s.parts:
        combinations *= width(f) + 1 if f["facet"] else 1
    for number in range(combinations):
        for mark in marks:
            row, left = list(mark), number
            for f, where in reversed(s.parts):
                if f["facet"]:
                    left, a = divmod(left, width(f) + 1)
                    row[where] = [MISSING if a == width(f) else SCALE * (i == a) for i in range(width(f))]
            wanted.append(row)
    return wanted


def region(s: Agreed, codes: Codes) -> int:
    at = plain(s, s.marks[cell(s, plain(s, codes))])
    number = facet_number(s, codes)
    return next(i for i, row in enumerate(regions(s)) if plain(s, row) == at and facet_number(s, row) == number)


def adds(s: Agreed, outcome: float) -> Codes:
    """Of a number."""
    low, high = float(s.outcome["low"]), float(s.outcome["high"])
    step = round((min(max((outcome - low) / (high - low), 0.0), 1.0) * 2 - 1) * 16384)
    return [1, step, (step * step + 8192) // 16384 - 8192]


# Section 5


def packet(s: Agreed, seed: bytes, p: dict[str, Any]) -> bytes:
    key = SigningKey(seed)
    codes = p["conditions"]
    body = LAYOUT.pack(
        b"ORP\x01",
        0,
        KINDS[s.outcome["kind"]],
        DISTILLERS[p["distiller"]],
        s.id,
        bytes(key.verify_key),
        p["sequence"],
        p["bucket"],
        p["lifetime"],
        p["size"],
        p["subjects"] << 16,
        fingerprint(s, codes),
        cell(s, codes),
        *(p["outcome"] + [0] * (10 - len(p["outcome"]))),
        *(codes + [0] * (116 - len(codes))),
        bytes.fromhex(p["commitment"]),
        bytes(8),
    )
    return body + key.sign(b"outroute packet v1\0" + body).signature


def withdrawal(seed: bytes, data: bytes) -> bytes:
    body = data[:4] + b"\1\0" + data[6:92] + bytes(40) + data[132:136] + bytes(312)
    return body + SigningKey(seed).sign(b"outroute packet v1\0" + body).signature


def identity(data: bytes) -> bytes:
    return sha(data[:448])


def slot(data: bytes) -> bytes:
    return data[40:72] + data[8:40] + data[132:136] + data[72:80]


def expiry(s: Agreed, data: bytes) -> int:
    bucket, lifetime = struct.unpack_from("<qI", data, 80)
    return int(bucket + s.time["bucket"] + lifetime)


def node_id(key: bytes) -> bytes:
    return sha(b"outroute node v1\0", key)


# Section 6


def signed(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def accept(s: Agreed, data: bytes, now: int) -> str:
    """Name of the reason."""
    if len(data) != 512:
        return "LENGTH"
    values = LAYOUT.unpack(data[:448])
    magic, flags, kind, distiller, schema, author, _, bucket, lifetime, size, weight, sketch, at = values[:13]
    outcome, conditions, committed, reserved = list(values[13:23]), list(values[23:139]), values[139], values[140]
    k, wide = s.privacy["k"], len(s.weights)
    codes = conditions[:wide]
    gone, noisy = flags & 1, s.privacy["distiller"] == "private"
    content = size or weight or any(outcome) or any(conditions) or any(sketch) or any(committed)
    rules: list[tuple[str, Callable[[], object]]] = [
        ("MAGIC", lambda: magic != b"ORP\x01"),
        ("SCHEMA", lambda: schema != s.id),
        ("FLAGS", lambda: flags > 1),
        ("KIND", lambda: kind != KINDS[s.outcome["kind"]]),
        (
            "DISTILLER",
            lambda: distiller not in {"cohort": [1], "single": [1, 2], "private": [3]}[s.privacy["distiller"]],
        ),
        ("WITHDRAWAL", lambda: gone and content),
        ("BUCKET", lambda: not -(2**40) < bucket < 2**40 or bucket % s.time["bucket"]),
        ("FUTURE", lambda: bucket > now + 600),
        ("LIFETIME", lambda: not 0 < lifetime <= s.time["lifetime"]),
        ("EXPIRED", lambda: bucket + s.time["bucket"] + lifetime <= now),
        ("CELL", lambda: at >= len(s.marks)),
        *((name, lambda broken=broken: not gone and broken(s, values)) for name, broken in NOISY if noisy),
        ("SIZE", lambda: not gone and not noisy and (not k <= size <= 65535 or (distiller == 2 and size != 1))),
        ("WEIGHT", lambda: not gone and not noisy and not k << 16 <= weight <= size << 16),
        ("OUTCOME", lambda: not gone and not noisy and bad_outcome(s, size, outcome)),
        ("CONDITIONS", lambda: not gone and (bad_codes(s, codes) or any(conditions[wide:]))),
        ("RESERVED", lambda: any(reserved)),
        ("CONDITIONS", lambda: not gone and noisy and plain(s, codes) not in [plain(s, mark) for mark in s.marks]),
        ("RESERVED", lambda: not gone and noisy and any(committed)),
        ("CELL", lambda: not gone and at != cell(s, codes)),
        ("FINGERPRINT", lambda: not gone and sketch != fingerprint(s, codes)),
        ("SIGNATURE", lambda: not signed(author, b"outroute packet v1\0" + data[:448], data[448:])),
    ]
    return next((name for name, broken in rules if broken()), "NONE")


def sums_of(s: Agreed, values: tuple[Any, ...]) -> Codes:
    """The sums of a packet, signed."""
    count = 3 if s.outcome["kind"] == "numeric" else len(s.outcome["classes"])
    return [v - 2**32 if v >= 2**31 else v for v in values[13 : 13 + count]]


def wrong_size(s: Agreed, values: tuple[Any, ...]) -> bool:
    sums, k = sums_of(s, values), s.privacy["k"]
    total = sums[0] if s.outcome["kind"] == "numeric" else sum(sums)
    return values[9] != min(max(total, 0), 65535) or (k > 1 and values[9] < k and any(sums))


NOISY: list[tuple[str, Callable[[Agreed, tuple[Any, ...]], bool]]] = [
    ("SIZE", wrong_size),
    ("WEIGHT", lambda s, values: values[10] != 0),
    ("OUTCOME", lambda s, values: any(values[13 + len(sums_of(s, values)) : 23])),
]


def bad_outcome(s: Agreed, size: int, outcome: Codes) -> bool:
    if s.outcome["kind"] != "numeric":
        classes = len(s.outcome["classes"])
        return sum(outcome[:classes]) != size or any(outcome[classes:])
    mean, variance = outcome[:2]
    return variance > Fraction(4 * mean * (ONE - mean), ONE) or any(outcome[2:]) or (size == 1 and variance > 0)


def bad_codes(s: Agreed, codes: Codes) -> bool:
    for f, where in s.parts:
        part = codes[where]
        if f["kind"] == "numeric" or part == [MISSING] * len(part):
            continue
        if sum(part) != SCALE or (f["facet"] and SCALE not in part):
            return True
    return False


# Section 7


def certificate(organisation: bytes, node: bytes, not_before: int, not_after: int) -> bytes:
    key = SigningKey(organisation)
    body = bytes(key.verify_key) + bytes(SigningKey(node).verify_key) + struct.pack("<qq", not_before, not_after)
    return body + key.sign(b"outroute certificate v1\0" + body).signature


def genuine(data: bytes) -> bool:
    """Whether all signatures of a statement are right."""
    kind, body = data[4], data[5:]
    if kind == 1:
        return genuine_certificate(body[:144]) and signed(
            body[32:64], b"outroute membership v1\0" + body[:144], body[144:]
        )
    if kind == 2:
        return signed(body[:32], b"outroute revocation v1\0" + body[:73], body[73:])
    said, first, last = body[:-128], body[-128:-64], body[-64:]
    prefixed = b"outroute succession v1\0" + said
    vouched = not body[72] or (said[73 + 32 : 73 + 64] == body[32:64] and genuine_certificate(said[73:]))
    return vouched and signed(body[:32], prefixed, first) and signed(body[32:64], prefixed, last)


def genuine_certificate(data: bytes) -> bool:
    return signed(data[:32], b"outroute certificate v1\0" + data[:80], data[80:])


class Known:
    """What a set of statements says, read from the specification, one rule after the other."""

    def __init__(self, statements: list[bytes]) -> None:
        said = [one for one in statements if genuine(one)]
        self.members = [(d[5:37], d[37:69], *struct.unpack_from("<qq", d, 69)) for d in said if d[4] == 1]
        self.revocations = [(d[5:37], d[37:69], d[77]) for d in said if d[4] == 2]
        self.steps = [(d[5:37], d[37:69], d[78:110] if d[77] else b"") for d in said if d[4] == 3]
        own = {s for o, s, bad in self.revocations if o == s and bad}
        free = [(a, b) for a, b, _ in self.steps if not self.orgs(a) and a not in own]
        self.links = self.unambiguous(free)
        vouched = [(a, b) for a, b, by in self.steps if by and {self.origin(by)} & set(map(self.origin, self.orgs(a)))]
        self.links = self.unambiguous(free + vouched)

    def orgs(self, key: bytes) -> set[bytes]:
        return {org for org, node, _, _ in self.members if node == key}

    @staticmethod
    def unambiguous(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        pairs = sorted(set(pairs))
        good = {a: b for a, b in pairs if sum(x == a for x, _ in pairs) == 1 and sum(y == b for _, y in pairs) == 1}

        def circles(key: bytes) -> bool:
            at = good[key]
            while at in good and at != key:
                at = good[at]
            return at == key

        return {a: b for a, b in good.items() if not circles(a)}

    def origin(self, key: bytes) -> bytes:
        return self.chain(key)[0]

    def chain(self, key: bytes) -> list[bytes]:
        back = {b: a for a, b in self.links.items()}
        while key in back:
            key = back[key]
        out = [key]
        while out[-1] in self.links:
            out.append(self.links[out[-1]])
        return out

    def organisation(self, key: bytes, now: int) -> bytes:
        gone = {s for o, s, _ in self.revocations if o == s}
        rows = [
            (start, end, org)
            for org, node, start, end in self.members
            if node == key and start - 600 <= now <= end + 600 and org not in gone and not self.orgs(org) - {org}
        ]
        return self.origin(max(rows)[2] if rows else key)

    def revoked(self, key: bytes, now: int) -> tuple[bool, bool]:
        heirs = self.orgs(key)
        for _ in self.steps:
            heirs |= {b for a, b, _ in self.steps if a in heirs}
        why = [bad for o, s, bad in self.revocations if s == key and (o == key or o in heirs)]
        gone = {s: bad for o, s, bad in self.revocations if o == s}
        live = {org for org, node, start, end in self.members if node == key and start - 600 <= now <= end + 600}
        if not live - set(gone):
            why += [gone[org] for org in self.orgs(key) if org in gone]
        return bool(why), any(why)


def holds(data: bytes, now: int) -> bool:
    not_before, not_after = struct.unpack_from("<qq", data, 64)
    inside = not_before - 600 <= now <= not_after + 600
    return inside and signed(data[:32], b"outroute certificate v1\0" + data[:80], data[80:])
