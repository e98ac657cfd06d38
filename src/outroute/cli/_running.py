"""The node that runs in a directory, as the commands use it: the same calls as a ``Node``, over its HTTP interface."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from outroute.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from outroute.node import Insight
    from outroute.node.choosing import Pin
    from outroute.node.comparing import Comparison
    from outroute.node.pathways import Pathways
    from outroute.node.reports import Distillation, ObserveReport
    from outroute.schema import Schema
    from outroute.service import Client
    from outroute.store import Approved, Entry, Kind, Noted, Problem, Queued, Review, State
    from outroute.tables.mapping import TableMapping

__all__ = ["RunningNode", "find_running", "insight_of"]

LOG_PAGE = 1_000
"""Entries of one request."""


def find_running(directory: Path) -> RunningNode | None:
    """The node that runs in a directory; None when none does, or it has no interface.

    Raises:
        MissingExtraError: one seems to run, and the client is not installed.
    """
    from outroute.service.server_file import where_is

    if where_is(directory) is None:
        return None
    try:
        from outroute.service.client import Client
    except ImportError as error:
        raise MissingExtraError("service", "talking to the node that runs here") from error
    client = Client.of(directory)
    return None if client is None else RunningNode(client, directory)


class _Outbox:
    """``Journal.outbox`` as far as commands read it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def page(self, *states: State, after: int = 0, limit: int = 100, kind: Kind | None = None) -> Queued:
        rows = self._client.outbox(*(one.name.lower() for one in states), after=after, limit=limit)
        return _queued([row for row in rows if kind is None or row["kind"] == kind.name.lower()])

    def find(self, prefix: str) -> Queued:
        return _queued(self._client.find(prefix))


class _Journal:
    """``Node.journal`` as far as commands read it."""

    def __init__(self, client: Client) -> None:
        self.outbox = _Outbox(client)


class RunningLog:
    """``Node.log`` as far as commands read it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def head(self) -> tuple[int, str]:
        """See ``AuditLog.head``."""
        found = self._client.log(limit=0)
        return int(found["count"]), str(found["head"])

    def entries(self, after: int = 0, limit: int = 100) -> list[Entry]:
        """See ``AuditLog.entries``; at most ``LOG_PAGE``."""
        from outroute.store import Entry

        found = self._client.log(after=after, limit=min(limit, LOG_PAGE))
        return [Entry(**one) for one in found["entries"]]

    def verify(self, head: str | None = None) -> list[Problem]:
        """See ``AuditLog.verify``."""
        from outroute.store import Problem

        return [Problem(**one) for one in self._client.verify_log(head)["problems"]]

    def export(self, stream: TextIO) -> int:
        """See ``AuditLog.export``."""
        text = self._client.export_log()
        stream.write(text)
        return text.count("\n") - 1


class RunningNode:
    """A running node.

    Args:
        client: of its interface.
        directory: the node's.
    """

    def __init__(self, client: Client, directory: Path) -> None:
        from outroute import schema as schemas

        self.client = client
        self._health = client.health()
        self.schema: Schema = schemas.load(directory / "schema.toml")
        self.journal = _Journal(client)

    @property
    def id(self) -> bytes:
        """The node's id."""
        return bytes.fromhex(self._health["node"])

    @property
    def key(self) -> bytes:
        """The node's public key."""
        return next(bytes.fromhex(one["key"]) for one in self.client.peers()["peers"] if one["self"])

    @property
    def notices(self) -> tuple[str, ...]:
        """See ``Node.notices``."""
        return tuple(self._health["notices"])

    def observe(self, table: Any, *, mapping: TableMapping) -> ObserveReport:
        """See ``Node.observe``: the table is read and encoded here, the node takes it in."""
        from outroute.node.observing import observe_table

        return observe_table(self.schema, table, mapping, self.client.observe_encoded)

    def ask(self, case: Mapping[str, Any], *, case_id: str | None = None, explain: bool = False) -> Insight:
        """See ``Node.ask``."""
        return insight_of(self.client.ask(case, case_id=case_id, explain=explain))

    def compare(self, case: Mapping[str, Any], by: str, values: Sequence[Any] | None = None) -> Comparison:
        """See ``Node.compare``."""
        from outroute.node.comparing import Comparison

        return Comparison.from_dict(self.client.compare(case, by, values))

    def pins(self) -> tuple[Pin, ...]:
        """See ``Node.pins``."""
        from outroute.node.choosing import Pin

        return tuple(Pin(**one) for one in self.client.pins()["pinned"])

    def pin(self, node: str, *, by: str, why: str) -> Pin:
        """See ``Node.pin``."""
        from outroute.node.choosing import Pin

        return Pin(**self.client.pin(node, by=by, why=why))

    def unpin(self, node: str, *, by: str, why: str) -> Pin:
        """See ``Node.unpin``."""
        from outroute.node.choosing import Pin

        return Pin(**self.client.unpin(node, by=by, why=why))

    def confirm(self, case: str, outcome: str) -> Noted:
        """See ``Node.confirm``."""
        from outroute.store import Noted

        return Noted[self.client.confirm(case, outcome).upper()]

    def counts(self) -> dict[str, int]:
        """See ``Node.counts``."""
        return {name: value for name, value in self.client.status().items() if isinstance(value, int)}

    def distil(self, *, k: int | None = None, streaming: bool = False) -> Distillation:
        """See ``Node.distil``."""
        from outroute.distill import Reason
        from outroute.node.reports import Distillation

        made = self.client.distil(k=k, streaming=streaming)
        return Distillation(
            packets=made["packets"],
            observations=made["observations"],
            withheld={Reason[name.upper()]: count for name, count in made["withheld"].items()},
            agreeing=made["agreeing"],
            k=made["k"],
            approved=made["approved"],
            approved_by=made["approved_by"] or "",
        )

    def review(self, ids: NDArray[np.int64] | None = None) -> Review:
        """See ``Node.review``."""
        import numpy as np

        from outroute.store import Review

        made = self.client.review(None if ids is None else ids.tolist())
        return Review(digest=bytes.fromhex(made["digest"]), ids=np.array(made["ids"], dtype=np.int64))

    def approve(self, digest: str, *, by: str) -> Approved:
        """See ``Node.approve``."""
        return _approved(self.client.approve(digest, by=by))

    def reject(self, digest: str, *, by: str, again: bool = False) -> Approved:
        """See ``Node.reject``."""
        return _approved(self.client.reject(digest, by=by, again=again))

    def paths(self, *, top: int) -> Pathways:
        """See ``Node.paths``."""
        from outroute.node.pathways import Pathways

        return Pathways.from_dict(self.client.paths(top=top))

    @property
    def log(self) -> RunningLog:
        """See ``Node.log``."""
        return RunningLog(self.client)

    def close(self) -> None:
        """End the connection; the node runs on."""
        self.client.close()

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _approved(done: Mapping[str, Any]) -> Approved:
    import numpy as np

    from outroute.store import Approved

    return Approved(ids=np.array(done["ids"], dtype=np.int64), digest=bytes.fromhex(done["digest"]))


