"""What an operator should know about a node, in sentences that say what to do."""

from __future__ import annotations

__all__ = ["Notices"]

COPIED = (
    "this directory was copied, moved or restored from a backup since it was last used: sequence numbers go on in a "
    "new incarnation. If the other one still runs, stop one of the two: both would let the same observations leave. "
    "What left after a backup was made is not known here: withdraw and distil only what you are sure of"
)
DOUBLED = (
    "holders have {} of this node's packets twice, with different content: another copy of this directory is running, "
    "or this one was set back to an older state. Neither packet counts any more; sequence numbers go on in a new "
    "incarnation. Stop one of the two copies, and withdraw these packets (state refused or sent) to distil them again"
)
GONE = (
    "holders refuse {} of this node's packets as withdrawn, and not by this directory: another copy of it withdrew "
    "them, or this one was set back to an older state. They stay withdrawn"
)


class Notices:
    """Sentences, each once, in the order in which they came up."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._texts)

    def copied(self) -> None:
        """The directory was found to be a copy at the start."""
        self._texts[COPIED] = None

    def doubled(self, packets: int) -> None:
        """Holders have two packets of this node in one slot."""
        self._texts[DOUBLED.format(f"{packets:,}")] = None

    def gone(self, packets: int) -> None:
        """Holders know withdrawals of packets that this directory did not withdraw."""
        self._texts[GONE.format(f"{packets:,}")] = None

    def certificate(self, text: str) -> None:
        """Something about the node's certificate."""
        self._texts[text] = None
