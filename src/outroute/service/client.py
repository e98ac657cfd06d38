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

    def _call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        try:
            response = self._http.request(
                method, path, json=body, params={k: v for k, v in query.items() if v is not None}
            )
        except httpx.HTTPError as error:
            raise TransportError(
                f"the node at {self._http.base_url} does not answer ({type(error).__name__}): see its log",
                code="api.unreachable",
            ) from error
        try:
            content = response.json()
        except ValueError:
            raise TransportError(f"{self._http.base_url} is no outroute node", code="api.foreign") from None
        if response.is_success:
            return content
        told = content.get("error", {}) if isinstance(content, dict) else {}
        code = str(told.get("code", "api.http"))
        kind = _KINDS.get(code.partition(".")[0], TransportError)
        raise kind(str(told.get("message", f"the node answered {response.status_code}")), code=code)

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

    def ask(self, case: Mapping[str, Any], *, case_id: str | None = None, probes: int | None = None) -> dict[str, Any]:
        """What happened to cases like this one; see ``Insight.to_dict`` for what comes back."""
        body: dict[str, Any] = {"case": dict(case), "case_id": case_id}
        if probes is not None:
            body["probes"] = probes
        return dict(self._call("POST", "/ask", body))

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

    def withdraw(self, *, by: str, reason: str = "not given", **which: Any) -> dict[str, Any]:
        """Take packets back: ``packet``, ``case``, or ``since`` and ``until``."""
        return dict(self._call("POST", "/withdraw", {"by": by, "reason": reason} | which))

    def correct(self, *, by: str, reason: str = "a correction") -> dict[str, Any]:
        """Take back what changed after it left."""
        return dict(self._call("POST", "/correct", {"by": by, "reason": reason}))

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

    def status(self) -> dict[str, Any]:
        """What the node knows, what waits, what has left."""
        return dict(self._call("GET", "/status"))

    def health(self) -> dict[str, Any]:
        """Whether the node works."""
        return dict(self._call("GET", "/health"))

    def metrics(self) -> str:
        """Numbers for Prometheus."""
        try:
            return self._http.get("/metrics").raise_for_status().text
        except httpx.HTTPError as error:
            raise TransportError(f"the node gives no numbers ({error})", code="api.unreachable") from error

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ids(values: Sequence[Any] | NDArray[Any]) -> list[str]:
    """Ids as text; a node takes 7, 7.0 and "7" for one id, and so does this."""
    out = []
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        if isinstance(value, bytes):
            raise DataError("give ids as text or numbers: bytes do not travel", code="data.case")
        out.append(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))
    return out
