"""Names in NATS: subjects by shard, streams, consumers. Pure.

A *shard* is the first byte of an address, written as two words of one hexadecimal digit each, so that one wildcard
takes a sixteenth. There are 256, few enough for frames of 128 packets to be full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["GROUPS", "SHARDS", "Subjects", "group_of", "is_subject", "kept_shards", "shard_of"]

SHARDS = 256
"""Shards of the addresses."""
GROUPS = 3
"""Groups of holders that answer for others: as many as a cell has copies elsewhere."""
_SCHEMA_DIGITS = 16
"""Hexadecimal digits of a schema's id in names: 64 bits, as schemas of one prefix are few."""


def shard_of(address: bytes) -> int:
    """The shard of an address, 0 to 255."""
    return address[0]


def group_of(organisation: bytes) -> int:
    """The group of an organisation's nodes, so that two that are compared belong to different organisations."""
    return organisation[-1] % GROUPS


def kept_shards(keep: Sequence[str]) -> frozenset[int]:
    """The shards that are meant by their first digits; all for none."""
    if not keep:
        return frozenset(range(SHARDS))
    return frozenset(shard for shard in range(SHARDS) if any(f"{shard:02x}".startswith(one) for one in keep))


def is_subject(text: str, *, wildcards: bool = False) -> bool:
    """Whether a text is a subject: words between dots, none of them empty, no spaces.

    Args:
        text: what somebody wrote.
        wildcards: whether ``*`` may stand for a word, and ``>`` for the last ones.
    """
    words = text.split(".")
    for at, word in enumerate(words):
        if wildcards and (word == "*" or (word == ">" and at == len(words) - 1)):
            continue
        if not word or not word.isprintable() or any(one.isspace() or one in "*>" for one in word):
            return False
    return True


def _words(digits: str) -> str:
    """``4`` -> ``4.*``, ``4a`` -> ``4.a``."""
    return f"{digits[0]}.{digits[1] if len(digits) > 1 else '*'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """The subjects of one schema under one prefix.

    Attributes:
        prefix: first words.
        schema: id, 32 bytes.
    """

    prefix: str
    schema: bytes

    @property
    def _base(self) -> str:
        return f"{self.prefix}.{self.schema.hex()[:_SCHEMA_DIGITS]}"

    @property
    def stream(self) -> str:
        """Name of the stream, where nobody gave another."""
        return f"{self.prefix.replace('.', '_')}_{self.schema.hex()[:_SCHEMA_DIGITS]}"

    @property
    def stored(self) -> tuple[str, str]:
        """What the stream keeps."""
        return f"{self._base}.p.*.*", f"{self._base}.k.*"

    @property
    def presence(self) -> str:
        """Who is there; not kept."""
        return f"{self._base}.h"

    @property
    def statements(self) -> str:
        """All statements about keys."""
        return f"{self._base}.k.*"

    def statement(self, digest: bytes) -> str:
        """One statement about keys, by the first 16 bytes of its hash."""
        return f"{self._base}.k.{digest[:16].hex()}"

    def packets(self, shard: int) -> str:
        """Frames of a shard."""
        return f"{self._base}.p.{_words(f'{shard:02x}')}"

    def kept(self, keep: Sequence[str]) -> list[str]:
        """Frames of the shards meant by their first digits; of all for none."""
        return [f"{self._base}.p.{_words(one)}" for one in keep] or [f"{self._base}.p.*.*"]

    def shard_in(self, subject: str) -> int:
        """The shard that a subject of frames names; -1 where it names none."""
        head, _, tail = subject.partition(f"{self._base}.p.")
        digits = tail.replace(".", "") if not head and len(tail) == 3 and tail[1] == "." else ""
        return int(digits, 16) if len(digits) == 2 and set(digits) <= set("0123456789abcdef") else -1

    def questions(self, group: int, shard: int) -> str:
        """Questions to a group about a shard."""
        return f"{self._base}.q.{group}.{_words(f'{shard:02x}')}"

    def answered(self, group: int, keep: Sequence[str]) -> list[str]:
        """Questions that a holder of a group answers."""
        return [f"{self._base}.q.{group}.{_words(one)}" for one in keep] or [f"{self._base}.q.{group}.*.*"]
