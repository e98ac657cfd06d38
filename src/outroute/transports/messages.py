"""Messages of the gRPC link: the protobuf message ``outroute.v1.Message``, written and read by hand where it is as we
write it ourselves, and by the library where somebody else's writer put it another way. That saves a copy of each frame.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from outroute.transports.frames import FRAME_BYTES
from outroute.transports.proto import described

__all__ = ["MESSAGE_HEAD_BYTES", "file_of", "pack", "unpack"]

_NUMBER = struct.Struct("<BI")
_NUMBER_TAG, _FRAME_TAG = 0x0D, 0x1A
_MORE = b"\x10\x01"
MESSAGE_HEAD_BYTES = 16
"""Bytes of a message beside its frame, at most: three tags, a number, a flag, a length."""


def pack(number: int, frame: bytes, *, more: bool = False) -> bytes:
    """The bytes of a message.

    Args:
        number: of the exchange, 1 to 2**32 - 1.
        frame: any bytes.
        more: whether more messages of this reply follow.
    """
    return b"".join((_NUMBER.pack(_NUMBER_TAG, number), _MORE if more else b"", _head(len(frame)), frame))


@cache
def _head(length: int) -> bytes:
    """Tag and length of the frame; frames have as many lengths as there are numbers of packets, about."""
    head = bytearray([_FRAME_TAG])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def unpack(message: bytes) -> tuple[int, bool, bytes] | None:
    """Number, whether more follow, and frame; None for bytes that are no message."""
    if len(message) > 7 and message[0] == _NUMBER_TAG:
        at = 7 if message[5:7] == _MORE else 5
        head = message[at : at + 4]
        length = len(message) - at
        for size in (4, 3, 2):  # of tag and length; frames are mostly long
            if length >= size and length - size <= FRAME_BYTES and head[:size] == _head(length - size):
                return _NUMBER.unpack_from(message)[1], at == 7, message[at + size :]
    return _unpack_any(message)


def _unpack_any(message: bytes) -> tuple[int, bool, bytes] | None:
    from google.protobuf.message import DecodeError

    made = _message_class()()
    try:
        made.ParseFromString(message)
    except DecodeError:
        return None
    return made.number, made.more, made.frame


@cache
def _message_class() -> Any:
    from google.protobuf import message_factory

    pool, name = file_of()
    return message_factory.GetMessageClass(pool.FindFileByName(name).message_types_by_name["Message"])


@cache
def file_of() -> tuple[Any, str]:
    """The pool that knows the description of the link, and the name of its file; for reflection."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.Default()
    (one,) = descriptor_pb2.FileDescriptorSet.FromString(described()).file
    one.name = "outroute/v1/frames.proto"
    pool.AddSerializedFile(one.SerializeToString())
    return pool, one.name
