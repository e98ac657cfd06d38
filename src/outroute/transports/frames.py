"""Frames: what travels between two nodes, whatever carries it.

A frame has a fixed header of 72 bytes, little-endian, and a body whose length follows from it. Reading is
total: any bytes give a ``Frame`` or a ``Rejected``, never an exception. There is one encoding only: a frame
that is read and written again gives the same bytes.

| bytes | field |
|---|---|
| 4 | ``ORF`` and version 1 |
| 1 | kind |
| 1 | flags |
| 2 | count: packets, receipts, identities, announcements or statements; the cap of a question |
| 2 | cells: how many addresses |
| 2 | wanted: how many authors a question names; zero in all other kinds |
| 4 | bytes of the body |
| 8 | sequence: the sender's number of this exchange; the reply repeats it |
| 16 | cause id: the same from observe to acknowledgement, for logs |
| 32 | schema id, or zero |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, unique
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from outroute.identity import STATEMENT_BYTES
from outroute.packet import PACKET_BYTES, PACKET_DTYPE, PacketArray, as_packets
from outroute.placement import Wanted

__all__ = [
    "ADDRESSES_PER_FRAME",
    "ANNOUNCEMENT_BYTES",
    "AUTHORS_PER_FRAME",
    "FRAME_BYTES",
    "FRAME_PACKETS",
    "HEADER_BYTES",
    "IDENTITIES_PER_FRAME",
    "Flag",
    "Frame",
    "FrameReason",
    "Kind",
    "Rejected",
    "decode",
    "encode",
]

#: Packets of a frame, at most. One packet per message costs 4 to 60 times as much on every transport that
#: was measured; from 64 to 128 on nothing more is won, and a larger frame only waits longer.
FRAME_PACKETS = 128

#: Addresses of a question, or cells of a deposit, at most: a question probes up to 64 cells and more.
ADDRESSES_PER_FRAME = 128

#: Authors that a question names, at most: the better ones of those that its cells have, at ten bytes each.
AUTHORS_PER_FRAME = 64

#: Identities in one listing frame: about as many bytes as a full frame of packets.
IDENTITIES_PER_FRAME = 2048

#: Bytes of one announcement, at most: keys, certificate, signature, and an endpoint of 256 bytes.
ANNOUNCEMENT_BYTES = 640

_HEADER = struct.Struct("<4sBBHHHIQ16s32s")
HEADER_BYTES = _HEADER.size
"""Bytes of a frame before its body."""
_WANTED = struct.Struct("<QH")
_MAGIC = b"ORF\x01"
_ADDRESS = 32
_CAUSE = 16
_NO_CAUSE = bytes(_CAUSE)
_NO_SCHEMA = bytes(32)
_NO_JOURNAL = bytes(16)
_RUN = np.dtype([("address", "V32"), ("count", "<u2")])
_ANSWER = np.dtype([("address", "V32"), ("digest", "V32"), ("count", "<u2"), ("left_out", "<u4")])
_PAIR = struct.Struct("<32s32s")
_LISTED = struct.Struct("<B32s")
_LENGTH = struct.Struct("<H")
_WAIT = struct.Struct("<I")
_READ = struct.Struct("<16sQ")

#: Bytes of the largest frame: a full deposit or answer, or a full frame of announcements.
FRAME_BYTES = _HEADER.size + max(
    FRAME_PACKETS * PACKET_BYTES + ADDRESSES_PER_FRAME * _ANSWER.itemsize,
    IDENTITIES_PER_FRAME * _LISTED.size + _ADDRESS,
    FRAME_PACKETS * (ANNOUNCEMENT_BYTES + _LENGTH.size),
)


@unique
class Kind(IntEnum):
    """What a frame is; the numbers are stable."""

    DEPOSIT = 1
    RECEIPTS = 2
    ASK = 3
    ANSWER = 4
    COMPARE = 5
    DIGESTS = 6
    LIST = 7
    LISTING = 8
    ANNOUNCE = 9
    BUSY = 10
    REFUSED = 11
    STATEMENTS = 12


class Flag(IntFlag):
    """Bits of a frame's flags."""

    NONE = 0
    #: More frames of this reply follow.
    MORE = 1
    #: Between holders, not from an author or asker.
    REPAIR = 2
    #: Of a question: withdrawals and proofs too. Of announcements: tell me everybody, I know nothing any more.
    WHOLE = 4


