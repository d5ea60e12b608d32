"""``detlit check-data``: what it prints, writes and returns."""

import json
from pathlib import Path

import pytest

from detlit.cli import main
from tests.cli.test_entry_point import loaded_after
from tests.data.check.scenes import Scene
from tests.data.check.test_planted import PLANTS


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path / "data")
    scene.write()
    return scene


def run(scene: Scene, *options: str) -> int:
    return main(["check-data", "--root", str(scene.root), "--output", str(scene.root.parent / "out"), *options])


def report(scene: Scene) -> dict[str, object]:
    content: dict[str, object] = json.loads((scene.root.parent / "out/report.json").read_text())
    return content


def test_sound_data_pass(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scene) == 0
    out = capsys.readouterr().out
    assert "16 images, 64 objects" in out
    assert [line.split("│")[1:-1] for line in out.splitlines() if "cat" in line] == [
        [" cat             ", "    10 ", "   5 ", "    5 "]
    ]
    assert "suggested: data.image_size 320, " in out
    assert not any(word in out for word in ("error", "warning", "note"))
    assert report(scene)["findings"] == []


def test_all_faults_are_printed_and_written_and_errors_fail(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    for plant in PLANTS:
        plant(scene)
    scene.write()
    assert run(scene) == 1
    printed = capsys.readouterr()
    assert "error    1 missing image: restore them or remove their annotations\n           train/1.png\n" in printed.out
    assert "warning  1 box without area: remove them" in printed.out
    assert printed.out.index("error ") < printed.out.index("warning ")
    assert printed.err == "detlit: error: the data have 6 kinds of errors: correct them before training.\n"
    findings = report(scene)["findings"]
    assert isinstance(findings, list)
    assert {finding["code"] for finding in findings} == {code for code, _ in PLANTS.values()}
    assert [finding["count"] for finding in findings] == [len(finding["places"]) for finding in findings]
    html = (scene.root.parent / "out/report.html").read_text(encoding="utf-8")
    assert all(finding["title"] in html for finding in findings)
    # nothing to show of a missing and an unreadable image, a NaN and an order of classes; four images of corners
    shown_in_part = html.count("<figcaption>train/2.png</figcaption>")  # OpenCV 4.10 draws what there is of a cut PNG
    assert html.count("data:image/jpeg") == 12 - 4 + 3 + shown_in_part


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "after a switch", "last"])
def test_the_folder_may_be_given_without_its_flag(place: int, scene: Scene, tmp_path: Path) -> None:
    options = ["--no-images", "--output", str(tmp_path / "out")]
    assert main(["check-data", *options[:place], str(scene.root), *options[place:]]) == 0
    assert report(scene)["images_read"] is False


def test_warnings_do_not_fail(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.box("train", 1)[2] = 0
    scene.write()
    assert run(scene) == 0
    assert "1 box without area" in capsys.readouterr().out


def test_long_lists_are_abridged_in_the_terminal_only(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 11):
        scene.box("train", number)[2] = 0
    scene.write()
    run(scene)
    assert "and 7 more" in capsys.readouterr().out
    findings = report(scene)["findings"]
    assert isinstance(findings, list)
    assert len(findings[0]["places"]) == 10


def test_without_images_nothing_is_decoded(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.file("train", 1).write_bytes(b"no image")
    assert run(scene, "--no-images") == 0
    assert report(scene)["images_read"] is False
    assert "data:image" not in (scene.root.parent / "out/report.html").read_text(encoding="utf-8")
    assert run(scene) == 1
    assert "unreadable image" in capsys.readouterr().out


def test_the_input_size_decides_what_is_small(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scene, "--image_size", "32") == 0
    assert (
        "64 objects less than 8 pixels high or wide in the network input (at 32x32 pixels; 100.0% of all objects)"
        in (capsys.readouterr().out.replace("\n", " "))
    )
    assert run(scene, "--image_size", "33") == 2


def test_fix_writes_copies_and_touches_nothing_else(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.box("train", 1)[2] = 0
    scene.write()
    before = {path: path.read_bytes() for path in sorted(scene.root.rglob("*")) if path.is_file()}
    target = scene.root.parent / "new" / "clean.json"
    assert run(scene, "--fix", str(target)) == 0
    assert "left out: 1 box without area" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in sorted(scene.root.rglob("*")) if path.is_file()} == before
    counts = {path.name: len(json.loads(path.read_text())["annotations"]) for path in target.parent.iterdir()}
    assert counts == {"clean_train.json": 31, "clean_val.json": 16, "clean_test.json": 16}
    assert run(scene, "--fix", str(target)) == 2
    assert f"there is a file {target.with_name('clean_train.json')} already" in capsys.readouterr().err


def test_a_config_names_the_data_and_flags_override_it(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: {detector: nothing that is looked at}\ndata: section.yaml\n")
    (tmp_path / "section.yaml").write_text(
        "root: nowhere\n"
        "image_size: 32\n"
        "train: {class_path: CocoDataset, "
        "init_args: {annotations: annotations/instances_train.json, images: images/train}}\n"
    )
    out = str(tmp_path / "out")
    assert main(["check-data", "--config", str(config), "--data.root", str(scene.root), "--output", out]) == 0
    assert "32 objects less than 8 pixels" in capsys.readouterr().out
    section = str(tmp_path / "section.yaml")
    flags = [f"--data.root={scene.root}", "--data.image_size=640", "--output", out]
    assert main(["check-data", f"--config={section}", *flags]) == 0
    assert "less than" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there are no data to check: give --root FOLDER or --config FILE"),
        (["--root", ".", "--config", "quickstart"], "both name the data"),
        ([".", "--config", "quickstart"], "both name the data"),
        ([".", ".."], "nrecognized arguments: .."),
        (["--config", "nonesuch"], "there is no config nonesuch"),
        (["--config", "{empty}"], "has no data section"),
        (["--rot", "."], "did you mean: --root?"),
    ],
    ids=str,
)
def test_bad_usage_is_one_line_and_status_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.yaml").write_text("model: x\n")
    try:
        status = main(["check-data", *[option.format(empty=tmp_path / "empty.yaml") for option in options]])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_data_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "--root", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_it_does_without_lightning() -> None:
    assert not loaded_after("import detlit.cli.check_data") & {"lightning", "lightning_fabric", "albumentations"}


def test_real_data_have_the_faults_that_are_known(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "bccd"
    assert main(["check-data", "--root", str(data_folder / "bccd"), "--output", str(out)]) == 0
    findings = json.loads((out / "report.json").read_text())["findings"]
    assert {finding["code"]: finding["places"] for finding in findings} == {
        "zero-area-box": ["annotation 2288 (train/BloodImage_00343.jpg)", "annotation 887 (val/BloodImage_00338.jpg)"],
        # one field of view, focused twice
        "near-duplicate": ["train/BloodImage_00038.jpg and val/BloodImage_00037.jpg (correlation 0.98)"],
    }
    assert main(["check-data", "--root", str(data_folder / "coco_tiny"), "--output", str(tmp_path / "coco")]) == 0
    findings = json.loads((tmp_path / "coco/report.json").read_text())["findings"]
    assert {finding["code"]: finding["count"] for finding in findings} == {"whole-image-box": 4, "small-object": 72}
