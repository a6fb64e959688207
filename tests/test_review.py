"""What TensorBoard gets: the tags, the numbers behind them, and pictures of the right patients."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from brainseg import review
from brainseg.axial import AxialSlice
from brainseg.case import TIFF_AFFINE
from brainseg.evaluation import Evaluation
from brainseg.review import write_review
from brainseg.scores import score_case
from brainseg.statistics import summarise

SHAPE = (32, 32, 3)


def evaluation(shifts: dict[str, int], *, with_probability: bool = True) -> Evaluation:
    """A patient a shift: a 10 x 10 square, predicted `shift` pixels beside it, so that Dice is 1 - shift / 10."""
    scores, pictures = [], {}
    for name, shift in shifts.items():
        truth, mask = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        truth[5:15, 8:18, 1], mask[5 + shift : 15 + shift, 8:18, 1] = 1, 1
        probability = mask * np.float32(0.875) if with_probability else None
        scores.append(score_case(name, truth, mask, probability, TIFF_AFFINE, None))
        flair = np.random.default_rng(shift).random((32, 32), np.float32) / 2
        pictures[name] = AxialSlice(2, 3, flair, mask[..., 1].T > 0, truth[..., 1].T > 0, 1.0, None)
    return Evaluation("E", "a test", tuple(scores), pictures, tuple(summarise(scores)))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory):
    return written(tmp_path_factory.mktemp("run"), evaluation({"a": 0, "b": 4, "c": 8}), {"lr": 0.01, "net": "unet"})


def written(folder: Path, result: Evaluation, settings: dict[str, object]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_review(folder, result, settings, step=7)
    assert [path.is_file() for path in folder.iterdir()] == [True]  # no sub-run beside the event file
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_dice_mean_median_and_each_patient_are_scalars(events) -> None:
    def scalar(tag: str) -> tuple[int, float]:
        (event,) = events.Scalars(tag)
        return event.step, event.value

    assert scalar(review.DICE_MEAN) == (7, pytest.approx(0.6))
    assert scalar(review.DICE_MEDIAN) == (7, pytest.approx(0.6))
    assert scalar(review.PATIENT + "c") == (7, pytest.approx(0.2))


def test_every_tag_is_there(events) -> None:
    tags = events.Tags()
    assert set(tags["scalars"]) == {review.DICE_MEAN, review.DICE_MEDIAN, *(review.PATIENT + name for name in "abc")}
    assert set(tags["images"]) == {review.CONTOURS + place for place in ("best", "median", "worst")}
    assert review.DICE_HISTOGRAM in tags["histograms"]
    assert review.PRECISION_RECALL in tags["tensors"]
    assert {f"{review.TABLE}/text_summary", f"{review.SUMMARY}/text_summary"} <= set(tags["tensors"])


def test_histogram_holds_each_patient_once(events) -> None:
    (event,) = events.Histograms(review.DICE_HISTOGRAM)
    assert event.histogram_value.num == 3
    assert event.histogram_value.sum == pytest.approx(1.8)


def test_precision_and_recall_are_those_of_the_voxels(events) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    (event,) = events.Tensors(review.PRECISION_RECALL)
    true_positive, false_positive, _, false_negative, precision, recall = make_ndarray(event.tensor_proto)
    # At every threshold up to 0.87: 300 voxels of tumour, of which 100 + 60 + 20 are marked, and 40 + 80 beside them.
    assert (true_positive[50], false_positive[50], false_negative[50]) == (180, 120, 120)
    assert (precision[50], recall[50]) == pytest.approx((0.6, 0.6))
    assert recall[0] == 1.0
    assert true_positive[88] == 0


def test_settings_stand_beside_the_dice_they_gave(events) -> None:
    from tensorboard.plugins.hparams import metadata

    start = metadata.parse_session_start_info_plugin_data(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert start.hparams["lr"].number_value == 0.01
    assert start.hparams["net"].string_value == "unet"
    experiment = metadata.parse_experiment_plugin_data(
        events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    )
    assert [metric.name.tag for metric in experiment.metric_infos] == [review.DICE_MEAN, review.DICE_MEDIAN]


def test_pictures_are_of_the_patients_they_name(events) -> None:
    from PIL import Image

    def colours(place: str) -> tuple[int, int]:
        """Leftmost column with a cyan (truth) and with an amber (prediction) pixel below the title."""
        (event,) = events.Images(review.CONTOURS + place)
        pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).astype(int)[80:]
        cyan = (pixels[..., 0] < 90) & (pixels[..., 1] > 170) & (pixels[..., 2] > 170)
        amber = (pixels[..., 0] > 200) & (pixels[..., 1] > 130) & (pixels[..., 2] < 60)
        return (np.flatnonzero(cyan.any(axis=0)).min(initial=9999), np.flatnonzero(amber.any(axis=0)).min(initial=9999))

    pixel = 400 / 32
    cyan, amber = colours("worst")
    assert cyan == pytest.approx(5 * pixel, abs=2)
    assert amber == pytest.approx(13 * pixel, abs=2)
    assert colours("median")[1] == pytest.approx(9 * pixel, abs=2)
    assert colours("best")[1] == pytest.approx(5 * pixel, abs=2)


def test_nine_patients_give_three_pictures_of_each_kind(tmp_path: Path) -> None:
    result = evaluation({f"p{shift}": shift for shift in range(9)})
    tags = written(tmp_path, result, {}).Tags()["images"]
    assert len(tags) == 9
    assert {"contours/best_2", "contours/median_3", "contours/worst_3"} <= set(tags)


def test_masks_without_probabilities_have_no_precision_recall_curve(tmp_path: Path) -> None:
    events = written(tmp_path, evaluation({"a": 0, "b": 4}, with_probability=False), {})
    assert review.PRECISION_RECALL not in events.Tags()["tensors"]


def test_precision_and_recall_stand_at_the_thresholds_that_tensorboard_shows(tmp_path: Path) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    probability = np.round(np.random.default_rng(2).random(SHAPE, np.float32) * 16) / 16  # exact in binary
    probability[0, 0, 0] = 1.0
    truth = np.random.default_rng(3).random(SHAPE) < probability
    one = score_case("a", truth, probability >= 0.5, probability, TIFF_AFFINE, None)
    made = evaluation({"a": 0})
    result = Evaluation("E", "a test", (one,), made.pictures, tuple(summarise([one])))
    (event,) = written(tmp_path, result, {}).Tensors(review.PRECISION_RECALL)
    curve = make_ndarray(event.tensor_proto)
    thresholds = np.linspace(0, 1, curve.shape[1])  # tensorboard/plugins/pr_curve/pr_curves_plugin.py
    for threshold in (0, 0.25, 0.5, 0.75, 1):
        (place,) = np.flatnonzero(np.isclose(thresholds, threshold))
        marked = probability >= threshold
        counts = [(marked & truth).sum(), (marked & ~truth).sum(), (~marked & ~truth).sum(), (~marked & truth).sum()]
        assert curve[:4, place].tolist() == counts
        assert curve[4, place] == pytest.approx(counts[0] / (counts[0] + counts[1]))
        assert curve[5, place] == pytest.approx(counts[0] / truth.sum())


def test_a_second_review_takes_the_place_of_the_first_and_leaves_the_training(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as training:
        training.add_scalar("train_loss", 0.25, 3)
    for shift in (2, 4):
        write_review(tmp_path, evaluation({"a": shift}), {})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars(review.DICE_MEAN)] == [pytest.approx(0.6)]
    assert [event.value for event in events.Scalars("train_loss")] == [0.25]


def test_patient_without_a_dice_has_no_scalar_and_comes_last(tmp_path: Path) -> None:
    made = evaluation({"a": 0, "b": 0})
    empty = np.zeros(SHAPE, np.uint8)
    scores = (score_case("a", empty, empty, None, TIFF_AFFINE, None), made.scores[1])
    result = Evaluation("E", "a test", scores, made.pictures, tuple(summarise(scores)))
    events = written(tmp_path, result, {})
    assert review.PATIENT + "b" in events.Tags()["scalars"]
    assert review.PATIENT + "a" not in events.Tags()["scalars"]
    (table,) = events.Tensors(f"{review.TABLE}/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    assert lines[-2:] == ["| b | 1.000 | 100 | 100 | 0.875 |", "| a | - | 0 | 0 | - |"]


def test_settings_say_the_protocol(events) -> None:
    from tensorboard.plugins.hparams import metadata

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert metadata.parse_session_start_info_plugin_data(content).hparams["protocol"].string_value == "E"
