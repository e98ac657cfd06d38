"""Which key follows which, once everything that two keys said about each other is known.

The result depends on the set of statements alone, not on the order in which they came: so all members agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["Lineages"]


class Lineages:
    """Keys in the order in which they follow each other: an immutable set of chains.

    Where a key has two successors, or two keys have the same successor, or keys follow each other in a circle, nobody
    can say which of them is meant, and none of these steps counts.

    Args:
        steps: pairs of old and new key, each pair once.
    """

    __slots__ = ("_after", "_current", "_origin")

    def __init__(self, steps: Iterable[tuple[bytes, bytes]] = ()) -> None:
        pairs = sorted(set(steps))
        old_count = Counter(old for old, _ in pairs)
        new_count = Counter(new for _, new in pairs)
        clear = {old: new for old, new in pairs if old_count[old] == 1 and new_count[new] == 1}
        circular = _circular(clear)
        self._after: Mapping[bytes, bytes] = {old: new for old, new in clear.items() if old not in circular}
        self._origin: dict[bytes, bytes] = {}
        self._current: dict[bytes, bytes] = {}
        for start in set(self._after) - set(self._after.values()):
            chain = [start]
            while chain[-1] in self._after:
                chain.append(self._after[chain[-1]])
            self._origin.update(dict.fromkeys(chain, start))
            self._current.update(dict.fromkeys(chain, chain[-1]))

    def origin(self, key: bytes) -> bytes:
        """The first key of its chain: what limits, caps and trust are counted by, as no rotation changes it."""
        return self._origin.get(key, key)

    def current(self, key: bytes) -> bytes:
        """The last key of its chain."""
        return self._current.get(key, key)

    def chain(self, key: bytes) -> tuple[bytes, ...]:
        """The whole chain, oldest first; the key alone when it never changed."""
        found = [self.origin(key)]
        while found[-1] in self._after:
            found.append(self._after[found[-1]])
        return tuple(found)


def _circular(after: Mapping[bytes, bytes]) -> set[bytes]:
    """The keys that lie on a circle; every key has one successor and one predecessor at most."""
    starts = set(after) - set(after.values())
    reached: set[bytes] = set()
    for key in starts:
        while key in after:
            reached.add(key)
            key = after[key]
    return set(after) - reached
