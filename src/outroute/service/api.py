"""The HTTP interface of a running node: JSON in and out, described by ``/openapi.json``."""

from __future__ import annotations

import base64
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from outroute import __version__
from outroute.errors import DataError, OutrouteError, PrivacyError, SchemaError, StoreError
from outroute.node.living import LivingNode
from outroute.node.local import shelf_of
from outroute.schema import codes_problem
from outroute.service import bodies
from outroute.service.governing import governing_routes, received_of
from outroute.service.metrics import Numbers
from outroute.store import ANSWER_CAP, CELL_LIMIT, Kind, Queued, State
from outroute.transports import Role

__all__ = ["make_app", "queued_rows", "status_of"]

PAGE_MOST = 10_000
"""Packets of one page of the outbox: 7 MB of JSON."""
_log = logging.getLogger("outroute.http")
T = TypeVar("T")


def make_app(living: LivingNode) -> FastAPI:
    """The interface of a node, without what guards it (``outroute.service.access``)."""
    app = FastAPI(
        title="outroute node",
        version=__version__,
        description="Observe, ask and confirm at a running node, and decide what leaves it.",
        docs_url=None,
        redoc_url=None,
    )
    numbers = Numbers(living)
    _errors(app)
    _measured(app, numbers)
    _loop_routes(app, living)
    _outbox_routes(app, living)
    governing_routes(app, living)
    _looking_routes(app, living, numbers)
    return app


def _errors(app: FastAPI) -> None:
    def answer(status: int, code: str, message: str) -> JSONResponse:
        return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)

    @app.exception_handler(OutrouteError)
    async def misuse(_: Request, error: OutrouteError) -> JSONResponse:
        usual = isinstance(error, (DataError, SchemaError, PrivacyError))
        return answer(400 if usual else 409 if isinstance(error, StoreError) else 503, error.code, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, never what stood there: it may be a person's data.
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))[:200] or "body"
        return answer(422, "api.body", f"{where}: {str(first['msg'])[:200]}")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, "api.http", str(error.detail))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        _log.error("request failed", extra={"problem": type(error).__name__})
        return answer(500, "api.broken", "the node could not answer; its log says more")


