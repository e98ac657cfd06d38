"""What a column probably is: a number, a category, or something that should stay at home."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

from outroute.schema import Field, FieldKind
from outroute.tables.ranges import outward_range, suspected_sentinels
from outroute.tables.table import Categories, Floats, Table, parse_number

__all__ = ["MAX_LABELS", "OTHER", "Profile", "label_order", "merge_rare", "profile", "subject_counts"]

#: Where rare categories go.
OTHER: Final = "other"
#: Categories proposed for one field; a person may raise it.
MAX_LABELS: Final = 20
#: Whole numbers with at most so many different values are taken as codes, with more as a measurement.
MAX_NUMBER_CODES: Final = 6
#: A column filled in fewer cases than this share is left out.
MIN_PRESENT: Final = 0.05
#: A text column with more different values than this share of its rows is ids or free text.
MAX_DISTINCT: Final = 0.5
#: A numeric column may hold this share of values that are no number ("<0.5").
MAX_BAD: Final = 0.05
#: Mean length, in characters, from which on text is taken as free text.
FREE_TEXT: Final = 40
#: Names longer than a schema allows, and values beyond its limits, are left out.
_MAX_LABEL_BYTES: Final = 120
_MAX_VALUE: Final = 1e14

_ID_NAME: Final = re.compile(
    r"(?i)^(no|nr|num|number|idx|index|key|uuid|guid|row_?(names?|number|id|no)|unnamed.*|[a-z]{0,3}id)$|[_\W]id$"
)
_MIN_ID_VALUES: Final = 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """A column, looked at.

    Attributes:
        column: its name.
        field: the proposed field; None if it is left out.
        reason: why it is left out ("" if it is not).
        remarks: what a person should know about the proposal.
        sentinels: values taken as missing although nobody said so.
        missing: share of rows without a value, 0 to 1.
        counts: subjects per proposed category (categorical fields).
    """

    column: str
    field: Field | None = None
    reason: str = ""
    remarks: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    missing: float = 0.0
    counts: tuple[int, ...] = ()


def subject_counts(codes: Ints, labels: int, subjects: Ints | None) -> Ints:
    """int64[labels]: how many subjects have each label (rows, if every row is a subject)."""
    present = codes >= 0
    if subjects is None:
        return np.bincount(codes[present], minlength=labels)
    span = int(subjects.max()) + 1 if len(subjects) else 1
    pairs = np.unique(codes[present] * span + subjects[present])
    return np.bincount(pairs // span, minlength=labels)


def label_order(labels: list[str]) -> list[str]:
    """Numbers by size, texts by letter, ``other`` last; never by frequency, which would tell about the data."""
    numbers = {label: parse_number(label) for label in labels}
    plain = [label for label in labels if label != OTHER]
    if all(numbers[label] is not None for label in plain):
        plain.sort(key=lambda label: (numbers[label] or 0.0, label))
    else:
        plain.sort(key=lambda label: (label.casefold(), label))
    return plain + [OTHER] * (OTHER in labels)


def merge_rare(labels: tuple[str, ...], counts: Ints, *, k: int, most: int = MAX_LABELS) -> tuple[list[str], list[int]]:
    """Category names for the labels: those of fewer than k subjects, and those beyond ``most``, become ``other``.

    Returns:
        The names in :func:`label_order`, and the subjects of each (of ``other``: the sum over what it holds).
    """
    usable = {
        label: int(count)
        for label, count in zip(labels, counts, strict=True)
        if count >= k and len(label.encode()) <= _MAX_LABEL_BYTES and label.casefold() != OTHER and label.isprintable()
    }
    rest = int(counts.sum()) - sum(usable.values())
    room = most - 1 if rest or len(usable) > most else most
    kept = sorted(usable, key=lambda label: (-usable[label], label))[:room]
    rest += sum(usable[label] for label in usable if label not in kept)
    named = {label: usable[label] for label in kept}
    if rest:
        named[OTHER] = rest
    order = label_order(list(named))
    return order, [named[label] for label in order]


def profile(table: Table, column: str, subjects: Ints | None, sites: Categories | None, *, k: int) -> Profile:
    """Propose a field for a column, or say why it should be left out."""
    if table.is_temporal(column):
        return Profile(column=column, reason="dates tell who a case was; derive an age, a season or an hour from it")
    if len(column.encode()) > _MAX_LABEL_BYTES or not column.isprintable() or not column:
        return Profile(column=column, reason="its name is too long or not printable; rename it")
    found = table.categories(column)
    present = found.codes >= 0
    missing = 1.0 - float(present.mean())
    filled = len(np.unique(subjects[present])) if subjects is not None else int(present.sum())
    if filled < 2 * k or missing > 1 - MIN_PRESENT:
        return Profile(
            column=column, reason=f"missing nearly everywhere ({filled:,} subjects have it)", missing=missing
        )
    if len(found.labels) == 1:
        return Profile(column=column, reason="always the same value", missing=missing)
    numbers = table.numbers(column)
    bad = int(numbers.bad.sum())
    if bad <= MAX_BAD * int(present.sum()):
        made = _numeric(table, column, found, numbers.values, subjects, sites, k)
    else:
        made = _categorical(column, found, subjects, k)
    remarks = made.remarks
    if made.field is not None and bad and made.field.kind is FieldKind.NUMERIC:
        first = int(np.argmax(numbers.bad))
        remarks += (f"{bad:,} values are no number, such as '{found.text()[first]}'; map them or they will be refused",)
    if sites is not None and made.field is not None:
        absent = [site for index, site in enumerate(sites.labels) if not present[sites.codes == index].any()]
        if absent:
            remarks += (f"not measured at {_some(absent)}",)
    from dataclasses import replace

    return replace(made, remarks=remarks, missing=missing)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _numeric(
    table: Table,
    column: str,
    found: Categories,
    values: Floats,
    subjects: Ints | None,
    sites: Categories | None,
    k: int,
) -> Profile:
    present = ~np.isnan(values)
    if not present.any() or float(np.max(np.abs(values[present]))) > _MAX_VALUE:
        return Profile(column=column, reason="its numbers are too large to be a measurement")
    sentinels = suspected_sentinels(values[present], k=k)
    remarks: list[str] = []
    for sentinel in sentinels:
        remarks.append(_sentinel_remark(values, sentinel, sites))
        present &= values != sentinel
    distinct = np.unique(values[present])
    integer = bool(np.all(distinct == np.floor(distinct)))
    texts = tuple(f"{sentinel:g}" for sentinel in sentinels)
    if integer and _is_id(column, distinct, int(present.sum())):
        return Profile(column=column, reason="looks like a number that names the row or the subject")
    if len(distinct) <= 2 or (integer and len(distinct) <= MAX_NUMBER_CODES):
        codes = np.where(present, found.codes, -1)
        made = _categorical(column, Categories(codes=codes, labels=found.labels), subjects, k)
        if made.field is not None and len(distinct) > 2:
            remarks.append(
                'few whole numbers, taken as codes; write kind = "numeric" with low and high if their size matters'
            )
        from dataclasses import replace

        return replace(made, remarks=(*remarks, *made.remarks), sentinels=texts)
    limits = outward_range(values[present], None if subjects is None else subjects[present], k=k, integer=integer)
    if limits is None:
        return Profile(column=column, reason=f"all but fewer than {k} subjects have the same value")
    if limits.outside:
        remarks.append(
            f"outside the proposed range: {limits.outside:,}, which would be refused; widen it if they are right"
        )
    bulk = np.quantile(values[present], [0.05, 0.95])
    if float(bulk[1] - bulk[0]) < 0.1 * float(limits.high - limits.low):
        remarks.append(
            "most values fill less than a tenth of the range; a logarithm or a narrower range would tell them apart"
        )
    field = Field(
        name=column, kind=FieldKind.NUMERIC, low=limits.low, high=limits.high, weight=Decimal(1), integer=integer
    )
    return Profile(column=column, field=field, remarks=tuple(remarks), sentinels=texts)


def _sentinel_remark(values: Floats, sentinel: float, sites: Categories | None) -> str:
    here = values == sentinel
    text = f"{sentinel:g} in {int(here.sum()):,} rows looks like a code for missing"
    if sites is not None:
        known = ~np.isnan(values)
        full = [
            site
            for index, site in enumerate(sites.labels)
            if (at := known & (sites.codes == index)).any() and bool(here[at].all())
        ]
        if full:
            text += f" (every value at {_some(full)})"
    return (
        f"{text}; taken so here: say it in mapping.toml (missing = [{sentinel:g}]), or widen the range if it is a value"
    )


def _is_id(column: str, distinct: Floats, present: int) -> bool:
    if len(distinct) < _MIN_ID_VALUES:
        return False
    if _ID_NAME.search(column) and len(distinct) > 5 * _MIN_ID_VALUES:
        return True
    dense = float(distinct[-1] - distinct[0]) < 3 * len(distinct)
    return len(distinct) >= 0.95 * present and (dense or bool(_ID_NAME.search(column)))


def _categorical(column: str, found: Categories, subjects: Ints | None, k: int) -> Profile:
    counts = subject_counts(found.codes, len(found.labels), subjects)
    used = [index for index in range(len(found.labels)) if counts[index]]
    labels = tuple(found.labels[index] for index in used)
    counts = counts[used]
    if not labels:
        return Profile(column=column, reason="no value is left")
    length = float(np.average([len(label) for label in labels], weights=counts))
    rows = int((found.codes >= 0).sum())
    if len(labels) >= _MIN_ID_VALUES and len(labels) > MAX_DISTINCT * rows:
        return Profile(column=column, reason="nearly every case has a value of its own: an id or free text")
    if length > FREE_TEXT and len(labels) > 2:
        return Profile(column=column, reason="long texts: free text may name people")
    names, merged = merge_rare(labels, counts, k=k)
    if len(names) < 2 or (len(names) == 2 and OTHER in names and merged[1] < k):
        return Profile(column=column, reason=f"all but fewer than {k} subjects have the same value")
    remarks = []
    if OTHER in names:
        held = len(labels) - len(names) + 1
        if held:
            what = "category" if held == 1 else "categories"
            remarks.append(f"{held} {what} of few subjects (or beyond {MAX_LABELS}) merged to '{OTHER}'")
    field = Field(name=column, kind=FieldKind.CATEGORICAL, categories=tuple(names), weight=Decimal(1))
    return Profile(column=column, field=field, remarks=tuple(remarks), counts=tuple(merged))
