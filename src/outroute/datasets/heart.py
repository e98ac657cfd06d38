"""Heart disease at four hospitals (920 patients)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outroute.datasets.base import Dataset, GroupKind, data_file
from outroute.datasets.declare import (
    category,
    flag,
    labels,
    number,
    numbers,
    read_csv,
    schema,
    two_classes,
)

__all__ = ["HEART_FIELDS", "heart"]

_HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_RAW = (
    "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num".split()  # noqa: SIM905
)
_PAIN = {1.0: "typical angina", 2.0: "atypical angina", 3.0: "non-anginal", 4.0: "asymptomatic"}
_ECG = {0.0: "normal", 1.0: "ST-T abnormality", 2.0: "hypertrophy"}
_SLOPE = {1.0: "up", 2.0: "flat", 3.0: "down"}
_THAL = {3.0: "normal", 6.0: "fixed defect", 7.0: "reversible defect"}
_YES = {0.0: "no", 1.0: "yes"}

HEART_FIELDS = (
    number("age", "18", "100", "years", integer=True),
    category("sex", ("female", "male")),
    category("chest_pain", _PAIN.values()),
    number("blood_pressure", "60", "260", "mmHg at rest"),
    number("cholesterol", "50", "700", "mg/dl"),
    flag("fasting_sugar_over_120"),
    category("ecg", _ECG.values()),
    number("max_heart_rate", "40", "230", "1/min"),
    flag("exercise_angina"),
    number("st_depression", "-5", "10", "mm"),
    category("st_slope", _SLOPE.values()),
    number("vessels", "0", "3", "coloured vessels", integer=True),
    category("thallium", _THAL.values()),
)
"""The thirteen conditions; ranges are physiological, not this table's."""


def heart(*, k: int = 5, root: Path | None = None) -> Dataset:
    """UCI heart disease: is a coronary artery narrowed by more than half?

    Rows are exchangeable (no dates, one row a patient). A blood pressure or cholesterol of 0 means "not measured"
    (all 123 cholesterols of Switzerland are 0) and is missing here.

    Args:
        k: the schema's privacy floor.
        root: the data directory; default what ``OUTROUTE_DATA`` names.

    Raises:
        DataError: ``OUTROUTE_DATA`` is not set, or lacks ``heart`` (``outroute data fetch heart`` gets it).
    """
    parts = []
    for hospital in _HOSPITALS:
        raw = read_csv(data_file("heart", f"processed.{hospital}.data", root=root), names=list(_RAW))
        parts.append({name: numbers(column) for name, column in raw.items()})
    raw_all = {name: np.concatenate([part[name] for part in parts]) for name in _RAW}
    sizes = [len(part["age"]) for part in parts]
    for measured in ("trestbps", "chol"):
        raw_all[measured] = np.where(raw_all[measured] == 0, np.nan, raw_all[measured])
    columns = {
        "age": raw_all["age"],
        "sex": labels(raw_all["sex"], {0.0: "female", 1.0: "male"}),
        "chest_pain": labels(raw_all["cp"], _PAIN),
        "blood_pressure": raw_all["trestbps"],
        "cholesterol": raw_all["chol"],
        "fasting_sugar_over_120": labels(raw_all["fbs"], _YES),
        "ecg": labels(raw_all["restecg"], _ECG),
        "max_heart_rate": raw_all["thalach"],
        "exercise_angina": labels(raw_all["exang"], _YES),
        "st_depression": raw_all["oldpeak"],
        "st_slope": labels(raw_all["slope"], _SLOPE),
        "vessels": raw_all["ca"],
        "thallium": labels(raw_all["thal"], _THAL),
    }
    site = np.repeat(np.array(_HOSPITALS, dtype=object), sizes)
    return Dataset(
        name="heart",
        columns=columns,
        outcome=np.where(raw_all["num"] > 0, "disease", "no disease").astype(object),
        site=site,
        case=np.array([f"{h}-{i:03d}" for h, n in zip(_HOSPITALS, sizes, strict=True) for i in range(n)], object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema(
            "heart disease", HEART_FIELDS, two_classes("diagnosis", "no disease", "disease"), k=k, subject="patient"
        ),
        provenance="UCI Heart Disease, id 45 (Janosi, Steinbrunn, Pfisterer, Detrano, 1988), processed files",
        licence="CC BY 4.0",
        notes=(
            "blood pressure 0 and cholesterol 0 mean 'not measured' and are missing",
            "Switzerland has 8 patients without disease among 123: its AUC is shown but not in the mean",
        ),
    )
