"""The part of the HTTP interface for files, for the log, and for taking back."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, Query, Response

from outroute.node import Node
from outroute.node.governed import NO_REASON
from outroute.node.living import LivingNode
from outroute.node.passing_on import pass_on
from outroute.node.reports import TakenBack
from outroute.packet import PACKET_BYTES
from outroute.service import bodies
from outroute.transports import Role

__all__ = ["LOG_MOST", "governing_routes", "received_of"]

LOG_MOST = 1_000
"""Entries of one page of the log, 17 kB each at most."""
BYTES_TYPE = "application/octet-stream"


def governing_routes(app: FastAPI, living: LivingNode) -> None:
    """Add these routes to an interface."""
    _file_routes(app, living)
    _log_routes(app, living)
    _taking_back_routes(app, living)
    _choosing_routes(app, living)
    _budget_routes(app, living)


def _budget_routes(app: FastAPI, living: LivingNode) -> None:
    @app.get("/budget", tags=["what leaves"])
    def budget() -> dict[str, Any]:
        """What was spent of the differential privacy that the schema promises, and what is left."""
        with living.looking() as node:
            return node.budget().to_dict()

    @app.post("/budget/subject", tags=["what leaves"])
    def budget_of(body: bodies.Subject) -> dict[str, Any]:
        """What one subject has given of its budget, and what is left of it. A body, so that no log holds its name."""
        with living.looking() as node:
            return node.budget_of(body.subject).to_dict()

    @app.post("/budget/vouch", tags=["what leaves"])
    def vouch(body: bodies.Vouch) -> dict[str, Any]:
        """Vouch that nothing was released since a backup was made, or by another copy of this directory."""
        with living.using() as node:
            return node.vouch(by=body.by).to_dict()


def _choosing_routes(app: FastAPI, living: LivingNode) -> None:
    @app.post("/compare", tags=["loop"])
    def compare(body: bodies.Compare) -> dict[str, Any]:
        """Outcomes of cases like this one by what was done: an association, not an effect."""
        living.needs(Role.ASK)
        made = living.compare(body.case, body.by, body.values, probes=body.probes).to_dict()
        classes = living.schema.outcome.classes
        return made | {"positive": classes[1] if len(classes) == 2 else None, "node": living.id.hex()}

    @app.get("/pins", tags=["look"])
    def pins() -> dict[str, Any]:
        """Nodes that are believed whatever they say."""
        with living.looking() as node:
            return {"pinned": [asdict(one) for one in node.pins()]}

    @app.post("/pins", tags=["loop"])
    def pin(body: bodies.Pin) -> dict[str, Any]:
        """Believe a node whatever it says."""
        with living.using() as node:
            return asdict(node.pin(body.node, by=body.by, why=body.why or NO_REASON))

    @app.post("/pins/remove", tags=["loop"])
    def unpin(body: bodies.Pin) -> dict[str, Any]:
        """Judge a pinned node by what it says again."""
        with living.using() as node:
            return asdict(node.unpin(body.node, by=body.by, why=body.why or NO_REASON))


def _file_routes(app: FastAPI, living: LivingNode) -> None:
    @app.post("/receive", tags=["loop"])
    def receive(
        packets: Annotated[bytes, Body(media_type=BYTES_TYPE, min_length=1, max_length=bodies.FILE_MOST)],
    ) -> dict[str, Any]:
        """Take packets of other nodes in that came in a file; each is checked by every rule."""
        with living.using() as node:
            refused = node.receive(packets)
            received = received_of(node)
        count = -(-len(packets) // PACKET_BYTES)
        return {
            "accepted": count - sum(refused.values()),
            "refused": {reason.name.lower(): n for reason, n in refused.items()},
            "in_force": received,
        }

    @app.post("/pass-on", tags=["what leaves"])
    def pass_on_(
        packets: Annotated[bytes, Body(media_type=BYTES_TYPE, min_length=1, max_length=bodies.FILE_MOST)],
        by: Annotated[str, Query(min_length=1, max_length=400)],
    ) -> dict[str, Any]:
        """Hand packets of others that came in a file to the holders of their cells."""
        with living.using() as node:
            return asdict(pass_on(node, packets, by=by))

    @app.get("/received", tags=["look"], response_class=Response)
    def received() -> Response:
        """Packets in force that came in files, as bytes."""
        with living.looking() as node:
            return Response(node.received().tobytes(), media_type=BYTES_TYPE)

    @app.post("/outbox/hand-over", tags=["what leaves"], response_class=Response)
    def hand_over(body: bodies.HandOver) -> Response:
        """What is approved as bytes, withdrawals first, for a receiver that no transport reaches.

        What is in it counts as sent; whoever asked for it writes it down. ``again`` gives everything in force.
        """
        with living.using() as node:
            made = node.hand_over(to=body.to, again=body.again)
        return Response(
            made.content,
            media_type=BYTES_TYPE,
            headers={"outroute-packets": str(made.packets), "outroute-withdrawals": str(made.withdrawals)},
        )


def received_of(node: Node) -> dict[str, int]:
    """Packets in force that came in files: of others, of how many nodes, and of this one itself."""
    assert node.identity is not None
    found = node.received()
    foreign = found[(found["author"] != np.frombuffer(node.identity.public_key, dtype=np.uint8)).any(axis=1)]
    authors = len({author.tobytes() for author in foreign["author"]})
    return {"packets": len(foreign), "nodes": authors, "own": len(found) - len(foreign)}


def _log_routes(app: FastAPI, living: LivingNode) -> None:
    @app.get("/log", tags=["look"])
    def log(
        after: Annotated[int, Query(ge=0, lt=2**62)] = 0, limit: Annotated[int, Query(ge=0, le=LOG_MOST)] = 100
    ) -> dict[str, Any]:
        """Entries of the node's log, oldest first, with its head."""
        with living.looking() as node, node.journal.together():
            count, head = node.log.head()
            entries = node.log.entries(after=after, limit=limit)
        return {
            "entries": [
                {"number": one.number, "at": one.at, "kind": one.kind, "fields": dict(one.fields), "hash": one.hash}
                for one in entries
            ],
            "count": count,
            "head": head,
        }

    @app.get("/log/verify", tags=["look"])
    def verify(head: Annotated[str | None, Query(max_length=80)] = None) -> dict[str, Any]:
        """What is wrong with the log: entries changed, removed, reordered or cut off."""
        with living.looking() as node, node.journal.together():
            problems = node.log.verify(head)
            count, newest = node.log.head()
        return {
            "whole": not problems,
            "problems": [{"number": one.number, "text": one.text} for one in problems],
            "entries": count,
            "head": newest,
        }

    @app.get("/log/export", tags=["look"], response_class=Response)
    def export() -> Response:
        """The log as lines of JSON, the last of them its head; ``outroute log verify FILE`` checks them anywhere."""
        stream = io.StringIO()
        with living.looking() as node, node.journal.together():
            node.log.export(stream)
        return Response(stream.getvalue().encode(errors="surrogateescape"), media_type="application/x-ndjson")