@unique
class FrameReason(IntEnum):
    """Why a frame is refused; the numbers are stable."""

    LENGTH = 1
    MAGIC = 2
    KIND = 3
    FLAGS = 4
    COUNT = 5
    ZERO = 6
    RUNS = 7
    BODY = 8
    #: A well-formed frame that has no place here: a reply without a question.
    UNEXPECTED = 9
    #: The member that sent it is revoked.
    REVOKED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Bytes that are no frame."""

    reason: FrameReason


_NO_PACKETS: PacketArray = np.empty(0, dtype=PACKET_DTYPE)
_NO_RECEIPTS: NDArray[np.uint8] = np.empty((0, 2), dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One frame, taken apart. Which fields mean something depends on the kind.

    Attributes:
        kind: what it is.
        flags: see ``Flag``.
        sequence: number of the exchange, below 2**64.
        cause: 16 bytes.
        schema: 32 bytes.
        cap: ASK, COMPARE: packets wanted per cell.
        wanted: ASK, COMPARE: whose packets, by ascending author; none: everybody's (``placement.answered``).
        addresses: DEPOSIT, ASK, ANSWER, COMPARE, DIGESTS; exactly one in LIST and LISTING.
        counts: DEPOSIT, ANSWER: packets of each address, in order; they sum to the number of packets.
        left_out: ANSWER: packets of each cell that are not shown.
        digests: 32 bytes per address: in ANSWER of what is not shown, in DIGESTS of everything (``Summary``).
        packets: DEPOSIT, ANSWER: PACKET_DTYPE[n].
        receipts: RECEIPTS: uint8[n, 2], receipt and reason of each packet of the deposit.
        listed: LISTING: part and identity of each entry.
        announcements: ANNOUNCE: opaque here, see ``outroute.transports.contract``.
        statements: STATEMENTS: opaque here, see ``outroute.identity.read_statement``.
        journal: STATEMENTS: 16 bytes that name a list of statements: of the receiver's in a question, of the
            sender's own in a reply; zero where none is known.
        place: STATEMENTS: up to where that list has been read.
        detail: BUSY: milliseconds to wait; REFUSED: a ``FrameReason``.
    """

    kind: Kind
    flags: Flag = Flag.NONE
    sequence: int = 0
    cause: bytes = _NO_CAUSE
    schema: bytes = _NO_SCHEMA
    cap: int = 0
    wanted: tuple[Wanted, ...] = ()
    addresses: tuple[bytes, ...] = ()
    counts: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    digests: tuple[bytes, ...] = ()
    packets: PacketArray = field(default_factory=lambda: _NO_PACKETS)
    receipts: NDArray[np.uint8] = field(default_factory=lambda: _NO_RECEIPTS)
    listed: tuple[tuple[int, bytes], ...] = ()
    announcements: tuple[bytes, ...] = ()
    statements: tuple[bytes, ...] = ()
    journal: bytes = _NO_JOURNAL
    place: int = 0
    detail: int = 0


_KINDS = {int(kind): kind for kind in Kind}
_FLAGS = tuple(Flag(bits) for bits in range(8))

#: Per kind: flags allowed, the highest count, the highest number of cells.
_LIMITS: dict[Kind, tuple[Flag, int, int]] = {
    Kind.DEPOSIT: (Flag.REPAIR, FRAME_PACKETS, ADDRESSES_PER_FRAME),
    Kind.RECEIPTS: (Flag.NONE, FRAME_PACKETS, 0),
    Kind.ASK: (Flag.WHOLE, 0xFFFF, ADDRESSES_PER_FRAME),
    Kind.ANSWER: (Flag.MORE, FRAME_PACKETS, ADDRESSES_PER_FRAME),
    Kind.COMPARE: (Flag.REPAIR, 0xFFFF, ADDRESSES_PER_FRAME),
    Kind.DIGESTS: (Flag.NONE, 0, ADDRESSES_PER_FRAME),
    Kind.LIST: (Flag.REPAIR, 0, 1),
    Kind.LISTING: (Flag.MORE, IDENTITIES_PER_FRAME, 1),
    Kind.ANNOUNCE: (Flag.WHOLE, FRAME_PACKETS, 0),
    Kind.BUSY: (Flag.NONE, 0, 0),
    Kind.REFUSED: (Flag.NONE, 0, 0),
    Kind.STATEMENTS: (Flag.MORE, FRAME_PACKETS, 0),
}


