import pytest

from brainseg.writers.distribution import HEIGHT, TALLEST, WIDTH, distribution


def test_each_scan_is_a_cell_in_a_bin_of_round_width():
    chart = distribution({"a": 3.0, "b": 4.9, "c": 12.0, "d": 47.5}, "mL")
    assert chart.ticks[:3] == ((0.0, "0"), (pytest.approx(WIDTH / 24 * 4), "8"), (pytest.approx(WIDTH / 24 * 8), "16"))
    columns = {cell.case: round((cell.x - 0.5) / (WIDTH / 24)) for cell in chart.cells}
    assert columns == {"a": 1, "b": 2, "c": 6, "d": 23}  # bins of 2 mL
    assert chart.height == TALLEST
    assert chart.median == pytest.approx(8.45 / 2 * WIDTH / 24)
    assert chart.words == "median 8.4 mL, middle half 4.4 to 20.9 mL"


def test_scans_of_one_bin_stand_on_each_other_and_many_stay_as_high_as_the_chart():
    chart = distribution({str(k): 5.0 for k in range(500)}, "mL")
    assert len({round(cell.y, 3) for cell in chart.cells}) == 500
    assert chart.height == pytest.approx(HEIGHT)
    assert max(cell.y + cell.height for cell in chart.cells) <= HEIGHT


@pytest.mark.parametrize("volumes", [[0.0, 0.0, 0.0], [0.001, 0.002, 0.003], [20_000.0, 1.0, 400_000.0]])
def test_volumes_of_any_size_lie_within_the_chart(volumes):
    chart = distribution(dict(zip("abc", volumes, strict=True)), "voxels")
    assert all(cell.x >= 0 and cell.x + cell.width <= WIDTH for cell in chart.cells)
    assert all(0 <= place <= WIDTH for place, _ in chart.ticks)


def test_two_scans_are_no_distribution():
    assert distribution({"a": 1.0, "b": 2.0}, "mL") is None
