"""How far a measured volume may be from the true one, and two measurements of an unchanged volume from each other.

From a cross-validation: every patient's measured volume divided by the true one. Errors are taken as ratios, since they
grow with the volume, and those of two visits as independent. Both choices are of what is known, not of what one would
like to know: no patient of the public set was scanned twice, so there is no test-retest difference. The errors at two
visits of one patient are probably alike (the network looks at the same tumour twice), so that this overstates them;
another scanner, protocol or head position understates them.

`scripts/volume_error.py` fits `VOLUME_ERROR` to an evaluation; this is its only home. `segment` and `follow` use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = (50, 80, 90, 95)  # percent
LEVEL = LEVELS[-1]  # at which a change counts as more than error


@dataclass(frozen=True)
class VolumeError:
    """Errors of measured volumes, as ratios.

    Attributes:
        source: what was evaluated, in words.
        bundle: the network.
        patients: behind the figures; those with an empty mask or truth are `left_out`, having no ratio.
        ratios: for each of `LEVELS` the interval that holds that percentage of patients: measured / true volume.
        pairs: for each of `LEVELS` the factor below which that percentage of pairs of independent measurements of one
            volume differ.
    """

    source: str
    bundle: str
    patients: int
    left_out: int
    ratios: tuple[tuple[float, float], ...]
    pairs: tuple[float, ...]

    def interval(self, volume: float, level: int = LEVEL) -> tuple[float, float | None]:
        """The true volumes (lowest, highest) that `level` percent of measurements would show as `volume`.

        None where nothing bounds it: a measured volume of zero may be a tumour that was not seen.
        """
        if volume <= 0:
            return 0.0, None
        low, high = self.ratios[LEVELS.index(level)]
        return volume / high, volume / low

    def exceeds(self, before: float, after: float) -> int | None:
        """The highest of `LEVELS` whose percentage of unchanged pairs differ by less; 0 if by less than half do.

        None where one of the two volumes is zero, since the error of not seeing a tumour is none of size.
        """
        if before <= 0 or after <= 0:
            return None
        factor = max(after / before, before / after)
        return max((level for level, least in zip(LEVELS, self.pairs, strict=True) if factor > least), default=0)


def fit_volume_error(voxels: Sequence[int], true_voxels: Sequence[int], source: str, bundle: str) -> VolumeError:
    """The errors of an evaluation's patients, each with a measured and a true size.

    Raises:
        ValueError: if fewer than two patients have both.
    """
    import numpy as np

    both = [(one, true) for one, true in zip(voxels, true_voxels, strict=True) if one > 0 and true > 0]
    if len(both) < 2:
        raise ValueError(f"two patients with mask and truth are needed, there are {len(both)}")
    logs = np.array([math.log(one / true) for one, true in both])
    apart = np.abs(logs[:, None] - logs[None])[np.triu_indices(len(logs), 1)]

    def factors(values: object, percentiles: Sequence[float]) -> tuple[float, ...]:
        return tuple(round(float(value), 3) for value in np.exp(np.percentile(values, percentiles)))  # type: ignore[call-overload]

    ratios = [factors(logs, (50 - level / 2, 50 + level / 2)) for level in LEVELS]
    return VolumeError(
        source=source,
        bundle=bundle,
        patients=len(both),
        left_out=len(voxels) - len(both),
        ratios=tuple((low, high) for low, high in ratios),
        pairs=factors(apart, LEVELS),
    )


VOLUME_ERROR = VolumeError(
    source="residual_unet cross-validated (fold_0, fold_1, fold_2, fold_3, fold_4), all sequences",
    bundle="residual_unet",
    patients=90,
    left_out=0,
    ratios=((0.95, 1.105), (0.82, 1.279), (0.633, 1.525), (0.575, 1.71)),
    pairs=(1.175, 1.565, 1.857, 2.642),
)


def volume_interval(volume_ml: float | None, bundle: str) -> tuple[float | None, float | None]:
    """The interval of `VOLUME_ERROR` about a measured volume; (None, None) for a network that it does not speak of."""
    if volume_ml is None or bundle != VOLUME_ERROR.bundle:
        return None, None
    return VOLUME_ERROR.interval(volume_ml)
