"""Schemas as TOML that a domain expert reads and edits."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from outroute.errors import SchemaError
from outroute.schema.canonical import decimal_text
from outroute.schema.declared import drawn_landmarks, grid_landmarks, recipe_of
from outroute.schema.landmarks import DEFAULT_LANDMARKS, Landmarks
from outroute.schema.model import (
    DISSENT,
    Distiller,
    Field,
    FieldKind,
    Outcome,
    OutcomeKind,
    Privacy,
    Schema,
    Time,
)

__all__ = ["MAX_SCHEMA_BYTES", "dumps", "duration_text", "loads", "parse", "parse_duration"]

MAX_SCHEMA_BYTES = 1_000_000
"""A schema file is at most 1 MB: it is read by people."""

_UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "year": 365 * 86_400}
_KEY = re.compile(r"[0-9a-fA-F]{64}")
DEFAULT_K = {Distiller.COHORT: 5, Distiller.SINGLE: 1, Distiller.PRIVATE: 1}
DEFAULT_RECORDS, DEFAULT_RELEASES = 1, 10
"""Under ``private``: records that a subject gives, and releases that a node makes, where the schema does not say."""
_DURATION = re.compile(r"(\d{1,10}) (second|minute|hour|day|week|year)s?")


def parse_duration(text: str) -> int:
    """Seconds of a text such as "30 days" or "20 years" (a year is 365 days).

    Raises:
        SchemaError: when it is not a whole number and a unit.
    """
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise SchemaError(
            f'\'{text}\' is not a duration; write for example "1 day", "6 weeks", "20 years"',
            code="schema.time",
        )
    return int(match[1]) * _UNITS[match[2]]


def duration_text(seconds: int) -> str:
    """The shortest way to write a duration that :func:`parse_duration` reads."""
    for unit in ("year", "week", "day", "hour", "minute", "second"):
        if seconds % _UNITS[unit] == 0:
            count = seconds // _UNITS[unit]
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError(seconds)


def _decimal(value: Any, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise SchemaError(f"{what}: '{value}' is not a number", code="schema.number")
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise SchemaError(f"{what}: '{value}' is not a number", code="schema.number") from None


class _Reader:
    """A TOML table whose keys must all be used, so that a typo is found."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, dict):
            raise SchemaError(f"[{where}] must be a table", code="schema.toml")
        self.table, self.where, self.used = table, where, set[str]()

    def get(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        self.used.add(key)
        value = self.table.get(key, default)
        wrong_bool = isinstance(value, bool) and kind is int
        if value is not default and (not isinstance(value, kind) or wrong_bool):
            raise SchemaError(f"[{self.where}] {key} = {value!r} is not of the right type", code="schema.toml")
        return value

    def need(self, key: str, kind: type) -> Any:
        if key not in self.table:
            raise SchemaError(f"[{self.where}] needs '{key}'", code="schema.toml")
        return self.get(key, kind, None)

    def number(self, key: str) -> Decimal | None:
        self.used.add(key)
        value = self.table.get(key)
        return None if value is None else _decimal(value, f"[{self.where}] {key}")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key, list, [])
        if not all(isinstance(v, str) for v in value):
            raise SchemaError(f"[{self.where}] {key} must be a list of texts", code="schema.toml")
        return tuple(value)

    def done(self) -> None:
        unknown = sorted(set(self.table) - self.used)
        if unknown:
            raise SchemaError(
                f"[{self.where}] does not know '{unknown[0]}'; it knows {', '.join(sorted(self.used))}",
                code="schema.toml",
            )


def _enum(kind: Any, name: str, where: str) -> Any:
    values = {str(m.name).lower(): m for m in kind}
    if name not in values:
        raise SchemaError(f"[{where}] '{name}' is not one of {', '.join(values)}", code="schema.toml")
    return values[name]


def _read_field(name: str, table: Any) -> Field:
    r = _Reader(table, f"fields.{name}")
    r.get("reviewed", bool, True)
    weight = r.number("weight")
    made = Field(
        name=name,
        kind=_enum(FieldKind, r.need("kind", str), r.where),
        low=r.number("low"),
        high=r.number("high"),
        unit=r.get("unit", str, ""),
        categories=r.texts("categories"),
        weight=Decimal(1) if weight is None else weight,
        facet=r.get("facet", bool, False),
        action=_role(r),
        integer=r.get("integer", bool, False),
        description=r.get("description", str, ""),
    )
    r.done()
    return made


def _role(r: _Reader) -> bool:
    """Whether a field is an action."""
    role = r.get("role", str, "condition")
    if role not in ("condition", "action"):
        raise SchemaError(f"[{r.where}] role '{role}' is neither 'condition' nor 'action'", code="schema.toml")
    return bool(role == "action")


def _read_outcome(table: Any) -> Outcome:
    r = _Reader(table, "outcome")
    r.get("reviewed", bool, True)
    made = Outcome(
        name=r.need("name", str),
        kind=_enum(OutcomeKind, r.need("kind", str), "outcome"),
        classes=r.texts("classes"),
        low=r.number("low"),
        high=r.number("high"),
        unit=r.get("unit", str, ""),
        description=r.get("description", str, ""),
    )
    r.done()
    return made


