"""What the HTTP interface takes, as the OpenAPI document describes it. Every list and text is bounded."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Approve",
    "Ask",
    "AskMany",
    "Confirm",
    "Correct",
    "Distil",
    "Encoded",
    "Erase",
    "HandOver",
    "Observe",
    "Reject",
    "Review",
    "Vouch",
    "Withdraw",
]

ROWS_MOST = 10_000
"""Observations of one request: each request is one durable step. Questions of one request: some 2 MB of answers."""
FILE_MOST = 16 * 1024 * 1024
"""Bytes of packets of one request: 32,768 of them."""
FIELDS_MOST = 512
"""Values of one observation or question; a packet has room for 116 conditions."""

Scalar = str | int | float | bool | None
Text = Annotated[str, Field(min_length=1, max_length=400)]
Id = Annotated[str, Field(min_length=1, max_length=400)] | int
Digest = Annotated[str, Field(min_length=12, max_length=64, pattern=r"^[0-9a-fA-F]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Observe(_Body):
    """Observations as rows."""

    rows: Annotated[
        list[Annotated[dict[str, Scalar], Field(max_length=FIELDS_MOST)]],
        Field(min_length=1, max_length=ROWS_MOST, description="One object an observation, by column name."),
    ]
    case: Text = Field(description="The column that names a case: the same case again counts nothing twice.")
    subject: Text | None = Field(None, description="The column that names the person; k counts these.")
    time: Text | None = Field(None, description="The column that says when it was observed.")
    outcome: Text | None = Field(None, description="The column with the outcome, if not called as in the schema.")


class Encoded(_Body):
    """Observations that are encoded already, as the Python client and the command send them."""

    codes: Annotated[
        list[Annotated[list[Annotated[int, Field(ge=0, le=65_535)]], Field(max_length=FIELDS_MOST)]],
        Field(min_length=1, max_length=ROWS_MOST),
    ]
    outcome: Annotated[list[float | None], Field(max_length=ROWS_MOST)]
    cases: Annotated[list[Id], Field(max_length=ROWS_MOST)]
    subjects: Annotated[list[Id], Field(max_length=ROWS_MOST)] | None = None
    times: Annotated[list[Annotated[int, Field(ge=-(2**40), le=2**40)]], Field(max_length=ROWS_MOST)] | None = None


class Ask(_Body):
    """A question."""

    case: Annotated[dict[str, Scalar], Field(max_length=FIELDS_MOST)] = Field(
        description="Conditions by field name; what is left out is missing. They do not leave the node."
    )
    case_id: Id | None = Field(None, description="Remember the question, to confirm its outcome later.")
    probes: int = Field(4, ge=1, le=64, description="Nearest cells to ask.")
    explain: bool = Field(
        False, description="Say who was believed and why, who agrees with whom, and which packets lost."
    )


class Compare(_Body):
    """A question about an action."""

    case: Annotated[dict[str, Scalar], Field(max_length=FIELDS_MOST)] = Field(
        description="Conditions by field name, without the action."
    )
    by: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        description="A field that the schema calls an action."
    )
    values: Annotated[list[Scalar], Field(min_length=1, max_length=ROWS_MOST)] | None = Field(
        None, description="Values of it to compare; default every category."
    )
    probes: int = Field(4, ge=1, le=64, description="Nearest cells to ask for each.")


class Pin(_Body):
    """A node to believe whatever it says, or no longer."""

    node: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="Its id in hex, or the start of it.")
    by: Text
    why: Text | None = None


class AskMany(_Body):
    """Questions that share what is fetched, checked and fitted."""

    cases: Annotated[
        list[Annotated[dict[str, Scalar], Field(max_length=FIELDS_MOST)]],
        Field(min_length=1, max_length=ROWS_MOST, description="One object a question, as for /ask."),
    ]
    probes: int = Field(4, ge=1, le=64, description="Nearest cells to ask for each.")


class Confirm(_Body):
    """The outcome of a case."""

    case: Id
    outcome: str | int | float


class Distil(_Body):
    """How to condense."""

    k: int | None = Field(None, ge=1, le=1_000_000)
    streaming: bool = False


class Review(_Body):
    """Pending packets to be put together under one digest."""

    ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**62)]], Field(max_length=200_000)] | None = None


class Approve(_Body):
    """An approval."""

    digest: Digest
    by: Text


class Reject(Approve):
    """A rejection."""

    again: bool = False


class HandOver(_Body):
    """What is approved, as a file for a receiver that no transport reaches."""

    to: Text
    again: bool = False


class Vouch(_Body):
    """Nothing was released since a backup."""

    by: Text = Field(description="Who vouches, for the log.")


class Withdraw(_Body):
    """Which packets to take back: one of packet, case, or since and until."""

    by: Text
    reason: Text = "not given"
    packet: Digest | None = None
    case: Id | None = None
    since: int | None = None
    until: int | None = None


class Correct(_Body):
    """Who corrects."""

    by: Text
    reason: Text = "a correction"


class Subject(_Body):
    """Whom it is about."""

    subject: Id


class Erase(_Body):
    """Whom to erase."""

    subject: Id
    by: Text
