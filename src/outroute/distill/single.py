"""One observation, one packet: only where the schema says that observations concern no person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outroute.distill.aggregate import aggregate
from outroute.distill.cohort import check
from outroute.distill.model import Distilled, Observations, Reason, Withheld
from outroute.errors import PrivacyError
from outroute.schema import Distiller

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["distil_single"]


def distil_single(schema: Schema, observations: Observations) -> Distilled:
    """Every observation with a known outcome as a cohort of its own, in the order of the rows.

    Nobody is hidden in such cohorts, so those that left before (``Observations.stale``) leave again like all others.

    Raises:
        PrivacyError: unless the schema's distiller is ``single``.
        DataError: when the rows do not fit the schema.
    """
    if schema.privacy.distiller is not Distiller.SINGLE:
        raise PrivacyError(
            f"schema '{schema.name}' asks for cohorts of at least {schema.privacy.k} subjects: single observations "
            "may not leave. Use outroute.distill.distil",
            code="privacy.single",
        )
    check(schema, observations)
    known = ~np.isnan(observations.outcome)
    left = np.flatnonzero(~known)
    cohorts = aggregate(schema, observations, np.where(known, np.arange(len(observations)), -1))
    return Distilled(
        cohorts=cohorts,
        withheld=Withheld(rows=left, reasons=np.full(len(left), Reason.NO_OUTCOME, dtype=np.uint8)),
        k=1,
        agreeing=len(cohorts),
    )
