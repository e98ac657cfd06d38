"""Who lets packets leave: somebody by hand, a file of rules, or the operator for all of them.

By hand means that a packet waits in the outbox until somebody approves its digest. Rules approve what keeps all of
their bounds and leave the rest to be approved by hand.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outroute.errors import DataError
from outroute.packet import WEIGHT_ONE, PacketArray, agreeing
from outroute.schema import MISSING, Distiller, FieldKind, Schema

__all__ = ["HAND", "RULES_BYTES", "Approval", "Automatic", "Hand", "Rules", "default_approval", "load_rules"]

RULES_BYTES = 100_000
"""A file of rules is at most 100 kB: it is read by people."""
_NAME_CHARACTERS = 100
"""Longest name of a set of rules; it stands in every entry of the log."""
_DAY = 86_400


class Approval(Protocol):
    """Decides which packets in the outbox may leave without somebody approving them."""

    @property
    def by(self) -> str:
        """What the log names as the approver; empty when nothing is approved this way."""

    def check(self, schema: Schema) -> None:
        """Refuse what does not fit a schema.

        Raises:
            DataError: it names a field or category that the schema does not have.
        """

    def passes(
        self, schema: Schema, packets: PacketArray, *, now: int, approved_today: Callable[[], int]
    ) -> NDArray[np.bool_]:
        """Which packets may leave, bool ``[n]``.

        Args:
            schema: of the packets.
            packets: waiting, in the order of the outbox.
            now: seconds since 1970-01-01 UTC.
            approved_today: how many packets were approved under this name since midnight UTC.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Nothing leaves that nobody approved by its digest: the default."""

    by: str = field(default="", init=False)

    def check(self, schema: Schema) -> None:
        """Fits every schema."""

    def passes(
        self, schema: Schema, packets: PacketArray, *, now: int, approved_today: Callable[[], int]
    ) -> NDArray[np.bool_]:
        """None."""
        return np.zeros(len(packets), dtype=np.bool_)


HAND = Hand()


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """Everything may leave: for data that concern no person, and for trials on one's own machine.

    Attributes:
        by: who decided that, for the log.
    """

    by: str

    def check(self, schema: Schema) -> None:
        """Fits every schema."""

    def passes(
        self, schema: Schema, packets: PacketArray, *, now: int, approved_today: Callable[[], int]
    ) -> NDArray[np.bool_]:
        """All."""
        return np.ones(len(packets), dtype=np.bool_)


def default_approval(schema: Schema) -> Approval:
    """By hand, unless the schema says that its observations concern no person."""
    single = schema.privacy.distiller is Distiller.SINGLE
    return Automatic(by="the schema, whose distiller is single") if single else HAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds within which packets leave without being looked at; all of them must be kept.

    Under the distiller ``private`` a release leaves whole or waits whole, and bounds on subjects, observations and
    classes do not apply: what they bound is not told.

    Attributes:
        name: of these rules; the log names ``rule: NAME`` as the approver.
        packets_most_per_day: packets approved by them from midnight to midnight, UTC; further ones wait. None for any
            number.
        subjects_least: subjects in a packet.
        observations_most: observations in a packet.
        agreeing: whether a packet may leave in which all outcomes agree: who knows somebody in such a cohort knows the
            outcome.
        class_least: observations of each class that occurs in a packet (class outcomes only).
        days_least: days since the packet's time bucket has ended: who watches a ward cannot tell who was there.
        missing: fields whose values must not leave: only packets in which they are missing do.
        absent: by field, categories that must not occur.
    """

    name: str
    packets_most_per_day: int | None = None
    subjects_least: int = 1
    observations_most: int = 2**32
    agreeing: bool = False
    class_least: int = 0
    days_least: int = 0
    missing: tuple[str, ...] = ()
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def by(self) -> str:
        """``rule: NAME``."""
        return f"rule: {self.name}"

    def check(self, schema: Schema) -> None:
        """See ``Approval.check``; code ``rules.field``."""
        known = {f.name: f for f in schema.fields}
        for name in (*self.missing, *self.absent):
            if name not in known:
                raise DataError(
                    f"rules '{self.name}': the schema has no field '{name}'{_close(name, known)}", code="rules.field"
                )
        for name, categories in self.absent.items():
            if known[name].kind is not FieldKind.CATEGORICAL:
                raise DataError(
                    f"rules '{self.name}': field '{name}' has no categories; name it under missing", code="rules.field"
                )
            for category in categories:
                if category not in known[name].categories:
                    near = _close(category, known[name].categories)
                    raise DataError(
                        f"rules '{self.name}': field '{name}' has no category '{category}'{near}", code="rules.field"
                    )
        if self.class_least and not schema.outcome.has_classes:
            raise DataError(
                f"rules '{self.name}': class_least needs an outcome with classes, '{schema.outcome.name}' has none",
                code="rules.field",
            )

    def passes(
        self, schema: Schema, packets: PacketArray, *, now: int, approved_today: Callable[[], int]
    ) -> NDArray[np.bool_]:
        """See ``Approval.passes``; where more keep the bounds than may leave today, the first of them leave."""
        noisy = schema.privacy.distiller is Distiller.PRIVATE
        good = np.ones(len(packets), dtype=np.bool_)
        if not noisy:  # how many subjects there are is not told, and noise promises more than these bounds
            good &= packets["weight"].astype(np.int64) >= self.subjects_least * WEIGHT_ONE
            good &= packets["size"].astype(np.int64) <= self.observations_most
        if self.days_least:
            good &= packets["bucket"] + schema.time.bucket_seconds + self.days_least * _DAY <= now
        if not self.agreeing:
            good &= ~agreeing(schema, packets)
        if self.class_least and not noisy:
            counts = packets["outcome"][:, : len(schema.outcome.classes)]
            good &= ((counts == 0) | (counts >= self.class_least)).all(axis=1)
        codes = packets["conditions"][:, : schema.width]
        for name in self.missing:
            good &= (codes[:, schema.slots[name]] == MISSING).all(axis=1)
        for name, categories in self.absent.items():
            first = schema.slots[name].start
            known = schema.field(name).categories
            for category in categories:
                share = codes[:, first + known.index(category)]
                good &= (share == 0) | (share == MISSING)
        if self.packets_most_per_day is not None and good.any():
            room = max(0, self.packets_most_per_day - approved_today())
            good &= np.cumsum(good) <= room
        return np.asarray(good, dtype=np.bool_)


