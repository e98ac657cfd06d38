"""Noise from OpenDP, a library made and reviewed for differential privacy.

Values are whole numbers and the sampler is exact: it draws from the operating system's randomness by integer
arithmetic, so that no rounding of floating-point numbers gives the values away.
Source: Mironov, "On Significance of the Least Significant Bits for Differential Privacy" (2012), for what goes wrong
otherwise; Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (2020), section 5, for sampling.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.errors import MissingExtraError, PrivacyError

__all__ = ["OpenDPNoise"]


class OpenDPNoise:
    """Discrete Laplace noise by OpenDP.

    Raises:
        MissingExtraError: OpenDP is not installed.
    """

    def __init__(self) -> None:
        try:
            import opendp.prelude as prelude
        except ImportError as error:
            raise MissingExtraError("private", "differential privacy") from error
        prelude.enable_features("contrib")
        self._dp: Any = prelude

    def laplace(
        self, values: NDArray[np.int64], scale: float, *, sensitivity: int, epsilon: Fraction
    ) -> NDArray[np.int64]:
        """See ``outroute.distill.Noise``.

        Raises:
            PrivacyError: ``privacy.noise``, by OpenDP's own accounting this noise costs more than it may.
        """
        dp = self._dp
        space = dp.vector_domain(dp.atom_domain(T="i64"))
        measurement = dp.m.make_laplace(space, dp.l1_distance(T="i64"), scale)
        cost = Fraction(measurement.map(sensitivity))
        # OpenDP rounds what it promises upwards, by a part in 2^52.
        if cost > epsilon * (1 + Fraction(1, 2**50)):
            raise PrivacyError(
                f"noise of scale {scale} costs epsilon {float(cost)}, more than {float(epsilon)}: nothing was released",
                code="privacy.noise",
            )
        return np.array(measurement(values.tolist()), dtype=np.int64)