#: Per kind, but for those with packets, announcements and statements: bytes of a body, and how many more for each
#: cell and each count.
_BODY_BYTES: dict[Kind, tuple[int, int, int]] = {
    Kind.RECEIPTS: (0, 0, 2),
    Kind.ASK: (0, _ADDRESS, 0),
    Kind.COMPARE: (0, _ADDRESS, 0),
    Kind.DIGESTS: (0, _PAIR.size, 0),
    Kind.LIST: (0, _ADDRESS, 0),
    Kind.LISTING: (_ADDRESS, 0, _LISTED.size),
    Kind.BUSY: (_WAIT.size, 0, 0),
    Kind.REFUSED: (1, 0, 0),
}


def encode(frame: Frame) -> bytes:
    """The bytes of a frame.

    Raises:
        ValueError: the frame is over a limit or inconsistent (a mistake of the caller's, found by reading
            the result back in tests; here only what ``struct`` itself notices).
    """
    count, body = _body(frame)
    header = _HEADER.pack(
        _MAGIC,
        frame.kind,
        frame.flags,
        count,
        len(frame.addresses),
        len(frame.wanted),
        len(body),
        frame.sequence,
        frame.cause,
        frame.schema,
    )
    data = header + body
    if len(data) > FRAME_BYTES:
        raise ValueError(f"a frame has at most {FRAME_BYTES} bytes, this one {len(data)}: split it")
    return data


def _body(frame: Frame) -> tuple[int, bytes]:
    kind = frame.kind
    joined = b"".join(frame.addresses)
    if kind is Kind.DEPOSIT:
        return len(frame.packets), _columns(_RUN, frame.addresses, frame.counts) + _packed(frame.packets)
    if kind is Kind.RECEIPTS:
        return len(frame.receipts), np.ascontiguousarray(frame.receipts).tobytes()
    if kind in (Kind.ASK, Kind.COMPARE):
        return frame.cap, joined + b"".join(_WANTED.pack(*one) for one in frame.wanted)
    if kind is Kind.ANSWER:
        runs = _columns(_ANSWER, frame.addresses, frame.digests, frame.counts, frame.left_out)
        return len(frame.packets), runs + _packed(frame.packets)
    if kind is Kind.DIGESTS:
        return 0, b"".join(_PAIR.pack(*pair) for pair in zip(frame.addresses, frame.digests, strict=True))
    if kind is Kind.LISTING:
        return len(frame.listed), joined + b"".join(_LISTED.pack(*entry) for entry in frame.listed)
    if kind is Kind.ANNOUNCE:
        return len(frame.announcements), _joined(frame.announcements)
    if kind is Kind.STATEMENTS:
        return len(frame.statements), _READ.pack(frame.journal, frame.place) + _joined(frame.statements)
    if kind is Kind.BUSY:
        return 0, _WAIT.pack(frame.detail)
    if kind is Kind.REFUSED:
        return 0, bytes([frame.detail])
    return 0, joined


def _joined(pieces: tuple[bytes, ...]) -> bytes:
    return b"".join(_LENGTH.pack(len(one)) + one for one in pieces)


def _columns(kind: np.dtype[np.void], *columns: tuple[bytes, ...] | tuple[int, ...]) -> bytes:
    """The bytes of a table, column by column.

    Raises:
        ValueError: the columns differ in length, or an address or digest has not 32 bytes.
    """
    table = np.empty(len(columns[0]), dtype=kind)
    for name, column in zip(kind.names or (), columns, strict=True):
        if kind[name].kind == "V":
            joined = b"".join(column)  # type: ignore[arg-type]
            if len(joined) != _ADDRESS * len(table):
                raise ValueError("an address and a digest have 32 bytes each, one for each cell")
            table[name] = np.frombuffer(joined, dtype=kind[name])
        elif len(column) != len(table):
            raise ValueError("a frame needs a number of packets for each address")
        else:
            table[name] = column
    return table.tobytes()


def _packed(packets: PacketArray) -> bytes:
    return np.ascontiguousarray(packets).view(np.uint8).tobytes()


