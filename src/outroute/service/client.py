"""A client for the HTTP interface of a running node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError, OutrouteError, PrivacyError, SchemaError, StoreError, TransportError
from outroute.service.access import load_token
from outroute.service.server_file import where_is
from outroute.store import Noted

__all__ = ["Client"]

SECONDS = 120.0
"""Seconds for one answer: a node that distils 100,000 observations takes some."""
CONNECT_SECONDS = 3.0
"""Seconds until a node that should run counts as gone."""
ROWS_AT_ONCE = 5_000
"""Observations of one request."""
FILE_BYTES = 8 * 1024 * 1024
"""Bytes of packets of one request: whole packets, checked in about a second."""
PAGE = 5_000
"""Packets of one page of the outbox."""

_KINDS: dict[str, type[OutrouteError]] = {
    "schema": SchemaError,
    "data": DataError,
    "privacy": PrivacyError,
    "store": StoreError,
    "outbox": StoreError,
    "node": StoreError,
    "withdraw": DataError,
    "budget": StoreError,
}


class Client:
    """Talks to one running node; each method is one request.

    Args:
        url: of the interface, ``http://127.0.0.1:8080``.
        token: what the node's file ``api.token`` holds; needed for what changes something.
        seconds: for one answer.
    """

    def __init__(self, url: str, *, token: str = "", seconds: float = SECONDS) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
            trust_env=False,  # a proxy of the environment must not see what stays on this machine
        )

    @classmethod
    def of(cls, directory: Path | str, *, seconds: float = SECONDS) -> Client | None:
        """A client for the node that runs in a directory; None when none does.

        Raises:
            StoreError: its token cannot be read.
        """
        where = where_is(Path(directory))
        if where is None:
            return None
        client = cls(where.url, token=load_token(Path(directory), create=False), seconds=seconds)
        try:
            if client.health().get("node") == where.node:
                return client
        except TransportError:
            pass
        client.close()
        return None

    def _ask_http(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise TransportError(
                f"the node at {self._http.base_url} does not answer ({type(error).__name__}): see its log",
                code="api.unreachable",
            ) from error
        if response.is_success:
            return response
        content = self._json(response)
        told = content.get("error", {}) if isinstance(content, dict) else {}
        code = str(told.get("code", "api.http"))
        kind = _KINDS.get(code.partition(".")[0], TransportError)
        raise kind(str(told.get("message", f"the node answered {response.status_code}")), code=code)

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise TransportError(f"{self._http.base_url} is no outroute node", code="api.foreign") from None

    def _call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._json(self._ask_http(method, path, json=body, params=given))

    # the loop -----------------------------------------------------------------------------------------------

    def observe(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        case: str,
        subject: str | None = None,
        time: str | None = None,
        outcome: str | None = None,
    ) -> dict[str, Any]:
        """Take observations in: rows by column name. Arguments as for ``Node.observe``."""
        names = {"case": case, "subject": subject, "time": time, "outcome": outcome}
        body = {"rows": [dict(row) for row in rows]} | {k: v for k, v in names.items() if v is not None}
        return dict(self._call("POST", "/observe", body))

    def observe_encoded(
        self,
        codes: NDArray[np.uint16],
        outcome: NDArray[np.float64],
        *,
        cases: Sequence[Any] | NDArray[Any],
        subjects: Sequence[Any] | NDArray[Any] | None = None,
        times: NDArray[np.int64] | None = None,
    ) -> dict[Noted, int]:
        """See ``Node.observe_encoded``."""
        totals: dict[Noted, int] = {}
        for at in range(0, len(codes), ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            body = {
                "codes": codes[part].tolist(),
                "outcome": [None if math.isnan(one) else one for one in outcome[part].tolist()],
                "cases": _ids(cases[part]),
                "subjects": None if subjects is None else _ids(subjects[part]),
                "times": None if times is None else times[part].tolist(),
            }
            noted = self._call("POST", "/observe/encoded", body)["noted"]
            for name, count in noted.items():
                kind = Noted[name.upper()]
                totals[kind] = totals.get(kind, 0) + int(count)
        return totals

    def ask(
        self,
        case: Mapping[str, Any],
        *,
        case_id: str | None = None,
        probes: int | None = None,
        explain: bool = False,
    ) -> dict[str, Any]:
        """What happened to cases like this one; see ``Insight.to_dict`` for what comes back."""
        body: dict[str, Any] = {"case": _values(case), "case_id": case_id, "explain": explain}
        if probes is not None:
            body["probes"] = probes
        return dict(self._call("POST", "/ask", body))

    def compare(self, case: Mapping[str, Any], by: str, values: Sequence[Any] | None = None) -> dict[str, Any]:
        """Outcomes by action; see ``Comparison.to_dict`` for what comes back."""
        body = {"case": _values(case), "by": by, "values": None if values is None else list(values)}
        return dict(self._call("POST", "/compare", body))

    def pins(self) -> dict[str, Any]:
        """Nodes that are believed whatever they say."""
        return dict(self._call("GET", "/pins"))

    def pin(self, node: str, *, by: str, why: str) -> dict[str, Any]:
        """Believe a node whatever it says."""
        return dict(self._call("POST", "/pins", {"node": node, "by": by, "why": why}))

    def unpin(self, node: str, *, by: str, why: str) -> dict[str, Any]:
        """Judge a pinned node by what it says again."""
        return dict(self._call("POST", "/pins/remove", {"node": node, "by": by, "why": why}))

    def ask_many(self, cases: Sequence[Mapping[str, Any]], *, probes: int | None = None) -> dict[str, Any]:
        """Up to 10,000 questions at once: ``estimate``, ``low``, ``high``, ``support``, ``abstained`` as lists."""
        body: dict[str, Any] = {"cases": [_values(case) for case in cases]}
        if probes is not None:
            body["probes"] = probes
        return dict(self._call("POST", "/ask/many", body))

    def receive(self, packets: bytes) -> dict[str, Any]:
        """Take packets in that came in a file: ``accepted``, ``refused`` by reason, ``in_force``."""
        total: dict[str, Any] = {"accepted": 0, "refused": {}}
        for at in range(0, max(1, len(packets)), FILE_BYTES):
            part = packets[at : at + FILE_BYTES]
            headers = {"content-type": "application/octet-stream"}
            done = self._json(self._ask_http("POST", "/receive", content=part, headers=headers))
            total["accepted"] += done["accepted"]
            for reason, count in done["refused"].items():
                total["refused"][reason] = total["refused"].get(reason, 0) + count
            total["in_force"] = done["in_force"]
        return total

    def pass_on(self, packets: bytes, *, by: str) -> dict[str, int]:
        """Hand packets of others that came in a file to the holders of their cells; see ``PassedOn``."""
        total: dict[str, int] = {}
        for at in range(0, max(1, len(packets)), FILE_BYTES):
            part = packets[at : at + FILE_BYTES]
            headers = {"content-type": "application/octet-stream"}
            done = self._json(self._ask_http("POST", "/pass-on", content=part, params={"by": by}, headers=headers))
            total = {name: total.get(name, 0) + count for name, count in done.items()}
        return total

    def received(self) -> bytes:
        """Packets in force that came in files."""
        return self._ask_http("GET", "/received").content

    def confirm(self, case: str, outcome: str | float) -> str:
        """Bring the outcome of a case; what it was, as ``Noted`` calls it in small letters."""
        return str(self._call("POST", "/confirm", {"case": case, "outcome": outcome})["result"])

    # what leaves --------------------------------------------------------------------------------------------

    def distil(self, *, k: int | None = None, streaming: bool = False) -> dict[str, Any]:
        """Condense observations into packets in the outbox."""
        return dict(self._call("POST", "/distil", {"k": k, "streaming": streaming}))

    def outbox(self, *states: str, after: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Packets of the outbox in some states (default all), oldest first.

        Args:
            states: ``pending``, ``queued`` (approved), ``sent``, ``acknowledged``, ...
            after: go on after this number.
            limit: at most so many; default all.
        """
        left = limit
        while left is None or left > 0:
            wanted = PAGE if left is None else min(PAGE, left)
            page = self._call("GET", "/outbox", state=list(states) or None, after=after, limit=wanted)
            yield from page["packets"]
            if page["next_after"] is None:
                return
            after = page["next_after"]
            left = None if left is None else left - len(page["packets"])

    def find(self, prefix: str) -> list[dict[str, Any]]:
        """Packets of the outbox whose digest or identity begins so."""
        return list(self._call("GET", f"/outbox/find/{quote(prefix, safe='')}")["packets"])

    def review(self, numbers: Sequence[int] | None = None) -> dict[str, Any]:
        """Put pending packets together under one digest: ``digest`` and ``ids``."""
        return dict(self._call("POST", "/outbox/review", {"ids": None if numbers is None else list(numbers)}))

    def approve(self, digest: str, *, by: str) -> dict[str, Any]:
        """Let exactly the bytes with this digest leave."""
        return dict(self._call("POST", "/outbox/approve", {"digest": digest, "by": by}))

    def reject(self, digest: str, *, by: str, again: bool = False) -> dict[str, Any]:
        """Never let these bytes leave."""
        return dict(self._call("POST", "/outbox/reject", {"digest": digest, "by": by, "again": again}))

    def hand_over(self, *, to: str, again: bool = False) -> tuple[bytes, int, int]:
        """What is approved as bytes, for a receiver that no transport reaches; how many packets and withdrawals."""
        done = self._ask_http("POST", "/outbox/hand-over", json={"to": to, "again": again})
        return done.content, int(done.headers["outroute-packets"]), int(done.headers["outroute-withdrawals"])

    def withdraw(self, *, by: str, reason: str = "not given", **which: Any) -> dict[str, Any]:
        """Take packets back: ``packet``, ``case``, or ``since`` and ``until``."""
        return dict(self._call("POST", "/withdraw", {"by": by, "reason": reason} | which))

    def correct(self, *, by: str, reason: str = "a correction") -> dict[str, Any]:
        """Take back what changed after it left."""
        return dict(self._call("POST", "/correct", {"by": by, "reason": reason}))

    def budget(self) -> dict[str, Any]:
        """What was spent of the differential privacy that the schema promises, and what is left."""
        return dict(self._call("GET", "/budget"))

    def budget_of(self, subject: str) -> dict[str, Any]:
        """What one subject has given of its budget, and what is left of it."""
        return dict(self._call("POST", "/budget/subject", {"subject": subject}))

    def vouch(self, *, by: str) -> dict[str, Any]:
        """Vouch that nothing was released since a backup; the budget afterwards."""
        return dict(self._call("POST", "/budget/vouch", {"by": by}))

    def erase(self, subject: str, *, by: str) -> dict[str, Any]:
        """Erase a subject."""
        return dict(self._call("POST", "/erase", {"subject": subject, "by": by}))

    # looking ------------------------------------------------------------------------------------------------

    def cell(self, address: str) -> dict[str, Any]:
        """Packets (base64) that the node keeps of a cell, by its address in hex."""
        return dict(self._call("GET", f"/cells/{quote(address, safe='')}"))

    def peers(self) -> dict[str, Any]:
        """Live members as the node knows them."""
        return dict(self._call("GET", "/peers"))

    def paths(self, *, top: int | None = None) -> dict[str, Any]:
        """Who corroborates or contradicts whom: ``nodes``, ``corroborations``, ``contradictions``, ``matrix``."""
        return dict(self._call("GET", "/paths", top=top))

    def status(self) -> dict[str, Any]:
        """What the node knows, what waits, what has left."""
        return dict(self._call("GET", "/status"))

    def health(self) -> dict[str, Any]:
        """Whether the node works."""
        return dict(self._call("GET", "/health"))

    def metrics(self) -> str:
        """Numbers for Prometheus."""
        return self._ask_http("GET", "/metrics").text

    def log(self, *, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """``entries`` of the node's log, oldest first, its ``count`` and its ``head``."""
        return dict(self._call("GET", "/log", after=after, limit=limit))

    def verify_log(self, head: str | None = None) -> dict[str, Any]:
        """What is wrong with the log (``problems``); nothing, when it is ``whole``."""
        return dict(self._call("GET", "/log/verify", head=head))

    def export_log(self) -> str:
        """The log as lines of JSON, which ``outroute log verify FILE`` checks."""
        return self._ask_http("GET", "/log/export").content.decode(errors="surrogateescape")

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _values(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case as JSON holds it: without gaps, and without NumPy's own numbers."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in case.items()}
    return {name: value for name, value in plain.items() if not (isinstance(value, float) and math.isnan(value))}


def _ids(values: Sequence[Any] | NDArray[Any]) -> list[str]:
    """Ids as text; a node takes 7, 7.0 and "7" for one id, and so does this."""
    out = []
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        if isinstance(value, bytes):
            raise DataError("give ids as text or numbers: bytes do not travel", code="data.case")
        out.append(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))
    return out
