"""``detlit models``: what the table says against counts measured elsewhere."""

import pytest

from detlit.cli import main
from detlit.cli.models import measure
from detlit.models import presets
from tests.cli.test_entry_point import loaded_after

SIZES = {  # parameters trained and fully fused, GMACs of the fused detector at 640 pixels and 80 classes
    "yolo_nas_s": (12_878_304, 12_167_600, 15.90),
    "yolo_nas_m": (33_861_346, 31_894_002, 43.88),
    "yolo_nas_l": (44_529_448, 41_984_984, 59.92),
    "ppyoloe_s": (8_084_588, 7_918_060, 8.63),
    "ppyoloe_m": (24_134_892, 23_413_500, 24.89),
    "ppyoloe_l": (54_078_556, 52_178_012, 54.94),
    "ppyoloe_x": (102_331_484, 98_395_084, 103.17),
}


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x[-1] in "lx")) for x in SIZES])
def test_sizes_are_those_of_the_reference(name: str) -> None:
    trained, deployed, gmacs = SIZES[name]
    size = measure(name)
    assert (size.trained, size.deployed) == (trained, deployed)
    assert size.flops / 2e9 == pytest.approx(gmacs, abs=0.005)


def test_the_table_has_a_row_per_preset_from_small_to_large(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--num_classes", "3", "--image_size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 classes, 64x64 pixels" in lines[0]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "yolo" in line and "│" in line]
    assert {row[0] for row in rows} == set(presets.__all__)
    assert [row[0] for row in rows] == [f"ppyoloe_{x}" for x in "smlx"] + [f"yolo_nas_{x}" for x in "nsml"]
    assert all(float(row[1].removesuffix(" M")) > float(row[2].removesuffix(" M")) for row in rows)
    assert [row[4] for row in rows] == ["also commercial [2]"] * 4 + ["none"] + ["non-commercial [1]"] * 3
    assert any(line.startswith("[1] https://") for line in lines)


def test_a_size_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--image_size", "100"]) == 2
    assert "positive multiples of 32" in capsys.readouterr().err


def test_it_does_without_lightning() -> None:
    assert not loaded_after("import detlit.cli.models") & {"lightning", "lightning_fabric", "albumentations", "cv2"}