def decode(data: bytes) -> Frame | Rejected:
    """Read a frame; whatever the bytes are, no exception."""
    if len(data) < _HEADER.size or len(data) > FRAME_BYTES:
        return Rejected(reason=FrameReason.LENGTH)
    magic, number, flags, count, cells, wanted, length, sequence, cause, schema = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return Rejected(reason=FrameReason.MAGIC)
    kind = _KINDS.get(number)
    if kind is None:
        return Rejected(reason=FrameReason.KIND)
    allowed, most, most_cells = _LIMITS[kind]
    if flags & ~int(allowed):
        return Rejected(reason=FrameReason.FLAGS)
    if count > most or cells > most_cells or (most_cells == 1 and cells != 1):
        return Rejected(reason=FrameReason.COUNT)
    if wanted and kind not in (Kind.ASK, Kind.COMPARE):
        return Rejected(reason=FrameReason.ZERO)
    if wanted > AUTHORS_PER_FRAME:
        return Rejected(reason=FrameReason.COUNT)
    if length != len(data) - _HEADER.size:
        return Rejected(reason=FrameReason.LENGTH)
    end = len(data) - wanted * _WANTED.size
    if end < _HEADER.size:
        return Rejected(reason=FrameReason.LENGTH)
    authors = tuple(Wanted(*one) for one in _WANTED.iter_unpack(data[end:])) if wanted else ()
    if any(one.author >= after.author for one, after in pairwise(authors)):
        return Rejected(reason=FrameReason.BODY)
    if kind in (Kind.DEPOSIT, Kind.ANSWER):
        fields = _read_packets(kind, count, cells, memoryview(data)[_HEADER.size : end])
    else:
        fields = _read_body(kind, count, cells, data[_HEADER.size : end])
    if isinstance(fields, FrameReason):
        return Rejected(reason=fields)
    return Frame(
        kind=kind,
        flags=_FLAGS[flags],
        sequence=sequence,
        cause=cause,
        schema=schema,
        wanted=authors,
        **fields,  # type: ignore[arg-type]
    )


def _read_body(kind: Kind, count: int, cells: int, body: bytes) -> dict[str, object] | FrameReason:
    """The fields of a body, or why it is none."""
    if kind is Kind.ANNOUNCE:
        pieces = _read_pieces(count, body, ANNOUNCEMENT_BYTES)
        return {"announcements": pieces} if isinstance(pieces, tuple) else pieces
    if kind is Kind.STATEMENTS:
        if len(body) < _READ.size:
            return FrameReason.LENGTH
        journal, place = _READ.unpack_from(body)
        pieces = _read_pieces(count, body[_READ.size :], STATEMENT_BYTES)
        if not isinstance(pieces, tuple):
            return pieces
        return {"journal": journal, "place": place, "statements": pieces}
    fixed, per_cell, per_count = _BODY_BYTES[kind]
    if len(body) != fixed + cells * per_cell + count * per_count:
        return FrameReason.LENGTH
    if kind is Kind.RECEIPTS:
        return {"receipts": np.frombuffer(body, dtype=np.uint8).reshape(-1, 2)}
    if kind is Kind.DIGESTS:
        pairs = list(_PAIR.iter_unpack(body))
        return {"addresses": tuple(p[0] for p in pairs), "digests": tuple(p[1] for p in pairs)}
    if kind is Kind.LISTING:
        return {"addresses": (body[:_ADDRESS],), "listed": tuple(_LISTED.iter_unpack(body[_ADDRESS:]))}
    if kind is Kind.BUSY:
        return {"detail": _WAIT.unpack(body)[0]}
    if kind is Kind.REFUSED:
        return {"detail": body[0]}
    addresses = tuple(body[at : at + _ADDRESS] for at in range(0, len(body), _ADDRESS))
    return {"addresses": addresses, "cap": count}


def _read_packets(kind: Kind, count: int, cells: int, body: memoryview) -> dict[str, object] | FrameReason:
    """The fields of a body with packets, which are not copied."""
    column = _RUN if kind is Kind.DEPOSIT else _ANSWER
    size = cells * column.itemsize
    if len(body) != size + count * PACKET_BYTES:
        return FrameReason.LENGTH
    table, packets = np.frombuffer(body[:size], dtype=column), as_packets(body[size:])
    counts = table["count"].tolist()
    if sum(counts) != count or (kind is Kind.DEPOSIT and 0 in counts):
        return FrameReason.RUNS
    found: dict[str, object] = {
        "addresses": tuple(table["address"].tolist()),
        "counts": tuple(counts),
        "packets": packets,
    }
    if kind is Kind.ANSWER:
        found |= {"digests": tuple(table["digest"].tolist()), "left_out": tuple(table["left_out"].tolist())}
    return found


def _read_pieces(count: int, body: bytes, limit: int) -> tuple[bytes, ...] | FrameReason:
    """Pieces of at most ``limit`` bytes, each behind its length, and nothing after them."""
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        if at + _LENGTH.size > len(body):
            return FrameReason.BODY
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if length > limit or at + length > len(body):
            return FrameReason.BODY
        found.append(body[at : at + length])
        at += length
    return tuple(found) if at == len(body) else FrameReason.LENGTH
