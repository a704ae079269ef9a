"""Images that cannot be used fail their cells with a reason, and no others."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellcube.errors import AxesError, BuildStoppedError, ImageError, MissingDependencyError

# What each file's outcome begins with.
BROKEN = {
    "empty.tif": "not-an-image: The file is empty.",
    "not_an_image.tif": "not-an-image: The file is not a TIFF: it starts with b'this is text, no'.",
    "truncated.jpg": "truncated-image: The file starts as a JPG file must, and cannot be read",
    "truncated.nd2": "truncated-image: The file starts as a ND2 file must, and cannot be read",
    "truncated_cyx_imagej.tif": "truncated-image: The file is cut short: page 1 (from 0) should begin at byte 801583",
    "truncated_dapi.tif": "truncated-image: Plane 0 cannot be read: the file is cut short",
}


def centres(paths: dict[str, Path]) -> pd.DataFrame:
    table = pd.DataFrame({"cell_id": paths.keys(), "fov_path": [str(path) for path in paths.values()]})
    return table.assign(center_y=40.0, center_x=40.0)


def needs(name: str) -> None:
    for suffix, package in ((".jpg", "bioio_imageio"), (".nd2", "bioio_nd2")):
        if name.endswith(suffix):
            importlib.import_module(package)


def test_every_broken_file_is_known(data: Path) -> None:
    assert {path.name for path in (data / "broken").iterdir()} == {*BROKEN, "truncated.czi"}


@pytest.mark.parametrize("name", BROKEN)
def test_alone(name: str, data: Path, build: Any) -> None:
    """Nothing can be kept, so no dataset is written."""
    needs(name)
    built = build(centres({"a": data / "broken" / name}), shape=(1, 16, 16))
    assert (built.report.kept, built.report.failed, built.report.version) == (0, 1, 0)
    assert built.reasons["a"].startswith(BROKEN[name])
    assert name in built.reasons["a"]
    assert "no cell could be kept" in str(built.report)


def test_czi_without_its_reader(data: Path, build: Any) -> None:
    """Where the package is missing, it is the call that fails; with it, the file does."""
    table = centres({"a": data / "broken/truncated.czi"})
    try:
        import bioio_czi  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"cellcube\[czi\]"):
            build(table)
    else:
        assert build(table).report.failed == 1


def test_all_among_good_ones(data: Path, build: Any) -> None:
    """A table of good and broken FOVs: the good ones are as if they were alone."""
    for name in BROKEN:
        needs(name)
    good = {"first": data / "two_channel_tiny/dna.tif", "last": data / "two_channel_tiny/actin.tif"}
    broken = {name: data / "broken" / name for name in BROKEN}
    table = centres({**dict(list(broken.items())[:3]), **good, **dict(list(broken.items())[3:])})
    built = build(table, normalize="none", shape=(1, 32, 32))
    assert (built.report.kept, built.report.failed) == (2, len(BROKEN))
    for name, reason in BROKEN.items():
        assert built.reasons[name].startswith(reason)
    alone = build(centres(good), normalize="none", shape=(1, 32, 32))
    np.testing.assert_array_equal(built.dataset["cells"], alone.dataset["cells"])
    assert built.dataset["cells"].values.any(axis=(1, 2, 3, 4)).all()
    saved = pd.read_parquet(built.root / "outcomes.parquet")
    assert saved["status"].value_counts().to_dict() == {"failed": len(BROKEN), "kept": 2}
    assert "truncated_dapi.tif" in str(built.report)


def test_a_channel_lost_from_an_imagej_file_is_noticed(data: Path, build: Any) -> None:
    """tifffile opens the file without an error, as an image of one channel."""
    broken = data / "broken/truncated_cyx_imagej.tif"
    assert tifffile.imread(broken).shape == (420, 476)
    table = centres({"good": data / "neubias/xyc_16bit__nup_nuclei.tif", "bad": broken})
    built = build(table, channels={"nup": 0, "nuclei": 1}, shape=(1, 32, 32))
    assert built.report.kept == 1
    assert built.reasons["bad"].startswith("truncated-image: The file is cut short")


def test_one_broken_channel_fails_its_fov_alone(data: Path, build: Any, nf1: Any) -> None:
    """A broken channel file fails all cells of the FOV; a broken label image fails the FOV as one row."""
    table = nf1("nuclei").set_index("fov_id", drop=False)
    table.loc["B7_s3", "er"] = str(data / "broken/truncated_dapi.tif")
    table.loc["H12_s1", "label_path"] = str(data / "broken/not_an_image.tif")
    table.loc["D7_s1", "actin"] = str(data / "nf1_cellpainting/images/gone.tif")
    built = build(table, channels={"DNA": "dna", "ER": "er", "Actin": "actin"}, shape=(1, 16, 16))
    outcomes = built.report.outcomes
    failed = outcomes[outcomes["status"] == "failed"].groupby("fov_id")["reason"].agg(["size", "first"])
    assert failed["size"].to_dict() == {"B7_s3": 29, "D7_s1": 30, "H12_s1": 1}
    assert failed.loc["B7_s3", "first"].startswith("truncated-image: ")
    assert failed.loc["D7_s1", "first"].startswith("image-not-found: There is no file at the path.")
    assert failed.loc["H12_s1", "first"].startswith("not-an-image: ")
    assert set(built.cells["fov_id"]) == {"D6_s2", "F7_s2"}


def test_stop_at_the_first(data: Path, build: Any) -> None:
    """on_error="raise" names cell, file and reason, and leaves no dataset."""
    table = centres({"good": data / "two_channel_tiny/dna.tif", "bad": data / "broken/truncated_dapi.tif"})
    with pytest.raises(BuildStoppedError, match=r"cut short.*cell 'bad'"):
        build(table, shape=(1, 16, 16), on_error="raise")


def test_label_that_is_not_there(build: Any, nf1: Any) -> None:
    """Fails that cell, and says which labels there are."""
    table = nf1("cells").iloc[[0, 0]].assign(cell_id=["there", "gone"], label=[8, 999])
    built = build(table, channels={"DNA": "dna"}, shape=(1, 16, 16))
    assert built.report.kept == 1
    assert built.reasons["gone"].startswith("label-not-found: Label 999 is not in the label image, which has 20 labels")


def test_label_image_of_another_size(data: Path, build: Any, nf1: Any) -> None:
    """Fails the FOV's cells with both sizes."""
    table = nf1("cells").iloc[:1].assign(label_path=str(data / "two_channel_tiny/cell_labels.tif"))
    built = build(table, channels={"DNA": "dna"}, shape=(1, 16, 16))
    assert built.report.failed == 6
    (reason,) = set(built.reasons.values())
    assert reason.startswith("image-mismatch: The label image has shape (z, y, x) (1, 120, 220), the image (1, 904, 12")
    assert "size of the image it was made from" in reason


