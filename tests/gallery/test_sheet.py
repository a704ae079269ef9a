import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from cellcube.colors import channel_color, is_transmitted
from cellcube.errors import ArgumentError
from cellcube.gallery.sheet import contact_sheet

BACKGROUND = (16, 17, 20)


def dataset_of(crops: Any, channels: list[str], ids: list[str] | None = None, axis: str = "cell") -> xr.Dataset:
    dataset = xr.Dataset({"cells": ((axis, "c", "z", "y", "x"), crops)}, coords={"c": channels})
    return dataset if ids is None else dataset.assign_coords(cell_id=(axis, ids))


def crops_of(cells: int, channels: int = 2, z: int = 1, side: int = 96, dtype: str = "float16") -> np.ndarray:
    values = np.random.default_rng(0).random((cells, channels, z, side, side))
    return (values if np.dtype(dtype).kind == "f" else values * 100).astype(dtype)


def shades(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0).tolist()}


def first_tiles(sheet: Image.Image, count: int, side: int) -> list[np.ndarray]:
    """The middle of each tile of the first cell."""
    left, top, gap = 20, 66, 2
    pixels = np.asarray(sheet)
    quarter = side // 4
    return [
        pixels[
            top + quarter : top + 3 * quarter, left + t * (side + gap) + quarter : left + t * (side + gap) + 3 * quarter
        ]
        for t in range(count)
    ]


def test_a_sheet_grows_with_its_cells_and_channels() -> None:
    def area(cells: int, channels: int) -> int:
        crops = crops_of(cells, channels, side=32)
        sheet = contact_sheet(dataset_of(crops, [f"c{k}" for k in range(channels)]), cells=cells)
        return sheet.width * sheet.height

    assert area(1, 2) < area(4, 2) < area(20, 2) < area(60, 2)
    assert area(20, 1) < area(20, 3)


def test_columns_and_scale() -> None:
    dataset = dataset_of(crops_of(6), ["DNA", "ER"])
    assert contact_sheet(dataset, columns=1).size == (2 * 20 + 3 * 98 - 2, 2 * 20 + 46 + 6 * 122 - 6)
    assert contact_sheet(dataset, columns=2).width == 2 * 20 + 2 * (3 * 98 - 2) + 18
    assert contact_sheet(dataset, columns=1, scale=2.0).width == 2 * 20 + 3 * 194 - 2
    assert contact_sheet(dataset, columns=50).size == contact_sheet(dataset, columns=6).size


@pytest.mark.parametrize(("side", "shown"), [(16, 80), (96, 96), (256, 160)])
def test_crops_of_any_size_become_tiles_of_a_handy_size(side: int, shown: int) -> None:
    sheet = contact_sheet(dataset_of(crops_of(1, side=side, z=2), ["DNA", "ER"]))
    assert sheet.width == 2 * 20 + 3 * (shown + 2) - 2