def _read_privacy(table: Any, public: bool) -> Privacy:
    r = _Reader(table, "privacy")
    distiller: Distiller = _enum(Distiller, r.get("distiller", str, "cohort"), "privacy")
    private = distiller is Distiller.PRIVATE
    delta = r.number("delta")
    made = Privacy(
        distiller=distiller,
        k=r.get("k", int, DEFAULT_K[distiller]),
        subject=r.get("subject", str, "subject"),
        noise=r.number("noise") or Decimal(0),
        dissent=r.get("dissent", int, DISSENT),
        flip=r.number("flip") or Decimal(0),
        epsilon=r.number("epsilon"),
        delta=Decimal(0) if delta is None else delta,
        m=r.get("m", int, DEFAULT_RECORDS if private else None),
        releases=r.get("releases", int, DEFAULT_RELEASES if private else None),
        public_landmarks=public,
    )
    r.done()
    return made


def _read_landmarks(
    table: Any, fields: tuple[Field, ...], read: Callable[[str], bytes] | None
) -> tuple[Landmarks, bool]:
    """The landmarks, and whether they are declared to come from public records."""
    r = _Reader(table, "landmarks")
    kind = r.get("kind", str, "drawn")
    public = r.get("public", bool, False)
    if kind == "grid":
        levels = r.need("levels", dict)
        made = grid_landmarks(fields, levels)
    elif kind == "drawn":
        made = drawn_landmarks(fields, r.get("count", int, DEFAULT_LANDMARKS))
    elif kind == "learnt":
        name, expected = r.need("file", str), r.need("id", str)
        if read is None:
            raise SchemaError(f"the landmark file '{name}' is needed to load this schema", code="schema.landmarks")
        made = Landmarks.from_bytes(read(name))
        if made.id.hex() != expected:
            raise SchemaError(
                f"the landmark file '{name}' is not the one this schema names: get the file with id {expected}",
                code="schema.landmarks",
            )
    else:
        raise SchemaError(f"[landmarks] kind '{kind}' is none of 'drawn', 'grid' and 'learnt'", code="schema.toml")
    r.done()
    return made, public


def _read_agreement(table: Any) -> tuple[tuple[bytes, ...], int]:
    """Who must agree to the schema, and how many of them."""
    if table is None:
        return (), 0
    r = _Reader(table, "agreement")
    r.need("organisations", list)
    keys = r.texts("organisations")
    quorum = r.need("quorum", int)
    r.done()
    for key in keys:
        if not _KEY.fullmatch(key):
            raise SchemaError(
                f"[agreement] '{key[:80]}' is not a public key of 64 hex digits: outroute org show prints it",
                code="schema.organisations",
            )
    return tuple(bytes.fromhex(key) for key in keys), quorum


def parse(text: str) -> dict[str, Any]:
    """TOML as nested tables, its floats as decimals.

    Raises:
        SchemaError: when it is too long or not TOML.
    """
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaError("a schema file is at most 1 MB", code="schema.toml")
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError) as error:  # also numbers that are too long
        raise SchemaError(f"the schema is not valid TOML: {error}", code="schema.toml") from None
    except RecursionError:
        raise SchemaError("the schema is not valid TOML: nested too deeply", code="schema.toml") from None


def loads(text: str, read: Callable[[str], bytes] | None = None) -> Schema:
    """Read a schema.

    Args:
        text: TOML.
        read: gives the bytes of the landmark file that the schema names, when it names one.

    Raises:
        SchemaError: with what is wrong and where.
    """
    data = parse(text)
    r = _Reader(data, "schema")
    name, parent = r.need("name", str), r.get("parent", str, "")
    r.get("description", str, "")
    tables = r.need("fields", dict)
    fields = tuple(_read_field(key, value) for key, value in tables.items())
    outcome = _read_outcome(r.need("outcome", dict))
    p = r.get("privacy", dict, {})
    t = _Reader(r.get("time", dict, {}), "time")
    time = Time(
        bucket_seconds=parse_duration(t.get("bucket", str, "30 days")),
        lifetime_seconds=parse_duration(t.get("lifetime", str, "5 years")),
    )
    t.done()
    landmarks, public = _read_landmarks(r.get("landmarks", dict, {}), fields, read)
    privacy = _read_privacy(p, public)
    organisations, quorum = _read_agreement(r.get("agreement", dict, None))
    r.done()
    try:
        parent_id = bytes.fromhex(parent)
    except ValueError:
        raise SchemaError("parent must be the schema id in hex", code="schema.parent") from None
    return Schema(
        name=name,
        fields=fields,
        outcome=outcome,
        privacy=privacy,
        time=time,
        landmarks=landmarks,
        parent=parent_id,
        organisations=organisations,
        quorum=quorum,
    )


def _number(value: Decimal) -> Any:
    """A decimal as TOML writes numbers: int where whole, else float text that parses back exactly."""
    import tomlkit

    return tomlkit.value(decimal_text(value))