def _queued(rows: Sequence[Mapping[str, Any]]) -> Queued:
    import numpy as np

    from outroute.packet import PACKET_DTYPE
    from outroute.store import Kind, Queued, State

    data = b"".join(base64.b64decode(row["bytes"]) for row in rows)
    return Queued(
        ids=np.array([row["number"] for row in rows], dtype=np.int64),
        packets=np.frombuffer(data, dtype=PACKET_DTYPE),
        addresses=tuple(bytes.fromhex(row["address"]) for row in rows),
        states=np.array([State[row["state"].upper()] for row in rows], dtype=np.uint8),
        kinds=np.array([Kind[row["kind"].upper()] for row in rows], dtype=np.uint8),
        withdraws=np.array([row["withdraws"] for row in rows], dtype=np.int64),
        digests=tuple(bytes.fromhex(row["digest"]) for row in rows),
        identities=tuple(bytes.fromhex(row["identity"]) for row in rows),
    )


def insight_of(content: Mapping[str, Any]) -> Insight:
    """An insight as the interface of a running node gives it."""
    from outroute.node.explaining import Explanation
    from outroute.node.insight import Insight, Reach, Source

    def sources(name: str) -> tuple[Source, ...]:
        return tuple(Source(**row) for row in content[name])

    interval = content["interval"]
    return Insight(
        outcome=content["outcome"],
        unit=content["unit"],
        estimate=content["estimate"],
        low=interval["low"],
        high=interval["high"],
        level=interval["level"],
        support=content["support"],
        contributors=sources("contributors"),
        disagreeing=sources("disagreeing"),
        calculations={name: (one["weight"], one["estimate"]) for name, one in content["calculations"].items()},
        anchor=content["anchor"],
        basis=content["basis"],
        explanation=Explanation.from_dict(content["explanation"]) if "explanation" in content else None,
        heterogeneity_known=content["heterogeneity_known"],
        abstained=content["abstained"],
        reach=Reach(**content["reach"]),
    )
