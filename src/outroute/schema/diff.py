"""Two versions of a schema as changes that people can judge: what each means, the weakest point first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from outroute.schema.canonical import decimal_text
from outroute.schema.model import Field, FieldKind, Outcome, Schema
from outroute.schema.privacy import Distiller, Privacy
from outroute.schema.toml import duration_text

__all__ = ["Change", "Meaning", "diff"]


class Meaning(Enum):
    """What a change means to those who agree to it, the gravest first."""

    WEAKENS = "weakens"
    """More may be told about a person or a time than before, or fewer must agree."""
    BREAKS = "breaks"
    """Own observations cannot be carried over: values of this field, or all of them, are lost."""
    NARROWS = "narrows"
    """Some values have no place any more, or less may leave than before."""
    WIDENS = "widens"
    """More has a place than before; everything that was can be carried over."""
    SHIFTS = "shifts"
    """Nothing is lost; what counts as similar, or where packets are kept, changes."""
    COSMETIC = "cosmetic"
    """For people only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change.

    Attributes:
        meaning: what it means.
        where: what changed, for example ``"field 'age'"``.
        text: how it changed, in a sentence.
    """

    meaning: Meaning
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def diff(old: Schema, new: Schema) -> tuple[Change, ...]:
    """What changes from ``old`` to ``new``, by meaning (the gravest first), then in the order of the schema.

    Args:
        old: the schema in force.
        new: the one proposed; it need not name the other as its parent.
    """
    found = [
        *_privacy(old, new),
        *_time(old, new),
        *_agreement(old, new),
        *_outcome(old.outcome, new.outcome),
        *_fields(old, new),
        *_landmarks(old, new),
        *_words(old, new),
    ]
    rank = {meaning: number for number, meaning in enumerate(Meaning)}
    return tuple(sorted(found, key=lambda change: rank[change.meaning]))


def _change(meaning: Meaning, where: str, text: str) -> Change:
    return Change(meaning=meaning, where=where, text=text)


def _privacy(old: Schema, new: Schema) -> Iterator[Change]:
    a, b, where = old.privacy, new.privacy, "privacy"
    if a.distiller is not b.distiller:
        yield _other_distiller(a, b)
    elif b.k < a.k:
        yield _change(Meaning.WEAKENS, where, f"only {b.k} {_counted(b)} must share a packet; before, {a.k}")
    elif b.k > a.k:
        yield _change(Meaning.NARROWS, where, f"{b.k} {_counted(b)} must share a packet; before, {a.k}")
    for name, what in (
        ("noise", "noise on conditions"),
        ("dissent", "members with another outcome"),
        ("flip", "share of outcomes drawn by lot"),
    ):
        less, more = getattr(b, name), getattr(a, name)
        if less != more:
            meaning = Meaning.WEAKENS if less < more else Meaning.NARROWS
            yield _change(meaning, where, f"{what}: {less}; before, {more}")
    if a.epsilon is not None and b.epsilon is not None:
        pairs = (
            ("epsilon", a.epsilon, b.epsilon, "over a node's lifetime"),
            ("delta", a.delta, b.delta, "the probability that the promise fails"),
        )
        for name, before, after, what in pairs:
            if before != after:
                weaker = after > before
                text = f"{name} is {decimal_text(after)}; before, {decimal_text(before)} ({what})"
                yield _change(Meaning.WEAKENS if weaker else Meaning.NARROWS, where, text)
        # Noise grows with m, so that epsilon is kept: more records a subject weaken nothing.
        if a.m != b.m:
            yield _change(Meaning.SHIFTS, where, f"a subject gives at most {b.m} records; before, {a.m}")
        if a.releases != b.releases:
            yield _change(Meaning.SHIFTS, where, f"a node makes at most {b.releases} releases; before, {a.releases}")
        if b.public_landmarks and not a.public_landmarks:
            yield _change(Meaning.WEAKENS, where, "landmarks are learnt, and declared to come from public records")
    if a.subject != b.subject:
        what = "k counts" if a.epsilon is None else "what is promised is promised to each"
        yield _change(Meaning.WEAKENS, where, f"{what} '{b.subject}'; before, '{a.subject}'")


def _counted(privacy: Privacy) -> str:
    return "subjects" if privacy.epsilon is None else "observations (counted with noise)"


def _other_distiller(a: Privacy, b: Privacy) -> Change:
    """Private promises most, single nothing."""
    where = "privacy"
    before = {
        Distiller.COHORT: f"{a.k} subjects a packet",
        Distiller.SINGLE: "one could leave alone",
        Distiller.PRIVATE: "differential privacy was promised",
    }[a.distiller]
    if b.distiller is Distiller.PRIVATE:
        assert b.epsilon is not None
        text = f"differential privacy is promised, epsilon {decimal_text(b.epsilon)} over a node's lifetime"
        return _change(Meaning.NARROWS, where, f"{text}; before, {before}")
    if b.distiller is Distiller.SINGLE:
        return _change(Meaning.WEAKENS, where, f"single observations may leave; before, {before}")
    weaker = a.distiller is Distiller.PRIVATE
    text = f"{b.k} subjects must share a packet; before, {before}"
    return _change(Meaning.WEAKENS if weaker else Meaning.NARROWS, where, text)


def _time(old: Schema, new: Schema) -> Iterator[Change]:
    a, b, where = old.time, new.time, "time"
    if b.bucket_seconds != a.bucket_seconds:
        finer = b.bucket_seconds < a.bucket_seconds
        text = f"told to {duration_text(b.bucket_seconds)}; before, to {duration_text(a.bucket_seconds)}"
        yield _change(Meaning.WEAKENS if finer else Meaning.NARROWS, where, text)
    if b.lifetime_seconds != a.lifetime_seconds:
        longer = b.lifetime_seconds > a.lifetime_seconds
        text = f"packets live {duration_text(b.lifetime_seconds)}; before, {duration_text(a.lifetime_seconds)}"
        yield _change(Meaning.WIDENS if longer else Meaning.NARROWS, where, text)


def _agreement(old: Schema, new: Schema) -> Iterator[Change]:
    where = "agreement"
    gone, come = set(old.organisations) - set(new.organisations), set(new.organisations) - set(old.organisations)
    for key in sorted(gone):
        yield _change(Meaning.WEAKENS, where, f"organisation {key.hex()[:16]} need not agree any more")
    for key in sorted(come):
        yield _change(Meaning.SHIFTS, where, f"organisation {key.hex()[:16]} has a say")
    if old.quorum != new.quorum:
        meaning = Meaning.WEAKENS if new.quorum < old.quorum else Meaning.SHIFTS
        yield _change(meaning, where, f"{new.quorum} of {len(new.organisations)} must sign; before, {_of(old)}")


def _of(schema: Schema) -> str:
    return f"{schema.quorum} of {len(schema.organisations)}" if schema.organisations else "nobody had to"


def _outcome(a: Outcome, b: Outcome) -> Iterator[Change]:
    where = f"outcome '{a.name}'"
    if a.name != b.name:
        yield _change(Meaning.BREAKS, where, f"is called '{b.name}': another name is another outcome")
    if a.kind is not b.kind:
        yield _change(Meaning.BREAKS, where, f"is {b.kind.name.lower()}; before, {a.kind.name.lower()}")
    elif a.has_classes:
        yield from _members(where, "class", a.classes, b.classes, Meaning.BREAKS)
        if a.kind.name == "BINARY" and set(a.classes) == set(b.classes) and a.classes != b.classes:
            yield _change(Meaning.SHIFTS, where, f"the positive class is '{b.classes[1]}'; before, '{a.classes[1]}'")
    else:
        yield from _ranges(where, a, b)
    if a.description != b.description:
        yield _change(Meaning.COSMETIC, where, "described in other words")


def _fields(old: Schema, new: Schema) -> Iterator[Change]:
    before, after = {f.name: f for f in old.fields}, {f.name: f for f in new.fields}
    gone = [f for f in old.fields if f.name not in after]
    come = [f for f in new.fields if f.name not in before]
    for f in gone:
        alike = [n.name for n in come if (n.kind, n.unit, n.low, n.high, n.categories) == _shape(f)]
        hint = (
            f" (renamed to '{alike[0]}'? another name is another field, values are not carried over)" if alike else ""
        )
        yield _change(Meaning.BREAKS, f"field '{f.name}'", f"is left out{hint}")
    for f in old.fields:
        if f.name in after:
            yield from _field(f, after[f.name])
    for f in come:
        yield _change(Meaning.WIDENS, f"field '{f.name}'", "is new: missing in everything observed before")
    kept = [f.name for f in new.fields if f.name in before]
    if kept != [f.name for f in old.fields if f.name in after]:
        yield _change(Meaning.COSMETIC, "fields", "stand in another order")


def _shape(f: Field) -> tuple[object, ...]:
    return (f.kind, f.unit, f.low, f.high, f.categories)


def _field(a: Field, b: Field) -> Iterator[Change]:
    where = f"field '{a.name}'"
    if a.kind is not b.kind:
        yield _change(Meaning.BREAKS, where, f"is {b.kind.value}; before, {a.kind.value}")
        return
    if a.kind is FieldKind.NUMERIC:
        yield from _ranges(where, a, b)
        if a.integer != b.integer:
            yield _change(Meaning.COSMETIC, where, "whole numbers" if b.integer else "not only whole numbers")
    else:
        yield from _members(where, "category", a.categories, b.categories, Meaning.NARROWS)
    if a.facet != b.facet:
        text = "must agree exactly" if b.facet else "counts by similarity; before, it had to agree exactly"
        yield _change(Meaning.SHIFTS, where, text)
    if a.action != b.action:
        text = "is an action: outcomes may be compared by it" if b.action else "is no action any more"
        yield _change(Meaning.SHIFTS, where, text)
    if a.weight != b.weight:
        text = f"weighs {decimal_text(b.weight)}; before, {decimal_text(a.weight)}"
        yield _change(Meaning.SHIFTS, where, text)
    if a.description != b.description:
        yield _change(Meaning.COSMETIC, where, "described in other words")


def _ranges(where: str, a: Field | Outcome, b: Field | Outcome) -> Iterator[Change]:
    assert a.low is not None
    assert a.high is not None
    assert b.low is not None
    assert b.high is not None
    if a.unit != b.unit:
        text = f"in '{b.unit}'; before, in '{a.unit}': another unit is another meaning"
        yield _change(Meaning.BREAKS, where, text)
        return
    unit = f" {a.unit}" if a.unit else ""
    spans = [f"{decimal_text(x)} to {decimal_text(y)}{unit}" for x, y in ((a.low, a.high), (b.low, b.high))]
    text = f"{spans[1]}; before, {spans[0]}"
    if b.high < a.low or b.low > a.high:
        yield _change(Meaning.BREAKS, where, f"{text}: no value of before has a place")
    elif b.low > a.low or b.high < a.high:
        yield _change(Meaning.NARROWS, where, f"{text}: cases outside are not carried over")
    elif (a.low, a.high) != (b.low, b.high):
        yield _change(Meaning.WIDENS, where, text)


def _members(where: str, what: str, a: tuple[str, ...], b: tuple[str, ...], when_gone: Meaning) -> Iterator[Change]:
    for name in a:
        if name not in b:
            after = "becomes missing" if when_gone is Meaning.NARROWS else "has no place"
            yield _change(when_gone, where, f"{what} '{name}' is left out: what had it {after}")
    for name in b:
        if name not in a:
            yield _change(Meaning.WIDENS, where, f"{what} '{name}' is new")
    if [n for n in a if n in b] != [n for n in b if n in a] and what == "category":
        yield _change(Meaning.COSMETIC, where, "categories stand in another order")


def _landmarks(old: Schema, new: Schema) -> Iterator[Change]:
    if old.landmarks != new.landmarks:
        text = f"{len(new.landmarks):,} other ones; before, {len(old.landmarks):,}: packets are kept elsewhere"
        yield _change(Meaning.SHIFTS, "landmarks", text)


def _words(old: Schema, new: Schema) -> Iterator[Change]:
    if old.name != new.name:
        yield _change(Meaning.COSMETIC, "name", f"is '{new.name}'; before, '{old.name}'")