def dumps(schema: Schema, *, landmarks_file: str | None = None, unreviewed: frozenset[str] = frozenset()) -> str:
    """Write a schema as TOML.

    Args:
        schema: the schema.
        landmarks_file: name of the file that holds the landmarks, when they were learnt. Without it the landmarks
            must be the drawn ones.
        unreviewed: fields whose inferred range or categories a person has not looked at yet.

    Raises:
        SchemaError: when the landmarks were learnt and no file is named.
    """
    import tomlkit

    doc = tomlkit.document()
    doc.add(tomlkit.comment("What a network agrees on. Edit it, then run: outroute schema check FILE"))
    doc["name"] = schema.name
    if schema.parent:
        doc["parent"] = schema.parent.hex()
    o = tomlkit.table()
    o["name"], o["kind"] = schema.outcome.name, schema.outcome.kind.name.lower()
    if schema.outcome.classes:
        o["classes"] = list(schema.outcome.classes)
        if schema.outcome.kind is OutcomeKind.BINARY:
            o["classes"].comment("the second is the positive one")
    _write_range(o, schema.outcome.low, schema.outcome.high, schema.outcome.unit)
    if schema.outcome.description:
        o["description"] = schema.outcome.description
    if schema.outcome.name in unreviewed:
        o["reviewed"] = tomlkit.item(False).comment("look at it, then remove this line")
    doc["outcome"] = o
    p = tomlkit.table()
    p["distiller"], p["k"] = schema.privacy.distiller.name.lower(), schema.privacy.k
    p["subject"] = schema.privacy.subject
    if schema.privacy.epsilon is None:
        p["k"].comment("fewest subjects in a packet")
        if schema.privacy.noise:
            p["noise"] = _number(schema.privacy.noise)
            p["noise"].comment("on every condition, as a share of its range")
        if schema.privacy.dissent != DISSENT:
            p["dissent"] = schema.privacy.dissent
            p["dissent"].comment("fewest members with another outcome than most")
        if schema.privacy.flip:
            p["flip"] = _number(schema.privacy.flip)
            p["flip"].comment("share of outcomes replaced by lot")
    else:
        _write_promise(p, schema.privacy)
    doc["privacy"] = p
    t = tomlkit.table()
    t["bucket"] = duration_text(schema.time.bucket_seconds)
    t["lifetime"] = duration_text(schema.time.lifetime_seconds)
    doc["time"] = t
    m = tomlkit.table()
    if landmarks_file is not None:
        m["kind"], m["file"], m["id"] = "learnt", landmarks_file, schema.landmarks.id.hex()
    else:
        recipe = recipe_of(schema.fields, schema.landmarks)
        if recipe is None:
            raise SchemaError("name the file for the learnt landmarks", code="schema.landmarks")
        m["kind"] = recipe.kind
        if recipe.levels:
            levels = tomlkit.inline_table()
            levels.update(recipe.levels)
            m["levels"] = levels
        else:
            m["count"] = recipe.count
    if schema.privacy.public_landmarks:
        m["public"] = tomlkit.item(True).comment("learnt from public records, not from protected ones")
    doc["landmarks"] = m
    if schema.organisations:
        a = tomlkit.table()
        keys = tomlkit.array()
        keys.extend(key.hex() for key in schema.organisations)
        a["organisations"], a["quorum"] = keys.multiline(True), schema.quorum
        a["quorum"].comment("so many of them must sign: outroute schema sign")
        doc["agreement"] = a
    fields = tomlkit.table(is_super_table=True)
    for f in schema.fields:
        row = tomlkit.table()
        row["kind"] = f.kind.value
        _write_range(row, f.low, f.high, f.unit)
        if f.integer:
            row["integer"] = True
        if f.categories:
            row["categories"] = list(f.categories)
        if f.facet:
            row["facet"] = True
        if f.action:
            row["role"] = "action"
        row["weight"] = _number(f.weight)
        if f.description:
            row["description"] = f.description
        if f.name in unreviewed:
            row["reviewed"] = tomlkit.item(False).comment("look at it, then remove this line")
        fields[f.name] = row
    doc["fields"] = fields
    return tomlkit.dumps(doc)


def _write_promise(table: Any, privacy: Privacy) -> None:
    """What the distiller ``private`` promises."""
    assert privacy.epsilon is not None
    table["k"].comment("fewest observations, counted with noise, about which a packet says anything")
    table["epsilon"] = _number(privacy.epsilon)
    table["epsilon"].comment("bound on what can be learnt about one subject over a node's lifetime")
    table["delta"] = _number(privacy.delta)
    table["m"], table["releases"] = privacy.m, privacy.releases
    table["m"].comment("records that one subject gives at most, in all releases together")
    table["releases"].comment("so many in a node's lifetime, one a time bucket at most")


def _write_range(table: Any, low: Decimal | None, high: Decimal | None, unit: str) -> None:
    if low is not None and high is not None:
        table["low"], table["high"] = _number(low), _number(high)
        table["unit"] = unit
