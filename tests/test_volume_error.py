"""How far volumes are off: fitted to known ratios, and used for intervals and changes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from brainseg.bundle import open_bundle
from brainseg.errors import InputError
from brainseg.volume_error import (
    LEVELS,
    VOLUME_ERRORS,
    VolumeError,
    fit_volume_error,
    known_error,
    measured_as,
    volume_interval,
)

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[1] / "scripts" / "volume_error.py"))
ERROR = VolumeError("known", "net", 9, 0, ((0.9, 1.1), (0.8, 1.25), (0.6, 1.5), (0.5, 2.0)), (1.2, 1.5, 2.0, 4.0))


def test_ratios_and_pairs_of_known_sizes_are_found() -> None:
    """Ratios 1/2, 1 and 2: the middle half reaches halfway, in logarithms, to either; pairs differ by 2, 2 and 4."""
    error = fit_volume_error([50, 100, 200, 0, 7], [100, 100, 100, 100, 0], "three", "net")
    assert (error.patients, error.left_out) == (3, 2)
    assert error.ratios[LEVELS.index(50)] == (round(2**-0.5, 3), round(2**0.5, 3))
    assert error.pairs[LEVELS.index(50)] == 2.0
    assert error.pairs[LEVELS.index(90)] == round(2**1.8, 3)


def test_the_range_of_a_volume_is_wider_where_volumes_are_underestimated() -> None:
    assert ERROR.interval(30) == (15, 60)
    assert ERROR.interval(30, 80) == (24, 37.5)
    assert ERROR.interval(0) == (0, None)


@pytest.mark.parametrize(
    ("before", "after", "exceeds"), [(10, 11, 0), (10, 13, 50), (13, 10, 50), (10, 17, 80), (30, 10, 90), (10, 41, 95)]
)
def test_a_change_is_held_against_pairs_of_an_unchanged_volume_in_both_directions(
    before: float, after: float, exceeds: int
) -> None:
    assert ERROR.exceeds(before, after) == exceeds


def test_a_volume_of_zero_says_nothing_of_error() -> None:
    assert ERROR.exceeds(0, 10) is None
    assert ERROR.exceeds(10, 0) is None


@pytest.mark.parametrize("error", VOLUME_ERRORS, ids=lambda error: error.of)
def test_what_ships_is_ordered_and_about_one(error: VolumeError) -> None:
    assert list(error.pairs) == sorted(error.pairs)
    assert all(low < 1 < high for low, high in error.ratios)
    assert len(error.ratios) == len(error.pairs) == len(LEVELS)


def test_what_ships_was_fitted_for_the_network_that_ships() -> None:
    """Another version of the bundle has other weights, or figures that are to be fitted again."""
    bundle = open_bundle("residual_unet")
    known = [measured_as(bundle.name, bundle.version, flair_alone=alone) for alone in (False, True)]
    assert [error.of for error in VOLUME_ERRORS] == known


def evaluation(folder: Path, cautions: list[str], what: str = "a net, cross-validated") -> Path:
    folder.mkdir()
    (folder / "per_patient.csv").write_text("case,voxels,true_voxels\np1,50,100\np2,100,100\np3,200,100\n")
    (folder / "summary.json").write_text(json.dumps({"what": what, "cautions": cautions}))
    return folder


def test_the_script_prints_the_constant_that_the_module_holds(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / what, [], f"a net, {what}") for what in ("all sequences", "FLAIR alone")]
    text = SCRIPT["constant"]([SCRIPT["fit"](one, "net", "1.0") for one in folders])
    scope = {"VolumeError": VolumeError}
    exec(text, scope)
    sizes = [50, 100, 200], [100] * 3
    assert scope["VOLUME_ERRORS"] == (
        fit_volume_error(*sizes, "a net, all sequences", "net 1.0"),
        fit_volume_error(*sizes, "a net, FLAIR alone", "net 1.0, FLAIR alone"),
    )


def test_an_evaluation_of_patients_that_trained_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 of these 3 patients trained the network"):
        SCRIPT["fit"](evaluation(tmp_path / "scores", ["3 of these 3 patients trained the network"]), "net", "1.0")


def test_a_volume_has_an_interval_by_what_measured_it() -> None:
    known, alone = VOLUME_ERRORS
    low, high = volume_interval(30.0, known_error(known.of))
    assert (low, high) == known.interval(30.0)
    assert low < 30.0 < high
    assert volume_interval(30.0, known_error(alone.of)) == alone.interval(30.0) != (low, high)
    assert known_error("basic_unet 0.4.0") is known_error("") is None
    assert volume_interval(30.0, None) == (None, None)
    assert volume_interval(None, known) == (None, None)
    assert volume_interval(0.0, known) == (0.0, None)
