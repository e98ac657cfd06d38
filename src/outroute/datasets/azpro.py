"""Length of stay after a heart procedure at seventeen Arizona hospitals (3,589 patients)."""

from __future__ import annotations

import numpy as np

from outroute.datasets.base import Dataset, GroupKind, data_file
from outroute.datasets.declare import category, flag, labels, numbers, numeric_outcome, read_csv, schema

__all__ = ["AZPRO_FIELDS", "azpro"]

AZPRO_FIELDS = (
    category("procedure", ("PTCA", "CABG")),
    category("sex", ("female", "male")),
    flag("age_over_75"),
    category("admission", ("elective", "urgent")),
)
"""The four conditions known at admission."""


def azpro(*, k: int = 5) -> Dataset:
    """Arizona Medpar 1991: natural logarithm of the length of stay in days.

    Rows are exchangeable (no dates, one row a patient). There are only 16 different cases.

    Args:
        k: the schema's privacy floor.

    Raises:
        DataError: ``OUTROUTE_DATA`` is not set, or lacks ``azpro``.
    """
    raw = {name: numbers(column) for name, column in read_csv(data_file("azpro", "azpro.csv")).items()}
    columns = {
        "procedure": labels(raw["procedure"], {0.0: "PTCA", 1.0: "CABG"}),
        "sex": labels(raw["sex"], {0.0: "female", 1.0: "male"}),
        "age_over_75": labels(raw["age75"], {0.0: "no", 1.0: "yes"}),
        "admission": labels(raw["admit"], {0.0: "elective", 1.0: "urgent"}),
    }
    return Dataset(
        name="azpro",
        columns=columns,
        outcome=np.log(raw["los"]),
        site=np.array([f"hospital {code:.1f}" for code in raw["hospital"]], dtype=object),
        case=np.array([f"{int(row)}" for row in raw["rownames"]], dtype=object),
        group=None,
        group_kind=GroupKind.NONE,
        time=None,
        schema=schema(
            "length of stay",
            AZPRO_FIELDS,
            numeric_outcome("log_stay", "0", "6", "log of days"),
            k=k,
            subject="patient",
        ),
        provenance="COUNT::azpro (Hilbe), 1991 Arizona Medpar cardiovascular files",
        licence="GPL-2 (the R package COUNT)",
        notes=("the range 0 to 6 of the outcome is one day to a year (403 days)",),
    )
