"""Elections: so far *trust*, which calculation to believe."""

from outroute.elections.scoring import BANDS, band_of_class, band_of_number, class_losses, crps
from outroute.elections.trust import CRPS_RATE, LOG_RATE, Objective, Trust, elect, leaning

__all__ = [
    "BANDS",
    "CRPS_RATE",
    "LOG_RATE",
    "Objective",
    "Trust",
    "band_of_class",
    "band_of_number",
    "class_losses",
    "crps",
    "elect",
    "leaning",
]