def test_channels_of_different_sizes(data: Path, build: Any) -> None:
    table = pd.DataFrame({"a": [str(data / "two_channel_tiny/dna.tif")], "b": str(data / "stardist/img2d.tif")})
    built = build(table.assign(cell_id="x", center_y=9, center_x=9), channels={"A": "a", "B": "b"}, shape=(1, 8, 8))
    assert built.reasons["x"].startswith("image-mismatch: The image of channel 'B' has shape (z, y, x) (1, 512, 512)")


def test_probabilities_are_no_labels(data: Path, build: Any) -> None:
    """A float image of fractions given as label image."""
    path = str(data / "neubias/xy_float__nuclei_probability.tif")
    built = build(pd.DataFrame({"fov_path": [path], "label_path": path}))
    assert "holds fractions (float32), not labels" in built.reasons["xy_float__nuclei_probability"]


def test_unknown_axes_ask_for_them(data: Path, build: Any) -> None:
    """The error names the field that would help, for the image and for the labels."""
    image, labels = (str(data / "nuclei3d_cells3d" / name) for name in ("nuclei.tif", "labels_cellprofiler.tif"))
    with pytest.raises(AxesError, match=r"does not tell what its axes are: it says 'QYX'.*axes='ZYX'"):
        build(centres({"a": Path(image)}))
    with pytest.raises(AxesError, match=r"Of the label image: The file does not tell.*label_axes='ZYX'"):
        build(pd.DataFrame({"fov_path": [image], "label_path": labels}))
    one = pd.DataFrame({"cell_id": ["a"], "label": 1, "fov_path": image, "label_path": labels})
    assert build(one.assign(axes="zyx"), shape=(8, 8, 8)).report.kept == 1


@pytest.mark.parametrize("path", ["nowhere/a.tif", "two_channel_tiny"])
def test_no_file(path: str, data: Path, build: Any) -> None:
    """A path to nothing or to a folder is told as such."""
    reason = build(centres({"a": data / path})).reasons["a"]
    assert reason.startswith(("image-not-found: There is no file", "not-an-image: The path is a folder"))


def test_kinds_are_those_of_the_errors() -> None:
    """The first word of a reason is the `kind` of an exception, to match on."""

    def kinds(of: type[ImageError]) -> set[str]:
        return {of.kind}.union(*(kinds(each) for each in of.__subclasses__()))

    assert {reason.partition(":")[0] for reason in BROKEN.values()} <= kinds(ImageError)
