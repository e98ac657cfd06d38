"""Preterm birth at four clinics (823 women), from what was known at the first visit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.datasets.base import Dataset, GroupKind, data_file
from outroute.datasets.declare import (
    category,
    flag,
    labels,
    number,
    numbers,
    objects,
    read_csv,
    schema,
    two_classes,
)

__all__ = ["OPT_FIELDS", "opt"]

_FLAGS = {
    "black": "Black",
    "white": "White",
    "native_american": "Nat.Am",
    "hispanic": "Hisp",
    "public_assistance": "Public.Asstce",
    "hypertension": "Hypertension",
    "diabetes": "Diabetes",
    "tobacco": "Use.Tob",
    "alcohol": "Use.Alc",
    "drugs": "Drug.Add",
    "earlier_pregnancy": "Prev.preg",
    "earlier_preterm_birth": "Live.PTB",
    "earlier_stillbirth": "Any.stillbirth",
    "earlier_miscarriage": "Spont.ab",
    "earlier_abortion": "Induced.ab",
}
_NUMBERS = {
    "age": "Age",
    "bmi": "BMI",
    "cigarettes": "BL.Cig.Day",
    "pregnancies": "N.prev.preg",
    "children": "N.living.kids",
    "teeth": "N.qualifying.teeth",
    "gingival_index": "BL.GE",
    "bleeding": "BL..BOP",
    "probing_depth": "BL.PD.avg",
    "depth_over_4": "BL..PD.4",
    "attachment_loss": "BL.CAL.avg",
    "calculus_index": "BL.Calc.I",
    "plaque_index": "BL.Pl.I",
}
_SCHOOL = {"LT 8 yrs": "under 8 years", "8-12 yrs": "8 to 12 years", "MT 12 yrs": "over 12 years"}
_MEDICINE = {
    "anti_inflammatory": "BL.Anti.inf",
    "antibiotic": "BL.Antibio",
    "bacterial_vaginosis_drug": "BL.Bac.vag",
}

OPT_FIELDS = (
    category("treatment", ("control", "periodontal treatment in pregnancy")),
    number("age", "12", "55", "years", integer=True),
    *(flag(name) for name in _FLAGS),
    category("education", _SCHOOL.values()),
    number("bmi", "10", "80", "kg/m2"),
    number("cigarettes", "0", "80", "per day", integer=True),
    number("pregnancies", "0", "20", "earlier", integer=True),
    number("children", "0", "20", "living", integer=True),
    number("teeth", "0", "32", "teeth", integer=True),
    number("gingival_index", "0", "3"),
    number("bleeding", "0", "100", "% of sites"),
    number("probing_depth", "0", "12", "mm, mean"),
    number("depth_over_4", "0", "100", "% of sites"),
    number("attachment_loss", "0", "12", "mm, mean"),
    number("calculus_index", "0", "3"),
    number("plaque_index", "0", "3"),
    *(flag(name) for name in _MEDICINE),
)
"""Conditions known when the woman entered the trial (13 to 17 weeks); nothing from later visits or from the birth."""

_EARLIER = ("earlier_preterm_birth", "earlier_stillbirth", "earlier_miscarriage", "earlier_abortion")


def opt(*, k: int = 5) -> Dataset:
    """Obstetrics and Periodontal Therapy trial: did the pregnancy end before 37 weeks?

    Rows are exchangeable (no dates, one row a woman). Only baseline columns are conditions: gestational age, birth
    weight, later visits, diagnoses made during the pregnancy and the number of visits attended would give the
    outcome away.

    Args:
        k: the schema's privacy floor.

    Raises:
        DataError: ``OUTROUTE_DATA`` is not set, or lacks ``opt``.
    """
    raw = read_csv(data_file("opt", "opt.csv"))
    yes_no = {"Yes": "yes", "No": "no", "Y": "yes", "N": "no"}
    columns: dict[str, NDArray[Any]] = {
        "treatment": labels(objects(raw["Group"]), {"C": "control", "T": "periodontal treatment in pregnancy"}),
        "education": labels(objects(raw["Education"]), _SCHOOL),
    }
    columns |= {name: labels(objects(raw[column]), yes_no) for name, column in _FLAGS.items()}
    columns |= {name: numbers(raw[column]) for name, column in _NUMBERS.items()}
    columns |= {name: labels(numbers(raw[column]), {0.0: "no", 1.0: "yes"}) for name, column in _MEDICINE.items()}
    # Questions that were not asked because an earlier answer settles them.
    first = columns["earlier_pregnancy"] == "no"
    for name in _EARLIER:
        columns[name] = np.where(first, "no", columns[name])
    for name in ("pregnancies", "children"):
        columns[name] = np.where(first, 0.0, columns[name])
    columns["cigarettes"] = np.where(columns["tobacco"] == "no", 0.0, columns["cigarettes"])
    ended_early = objects(raw["Preg.ended...37.wk"])
    return Dataset(
        name="opt",
        columns={f.name: columns[f.name] for f in OPT_FIELDS},
        outcome=labels(ended_early, {"Yes": "preterm", "No": "term"}),
        site=objects(raw["Clinic"]),
        case=np.array([str(number) for number in raw["PID"].to_pylist()], dtype=object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema("preterm birth", OPT_FIELDS, two_classes("birth", "term", "preterm"), k=k, subject="woman"),
        provenance="medicaldata::opt (Obstetrics and Periodontal Therapy trial, Michalowicz et al. 2006)",
        licence="MIT (the R package medicaldata)",
        notes=(
            "9 women lost to follow-up have no outcome",
            "the treatment arm is a condition: it was drawn at random at the first visit",
        ),
    )