def test_floats_within_0_and_1_are_shown_as_they_are() -> None:
    crops = np.empty((1, 2, 1, 96, 96), np.float16)
    crops[:, 0], crops[:, 1] = 0.5, 0.25
    composite, dna, er = first_tiles(contact_sheet(dataset_of(crops, ["DNA", "ER"])), 3, 96)
    assert (dna == 128).all()
    assert (er == 64).all()
    blue, green = (np.frombuffer(bytes.fromhex(channel_color(n, 0)), np.uint8) / 255 for n in ("DNA", "ER"))
    np.testing.assert_allclose(composite[0, 0], 255 * (1 - (1 - 0.5 * blue) * (1 - 0.25 * green)), atol=1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_other_numbers_are_windowed_by_channel_over_all_cells_shown(dtype: str) -> None:
    crops = np.full((3, 2, 1, 96, 96), 100, dtype)
    crops[0, 0], crops[1, 0], crops[2, 0] = 200, 150, 100
    crops[1, 1, :, 0] = 0  # a padded row must not make the rest brighter
    crops[2, 1] = 120
    _, first, second = first_tiles(contact_sheet(dataset_of(crops, ["DNA", "ER"])), 3, 96)
    assert (first == 255).all()
    assert (second == 0).all()
    swapped = dataset_of(crops[[1, 0, 2]], ["DNA", "ER"])
    assert (first_tiles(contact_sheet(swapped), 2, 96)[1] == 128).all()


def test_the_maximum_along_z_is_shown() -> None:
    crops = np.zeros((1, 2, 5, 96, 96), np.float32)
    crops[0, 0, 3], crops[0, 1, 1] = 1.0, 0.4
    _, dna, er = first_tiles(contact_sheet(dataset_of(crops, ["DNA", "ER"])), 3, 96)
    assert (dna == 255).all()
    assert (er == 102).all()


def test_only_the_cells_asked_for_are_computed_and_once() -> None:
    dask = importlib.import_module("dask")
    array = importlib.import_module("dask.array")
    computed: list[int] = []

    def crop(k: int) -> np.ndarray:
        computed.append(k)
        return np.full((1, 2, 3, 8, 8), k / 100, np.float32)

    parts = [array.from_delayed(dask.delayed(crop)(k), (1, 2, 3, 8, 8), np.float32) for k in range(40)]
    dataset = dataset_of(array.concatenate(parts), ["DNA", "ER"], [str(k) for k in range(40)])
    contact_sheet(dataset, cells=5)
    assert sorted(computed) == [0, 10, 20, 29, 39]
    computed.clear()
    contact_sheet(dataset, cells=[7, 3, -1, 7], channels=["ER"])
    assert sorted(computed) == [3, 7, 39]


def test_cells_and_channels_come_in_the_order_asked_for() -> None:
    crops = np.zeros((4, 3, 1, 96, 96), np.float32)
    crops += np.arange(4).reshape(4, 1, 1, 1, 1) / 5 + np.arange(3).reshape(1, 3, 1, 1, 1) / 20
    sheet = contact_sheet(dataset_of(crops, ["a", "b", "c"]), cells=[3, 0, 3], channels=["c", "a"], columns=1)
    _, c, a = first_tiles(sheet, 3, 96)
    assert (c == round(255 * 0.7)).all()
    assert (a == round(255 * 0.6)).all()
    _, c, a = first_tiles(sheet.crop((0, 122, sheet.width, sheet.height)), 3, 96)
    assert (c == round(255 * 0.1)).all()
    assert (a == 0).all()


def test_a_single_channel_is_one_tile_in_its_colour() -> None:
    crops = np.ones((1, 1, 1, 96, 96), np.float16)
    sheet = contact_sheet(dataset_of(crops, ["DNA"]), colors={"DNA": "#102030"})
    assert (first_tiles(sheet, 1, 96)[0] == (0x10, 0x20, 0x30)).all()
    assert sheet.width == 2 * 20 + 96


def test_transmitted_light_is_left_out_of_composites_with_fluorescence() -> None:
    crops = np.ones((1, 2, 1, 96, 96), np.float16)
    crops[:, 0] = 0
    composite, _, bright = first_tiles(contact_sheet(dataset_of(crops, ["DNA", "Brightfield"])), 3, 96)
    assert (composite == 0).all()
    assert (bright == 255).all()


def test_numbers_that_are_not_finite_are_shown_as_0() -> None:
    crops = np.full((1, 2, 2, 96, 96), np.nan, np.float16)
    crops[0, 1] = np.inf
    assert all((tile == 0).all() for tile in first_tiles(contact_sheet(dataset_of(crops, ["DNA", "ER"])), 3, 96))


@pytest.mark.parametrize("text", ["", "細胞-0001", "Zelle\nß\t7", "🧫🔬", "a\ud800b", "x" * 500, "e\u0301\u200b\u0000"])
def test_captions_of_any_text(text: str) -> None:
    sheet = contact_sheet(dataset_of(crops_of(1, side=16), [text, "ER"], [text]))
    assert sheet.size == contact_sheet(dataset_of(crops_of(1, side=16), ["DNA", "ER"], ["1"])).size


def test_long_captions_stay_under_their_cell() -> None:
    crops = np.zeros((2, 1, 1, 96, 96), np.float16)
    pixels = np.asarray(contact_sheet(dataset_of(crops, ["DNA"], ["x" * 90] * 2), columns=2))
    assert (pixels[66 + 96 : 66 + 96 + 20, 20 + 96 + 2 : 20 + 96 + 16] == BACKGROUND).all()
    assert (pixels[66 + 96 : 66 + 96 + 20, 20 : 20 + 96] != BACKGROUND).any()


def test_a_dataset_with_a_t_axis_and_without_names(tmp_path: Path) -> None:
    dataset = xr.Dataset({"cells": (("t", "c", "z", "y", "x"), crops_of(3, dtype="uint8"))})
    path = tmp_path / "sheet.png"
    sheet = contact_sheet(dataset, path)
    with Image.open(path) as saved:
        assert saved.size == sheet.size
        assert saved.mode == "RGB"
    assert BACKGROUND in shades(sheet)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (0, {}, "no cells"),
        (3, {"cells": 0}, "no cells"),
        (3, {"cells": []}, "no cells"),
        (3, {"cells": [1, 3]}, re.escape("[3]")),
        (3, {"channels": ["DNAA"]}, "Did you mean 'DNA'"),
        (3, {"channels": []}, "nothing to show"),
        (3, {"columns": 0}, "columns"),
        (3, {"scale": 0.0}, "scale"),
        (3, {"colors": ["FF0000"]}, "1 colors"),
        (3, {"colors": ["FF0000", "green"]}, "hexadecimal"),
    ],
)
def test_arguments_that_do_not_fit(cells: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        contact_sheet(dataset_of(crops_of(cells, side=8), ["DNA", "ER"]), **options)


def test_a_dataset_of_something_else() -> None:
    with pytest.raises(ArgumentError, match="'cells'"):
        contact_sheet(xr.Dataset({"other": ("x", [1])}))
    with pytest.raises(ArgumentError, match="axes"):
        contact_sheet(xr.Dataset({"cells": (("cell", "y", "x"), np.zeros((1, 2, 2)))}))


@pytest.mark.parametrize(
    ("names", "color"),
    [
        (["DNA", "OrigDNA", "DAPI", "Hoechst33342", "hoechst", "Nuclei_405", "H2B-mCherry"], "3D7BFF"),
        (["ER", "OrigER", "GFP", "EGFP", "FITC", "ConcanavalinA", "Alexa488", "AF488"], "2BD96B"),
        (["RNA", "SYTO14"], "FFE119"),
        (["AGP", "F-actin", "mCherry", "CellMask", "membrane", "RFP", "TRITC"], "FF7F2A"),
        (["Mito", "mitochondria", "MitoTracker Deep Red", "Mito-RFP", "Cy5"], "FF4FD8"),
        (["Brightfield", "bright field", "BF", "DIC", "Phase Contrast", "TL"], "FFFFFF"),
    ],
)
def test_colours_by_name(names: list[str], color: str) -> None:
    assert {name: channel_color(name, 3) for name in names} == dict.fromkeys(names, color)
    assert all(is_transmitted(name) == (color == "FFFFFF") for name in names)


def test_other_names_take_turns() -> None:
    colors = [channel_color(name, k) for k, name in enumerate(["structure", "other", "Serum", "", "ch4", "細胞", "x"])]
    assert len(set(colors)) == 7
    assert all(re.fullmatch("[0-9A-F]{6}", color) for color in colors)
    assert channel_color("structure", 7) == colors[0]