def load_rules(path: Path | str) -> Rules:
    """Read rules from TOML.

    Example::

        name = "routine"
        packets_most_per_day = 500
        subjects_least = 10
        agreeing = false
        missing = ["postcode"]

        [absent]
        ward = ["psychiatry"]

    Raises:
        DataError: ``rules.file``, it cannot be read; ``rules.toml``, it is no TOML; ``rules.key``, a name that is
            none of a bound; ``rules.value``, a value of the wrong kind, or no name.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(RULES_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read the rules '{path}': {error.strerror}", code="rules.file") from None
    if len(data) > RULES_BYTES:
        raise DataError(f"'{path}' is larger than {RULES_BYTES:,} bytes: that is no file of rules", code="rules.file")
    try:
        found = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"'{path}' is not TOML: {error}", code="rules.toml") from None
    return _rules(found, str(path))


def _rules(found: Mapping[str, Any], path: str) -> Rules:
    names = [f.name for f in fields(Rules)]
    for key in found:
        if key not in names:
            near = _close(key, names) or f"; there are {', '.join(names)}"
            raise DataError(f"'{path}': rules have no '{key}'{near}", code="rules.key")
    if "name" not in found:
        raise DataError(f"'{path}': give the rules a name, which the log will name", code="rules.value")
    values: dict[str, Any] = dict(found)
    for key, value in found.items():
        wrong = _wrong(key, value)
        if wrong is not None:
            raise DataError(f"'{path}': {key} {wrong}", code="rules.value")
    values["missing"] = tuple(found.get("missing", ()))
    values["absent"] = {name: tuple(items) for name, items in found.get("absent", {}).items()}
    return Rules(**values)


def _wrong(key: str, value: Any) -> str | None:
    """What is wrong with a value, or ``None``."""
    if key == "name":
        good = isinstance(value, str) and 0 < len(value.strip()) <= _NAME_CHARACTERS and value.isprintable()
        return None if good else f"is a text of 1 to {_NAME_CHARACTERS} characters on one line"
    if key == "agreeing":
        return None if isinstance(value, bool) else "is true or false"
    if key == "missing":
        return None if _texts(value) else 'is a list of fields, such as ["postcode"]'
    if key == "absent":
        good = isinstance(value, dict) and all(_texts(items) for items in value.values())
        return None if good else "is a table of lists of categories, such as [absent] and below it ward = [...]"
    least = 1 if key in ("subjects_least", "observations_most") else 0
    good = type(value) is int and least <= value <= 2**32
    return None if good else f"is a whole number of {least} or more"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _close(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""