def _measured(app: FastAPI, numbers: Numbers) -> None:
    @app.middleware("http")
    async def measure(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        start = time.perf_counter()
        response = await answer(request)
        route = getattr(request.scope.get("route"), "path", "other")
        seconds = time.perf_counter() - start
        numbers.count(route, response.status_code, seconds)
        _log.log(
            logging.DEBUG if request.method == "GET" else logging.INFO,
            "request",
            extra={
                "method": request.method,
                "route": route,
                "status": response.status_code,
                "milliseconds": round(seconds * 1000, 1),
            },
        )
        return response


def _loop_routes(app: FastAPI, living: LivingNode) -> None:
    @app.post("/observe", tags=["loop"])
    def observe(body: bodies.Observe) -> dict[str, Any]:
        """Take observations in. They stay here; nothing leaves. Rows that cannot be used are named."""
        names = list(dict.fromkeys(name for row in body.rows for name in row))
        columns = {name: _column([row.get(name) for row in body.rows]) for name in names}
        cause = secrets.token_bytes(16)
        with living.using() as node:
            report = node.observe(columns, case=body.case, subject=body.subject, time=body.time, outcome=body.outcome)
            cause = living.observed(report.added + report.confirmed + report.updated, cause)
        return {
            "cause": cause.hex(),
            "seen": report.seen,
            "added": report.added,
            "duplicate": report.duplicate,
            "confirmed": report.confirmed,
            "updated": report.updated,
            "conflict": report.conflict,
            "waiting": report.waiting,
            "refused": report.refused,
            "problems": [str(problem) for problem in report.problems],
        }

    @app.post("/observe/encoded", tags=["loop"])
    def observe_encoded(body: bodies.Encoded) -> dict[str, Any]:
        """Take observations in that are encoded by the schema already."""
        schema, n = living.schema, len(body.codes)
        if len({n, len(body.outcome), len(body.cases)}) > 1 or any(
            part is not None and len(part) != n for part in (body.subjects, body.times)
        ):
            raise DataError("codes, outcome, cases, subjects and times have one entry each", code="data.length")
        if any(len(row) != schema.width for row in body.codes):
            raise DataError(f"each row of codes has {schema.width} entries", code="data.codes")
        codes = np.array(body.codes, dtype=np.uint16)
        if codes_problem(schema, codes).any():
            raise DataError("a code is not one of the schema's: use the same schema to encode", code="data.codes")
        outcome = np.array([np.nan if one is None else one for one in body.outcome], dtype=np.float64)
        known = outcome[~np.isnan(outcome)]
        if schema.outcome.has_classes:
            bad = (known != np.round(known)) | (known < 0) | (known >= len(schema.outcome.classes))
        else:
            low, high = float(schema.outcome.low or 0), float(schema.outcome.high or 0)
            bad = (known < low) | (known > high)
        if bad.any():
            raise DataError("an outcome is not one of the schema's", code="data.outcome")
        cause = secrets.token_bytes(16)
        with living.using() as node:
            noted = node.observe_encoded(
                codes,
                outcome,
                cases=body.cases,
                subjects=body.subjects,
                times=None if body.times is None else np.array(body.times, dtype=np.int64),
            )
            cause = living.observed(sum(noted.values()), cause)
        return {"cause": cause.hex(), "noted": {one.name.lower(): count for one, count in noted.items()}}

    @app.post("/ask", tags=["loop"])
    def ask(body: bodies.Ask) -> dict[str, Any]:
        """What happened to cases like this one, here and elsewhere. Only addresses of cells leave."""
        living.needs(Role.ASK)
        insight = living.ask(body.case, case_id=body.case_id, probes=body.probes, explain=body.explain)
        classes = living.schema.outcome.classes
        return insight.to_dict() | {"positive": classes[1] if len(classes) == 2 else None, "node": living.id.hex()}

    @app.post("/ask/many", tags=["loop"])
    def ask_many(body: bodies.AskMany) -> dict[str, Any]:
        """The same for many cases, in short: they share what is fetched, checked and fitted."""
        living.needs(Role.ASK)
        found = living.ask_many(body.cases, probes=body.probes)
        answers, outcome = found.answers, living.schema.outcome
        return {
            "outcome": outcome.name,
            "unit": outcome.unit,
            "classes": list(outcome.classes),
            "level": found.level,
            "estimate": answers.estimate.tolist(),
            "low": answers.low.tolist(),
            "high": answers.high.tolist(),
            "support": answers.support.tolist(),
            "abstained": (answers.abstained > 0).tolist(),
            "calculations": dict(zip(answers.calculations, answers.weights.tolist(), strict=True)),
            "contributors": [found.nodes[i] for i in np.unique(answers.contributors[answers.contributors >= 0])],
            "reach": asdict(found.reach),
            "node": living.id.hex(),
        }

    @app.post("/confirm", tags=["loop"])
    def confirm(body: bodies.Confirm) -> dict[str, Any]:
        """Bring the outcome of a case that was observed or asked about before."""
        with living.using() as node:
            noted = node.confirm(body.case, body.outcome)
            living.observed(1, secrets.token_bytes(16))
        return {"case": body.case, "result": noted.name.lower()}


def _outbox_routes(app: FastAPI, living: LivingNode) -> None:
    @app.post("/distil", tags=["what leaves"])
    def distil(body: bodies.Distil) -> dict[str, Any]:
        """Condense observations into packets in the outbox. Nothing leaves by this."""
        living.needs(Role.EMIT)
        made = living.distil(k=body.k, streaming=body.streaming)
        return {
            "packets": made.packets,
            "observations": made.observations,
            "withheld": {reason.name.lower(): count for reason, count in made.withheld.items()},
            "agreeing": made.agreeing,
            "k": made.k,
            "approved": made.approved,
            "approved_by": made.approved_by or None,
            "pending": living.node.counts()["packets_pending"],
        }

    @app.get("/outbox", tags=["what leaves"])
    def outbox(
        state: Annotated[list[str] | None, Query(max_length=len(State))] = None,
        after: Annotated[int, Query(ge=0, lt=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_MOST)] = 100,
    ) -> dict[str, Any]:
        """Packets of the outbox with their exact bytes (base64), by state; all states when none is given."""
        named = {one.name.lower(): one for one in State}
        unknown = [one for one in state or () if one not in named]
        if unknown:
            raise DataError(f"a packet is {', '.join(named)}", code="outbox.state")
        with living.looking() as node:
            page = node.journal.outbox.page(*(named[one] for one in state or ()), after=after, limit=limit)
        rows = queued_rows(page)
        return {"packets": rows, "next_after": rows[-1]["number"] if len(rows) == limit else None}

    @app.get("/outbox/find/{prefix}", tags=["what leaves"])
    def find(prefix: Annotated[str, Path(max_length=64)]) -> dict[str, Any]:
        """Packets whose digest or identity begins so."""
        with living.looking() as node:
            return {"packets": queued_rows(node.journal.outbox.find(prefix))}

    @app.post("/outbox/review", tags=["what leaves"])
    def review(body: bodies.Review) -> dict[str, Any]:
        """Put pending packets together under one digest, the SHA-256 of their bytes one after the other."""
        with living.using() as node:
            made = node.review(None if body.ids is None else np.array(body.ids, dtype=np.int64))
        return {"digest": made.digest.hex(), "ids": made.ids.tolist()}

    @app.post("/outbox/approve", tags=["what leaves"])
    def approve(body: bodies.Approve) -> dict[str, Any]:
        """Let exactly the bytes with this digest leave; the node hands them over within seconds."""
        with living.using() as node:
            done = node.approve(body.digest, by=body.by)
        living.look_again()
        return {"approved": len(done.ids), "digest": done.digest.hex(), "by": body.by, "ids": done.ids.tolist()}

    @app.post("/outbox/reject", tags=["what leaves"])
    def reject(body: bodies.Reject) -> dict[str, Any]:
        """Never let these bytes leave."""
        with living.using() as node:
            done = node.reject(body.digest, by=body.by, again=body.again)
        return {"rejected": len(done.ids), "digest": done.digest.hex(), "by": body.by, "ids": done.ids.tolist()}


def _looking_routes(app: FastAPI, living: LivingNode, numbers: Numbers) -> None:
    @app.get("/cells/{address}", tags=["look"])
    def cell(address: Annotated[str, Path(pattern=r"^[0-9a-fA-F]{64}$")]) -> dict[str, Any]:
        """Packets that this node keeps of one cell, for itself or for others."""
        shelf = shelf_of(living.transport)
        if shelf is None:  # others keep everything
            return {"address": address.lower(), "packets": [], "left_out": 0, "durable": False}
        found = shelf.fetch([bytes.fromhex(address)], now=int(time.time()), cap=CELL_LIMIT)[0]
        return {
            "address": address.lower(),
            "packets": [base64.b64encode(one.tobytes()).decode() for one in found.packets[:ANSWER_CAP]],
            "left_out": found.left_out + max(0, len(found.packets) - ANSWER_CAP),
            "durable": shelf.durable,
        }

    @app.get("/peers", tags=["look"])
    def peers() -> dict[str, Any]:
        """Live members of the network as this node knows them."""
        return {
            "node": living.id.hex(),
            "size": living.transport.network_size(),
            "peers": [
                {
                    "node": one.member.id.hex(),
                    "key": one.key.hex(),
                    "organisation": one.organisation.hex() if one.certificate is not None else None,
                    "endpoint": one.endpoint,
                    "roles": [role.name.lower() for role in Role if role in one.roles and role.name],
                    "expires": one.expires,
                    "self": one.member.id == living.id,
                }
                for one in living.peers()
            ],
        }

    @app.get("/paths", tags=["look"])
    def paths(top: Annotated[int, Query(ge=1, le=1000)] = 10) -> dict[str, Any]:
        """Who corroborates or contradicts whom, own records among them, in the packets that this node knows."""
        living.needs(Role.ASK)
        return living.paths(top=top).to_dict()

    @app.get("/status", tags=["look"])
    def status() -> dict[str, Any]:
        """What this node knows, what waits for approval, and what has left it."""
        return status_of(living)

    @app.get("/health", tags=["look"])
    def health() -> dict[str, Any]:
        """Whether the node works; ``problems`` says what does not."""
        problems = living.all_problems()
        return {
            "status": "ok" if not problems else "trouble",
            "node": living.id.hex(),
            "schema": living.schema.id.hex(),
            "endpoint": living.endpoint,
            "peers": len(living.peers()),
            "version": __version__,
            "problems": problems,
            "notices": list(living.node.notices),
        }

    @app.get("/metrics", tags=["look"])
    def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(numbers.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def status_of(living: LivingNode) -> dict[str, Any]:
    """What ``outroute status`` shows."""
    with living.looking() as node:
        summary = node.journal.outbox.summary()
        entries, head = node.log.head()
        counts = node.counts()
        received = received_of(node)
    return (
        {
            "node": living.id.hex(),
            "key": living.key.hex(),
            "schema": living.schema.name,
            "schema_id": living.schema.id.hex(),
        }
        | counts
        | {
            "withdrawals_to_send": summary.withdrawals[State.QUEUED],
            "received": {"packets": received["packets"], "nodes": received["nodes"]},
            "log": {"entries": entries, "head": head},
            "network": {"endpoint": living.endpoint, "peers": len(living.peers()), "problems": living.all_problems()},
        }
    )


def queued_rows(queued: Queued) -> list[dict[str, Any]]:
    """Packets of the outbox for JSON."""
    return [
        {
            "number": int(queued.ids[i]),
            "kind": Kind(int(queued.kinds[i])).name.lower(),
            "state": State(int(queued.states[i])).name.lower(),
            "withdraws": int(queued.withdraws[i]),
            "digest": queued.digests[i].hex(),
            "identity": queued.identities[i].hex(),
            "address": queued.addresses[i].hex(),
            "bytes": base64.b64encode(queued.packets[i].tobytes()).decode(),
        }
        for i in range(len(queued))
    ]


def _column(values: list[bodies.Scalar]) -> list[Any]:
    """Values of one column: of one kind, or all as text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        return values
    return [None if value is None else str(value) for value in values]