def _taking_back_routes(app: FastAPI, living: LivingNode) -> None:
    def told(back: TakenBack) -> dict[str, Any]:
        living.look_again()
        return {
            "withdrawn": len(back.ids),
            "withdrawals": len(back.withdrawals),
            "dropped": len(back.dropped),
            "freed": back.freed,
            "successors": {
                str(place): {"withdrawn": len(one.ids), "dropped": len(one.dropped)} for place, one in back.successors
            },
        }

    @app.post("/withdraw", tags=["take back"])
    def withdraw(body: bodies.Withdraw) -> dict[str, Any]:
        """Take packets back; the withdrawals leave within seconds."""
        with living.using() as node:
            back = node.withdraw(
                by=body.by, packet=body.packet, case=body.case, since=body.since, until=body.until, reason=body.reason
            )
        return told(back)

    @app.post("/correct", tags=["take back"])
    def correct(body: bodies.Correct) -> dict[str, Any]:
        """Take back the packets with observations that changed after they left, and take the new values."""
        with living.using() as node:
            back = node.correct(by=body.by, reason=body.reason)
        return told(back) | {"corrected": back.applied}

    @app.post("/erase", tags=["take back"])
    def erase(body: bodies.Erase) -> dict[str, Any]:
        """Erase a subject: delete what is known of it, withdraw every packet that it contributed to."""
        with living.using() as node:
            done = node.erase(body.subject, by=body.by)
        return told(done.withdrawn) | {"observations": done.observations, "questions": done.questions}
