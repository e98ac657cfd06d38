"""What a link between nodes is: ``MemberLink``, what makes one, and the bounds that every link keeps.

A link carries frames between two nodes over something: TLS, ZeroMQ, gRPC, Flight, files in a directory. Most of one
stands in ``outroute.transports.linking.LinkBase``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from outroute.identity import Identity
from outroute.transports.channel import ChannelReason, Secrets
from outroute.transports.contract import CREDIT_FRAMES, Capabilities
from outroute.transports.frames import FRAME_BYTES

__all__ = [
    "AWAY_MOST",
    "CALLERS_MOST",
    "CALLERS_PER_NODE",
    "FAILURES",
    "HANDSHAKE_SECONDS",
    "IDLE_SECONDS",
    "NO_BINDING",
    "OPEN_MOST",
    "REPLY_FRAMES",
    "RETRY_SECONDS",
    "SKIPPED_BYTES",
    "SLOW_SECONDS",
    "Channel",
    "Handle",
    "LinkMaker",
    "MemberLink",
    "Offering",
]

HANDSHAKE_SECONDS = 5.0
"""Seconds for the line and our own handshake together: three round trips and two signatures, with room for a far node.
"""
IDLE_SECONDS = 300.0
"""Seconds after which a channel that says nothing is closed; it is opened again when needed."""
SLOW_SECONDS = 15.0
"""Seconds that a peer may take to send the rest of a frame, or to read a reply, before it is cut off."""
CALLERS_MOST = 512
"""Channels from others at a time; each may hold one frame, some 40 MB for the largest, and the reply to it. How many
more frames they may hold together stands in ``answering``."""
OPEN_MOST = 512
"""Channels that a node opens and keeps at a time; above, the one that was not used for longest is closed."""
AWAY_MOST = 4096
"""Nodes that are remembered to have been away; strangers may name any number that never were."""
CALLERS_PER_NODE = 2
"""Channels of one node at a time: the one in use and one that has not noticed its end yet."""
REPLY_FRAMES = 512
"""Frames of one reply; as ``outroute.transports.exchanging.ANSWER_FRAMES``, above which a reply is cut off."""
SKIPPED_BYTES = 2 * FRAME_BYTES
"""Bytes of a message that are read and refused; above, the channel ends."""
RETRY_SECONDS = (0.05, 5.0)
"""Seconds before the next attempt at a node that could not be reached: the first, and the most it grows to."""
NO_BINDING = bytes(32)
"""The binding where nothing below the handshake proves anything: a line inside one machine."""

FAILURES = (OSError, EOFError, TimeoutError)
"""What ``LinkBase.connect`` and ``Channel.exchange`` raise when the other side is away; a carrier's own errors have to
be turned into one of these."""

Handle = Callable[[bytes, bytes], list[bytes]]
"""(id of the sender, its frame) -> the frames of the reply; called in the link's own thread."""


class MemberLink(Protocol):
    """Carries frames to and from other members; what ``DirectTransport`` and ``MeshTransport`` stand on.

    Attributes:
        secrets: of the network; another value takes effect with the next channel.
        refused: handshakes that this node refused, by reason.
        dropped: channels of others that were cut off: "slow", "oversized", "full"; frames not read at once: "held up".
    """

    secrets: Secrets
    refused: Counter[ChannelReason]
    dropped: Counter[str]

    @property
    def capabilities(self) -> Capabilities:
        """What it promises; whether what is kept is durable is the store's matter."""

    def is_place(self, text: str) -> bool:
        """Whether a text, written by a stranger, is a place that this link may be asked to reach."""

    def advertised(self, listening: str, place: str) -> str:
        """What others are told when the user says that they reach this node elsewhere.

        Args:
            listening: what ``listen`` gave.
            place: ``HOST:PORT`` of the user's.
        """

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Take calls; the place where, as others have to write it.

        Raises:
            TransportError: it cannot be used (``transport.listen``).
        """

    async def request(self, member: bytes, frame: bytes) -> Sequence[bytes]:
        """See ``outroute.transports.Link.request``."""

    async def request_at(self, place: str, frame: bytes) -> tuple[bytes, Sequence[bytes]]:
        """Send a frame to whoever is at a place: its id and the frames of its reply.

        Raises:
            UnreachableError: nobody answers there.
            TransportError: that is no place.
        """

    async def own(self, frame: bytes) -> Sequence[bytes]:
        """Handle a frame of this node itself, in turn with those of others."""

    async def close(self) -> None:
        """End all channels and take no more; harmless when repeated."""


@runtime_checkable
class Offering(Protocol):
    """A link that offers its member to others than members too: to Arrow clients, say."""

    def offer(self, member: Any) -> None:
        """Told once, before ``listen``, of the ``DirectTransport`` that stands on it."""


class LinkMaker(Protocol):
    """Makes a link; ``LinkBase`` and its kind are ones themselves."""

    def __call__(
        self,
        identity: Identity,
        *,
        handle: Handle,
        endpoint_of: Callable[[bytes], str | None],
        secrets: Secrets | None = None,
        admit: Callable[[bytes], bool] = ...,
        credit: int = CREDIT_FRAMES,
    ) -> MemberLink:
        """See ``LinkBase``."""


class Channel(ABC):
    """A line to another node that this one opened and that is proved.

    Attributes:
        member: id of the node at the other end.
        over: whether it has ended.
    """

    member: bytes
    over = False

    @abstractmethod
    async def exchange(self, frame: bytes) -> Sequence[bytes]:
        """Send a frame and wait for its reply; several may wait at a time.

        Raises:
            OSError, EOFError, TimeoutError: the other side is gone; then the channel calls its link's ``ended``.
        """

    @abstractmethod
    def close(self) -> None:
        """End it at once, without waiting: the other side may be gone. Those who wait get an EOFError."""
