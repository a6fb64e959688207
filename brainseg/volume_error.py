"""How far a measured volume may be from the true one, and two measurements of an unchanged volume from each other.

From a cross-validation: every patient's measured volume divided by the true one. Errors are taken as ratios, since they
grow with the volume, and those of two visits as independent. Both choices are of what is known, not of what one would
like to know: no patient of the public set was scanned twice, so there is no test-retest difference. The errors at two
visits of one patient are probably alike (the network looks at the same tumour twice), so that this overstates them;
another scanner, protocol or head position understates them.

`scripts/volume_error.py` fits `VOLUME_ERRORS` to evaluations; this is their only home. `segment` and `follow` use them.
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
        of: the bundle with its version, and FLAIR alone where that is all that it was given; see `measured_as`.
        patients: behind the figures; those with an empty mask or truth are `left_out`, having no ratio.
        ratios: for each of `LEVELS` the interval that holds that percentage of patients: measured / true volume.
        pairs: for each of `LEVELS` the factor below which that percentage of pairs of independent measurements of one
            volume differ.
    """

    source: str
    of: str
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


def measured_as(bundle: str, version: str, *, flair_alone: bool) -> str:
    """What errors are known of, in the words of `VolumeError.of`."""
    return f"{bundle} {version}{', FLAIR alone' if flair_alone else ''}"


def fit_volume_error(voxels: Sequence[int], true_voxels: Sequence[int], source: str, of: str) -> VolumeError:
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
        of=of,
        patients=len(both),
        left_out=len(voxels) - len(both),
        ratios=tuple((low, high) for low, high in ratios),
        pairs=factors(apart, LEVELS),
    )


VOLUME_ERRORS = (
    # 50%: measured/true 0.951 to 1.094; pairs differ by less than 1.133
    # 80%: measured/true 0.875 to 1.217; pairs differ by less than 1.366
    # 90%: measured/true 0.741 to 1.334; pairs differ by less than 1.647
    # 95%: measured/true 0.662 to 1.672; pairs differ by less than 1.93
    VolumeError(
        source="residual_unet cross-validated (fold_0, fold_1, fold_2, fold_3, fold_4), all sequences",
        of="residual_unet 0.5.0",
        patients=90,
        left_out=0,
        ratios=((0.951, 1.094), (0.875, 1.217), (0.741, 1.334), (0.662, 1.672)),
        pairs=(1.133, 1.366, 1.647, 1.93),
    ),
    # 50%: measured/true 0.963 to 1.08; pairs differ by less than 1.18
    # 80%: measured/true 0.727 to 1.251; pairs differ by less than 1.509
    # 90%: measured/true 0.626 to 1.411; pairs differ by less than 1.894
    # 95%: measured/true 0.508 to 1.508; pairs differ by less than 2.385
    VolumeError(
        source="residual_unet cross-validated (fold_0, fold_1, fold_2, fold_3, fold_4), FLAIR alone",
        of="residual_unet 0.5.0, FLAIR alone",
        patients=90,
        left_out=0,
        ratios=((0.963, 1.08), (0.727, 1.251), (0.626, 1.411), (0.508, 1.508)),
        pairs=(1.18, 1.509, 1.894, 2.385),
    ),
)


def known_error(of: str) -> VolumeError | None:
    """The errors of volumes that were measured as `of`; None where they are not known."""
    return next((one for one in VOLUME_ERRORS if one.of == of), None)


def volume_interval(volume_ml: float | None, error: VolumeError | None) -> tuple[float | None, float | None]:
    """The interval of `error` about a measured volume; (None, None) where either is not known."""
    return (None, None) if volume_ml is None or error is None else error.interval(volume_ml)
