"""Make the pictures of the documentation: ``python docs/figures.py`` writes docs/images/*.png.

All cells are those of the synthetic plate of `cellcube.demo.plates`, cut by cellcube itself.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from PIL import Image, ImageDraw, ImageFont

import cellcube
from cellcube.demo.plates import write_plate

Pixels = np.ndarray[Any, Any]

IMAGES = Path(__file__).parent / "images"
_INK, _FAINT, _PAPER = 30, 105, 255
_HEADING, _CAPTION = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
_GAP, _LINE = 14, 18
_BUILD: dict[str, Any] = {"projections": [], "executor": 1, "progress": False}


def grey(pixels: Pixels, low: float = 0, high: float = 1, zoom: float = 1, levels: int = 48) -> Image.Image:
    """Pixels (y, x) as a picture in which `low` is black and `high` is white."""
    # Few levels make small files.
    share = np.clip((pixels.astype(float) - low) / (high - low), 0, 1)
    picture = Image.fromarray(np.rint(np.rint(share * (levels - 1)) * 255 / (levels - 1)).astype(np.uint8))
    size = (round(picture.width * zoom), round(picture.height * zoom))
    return picture.resize(size, Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.BOX)


def sheet(
    path: Path, rows: Sequence[Sequence[tuple[str, Image.Image, str]]], titles: Sequence[str] = (), columns: int = 0
) -> None:
    """Write tiles in rows, each with a heading and a caption of any number of lines.

    Parameters
    ----------
    path : Path
    rows : sequence
        Of rows of (heading, picture, caption).
    titles : sequence of str
        One line above each row.
    columns : int
        Smallest width of a tile, so that text fits.
    """
    drawn, top, wide = [], _GAP, 0
    for number, row in enumerate(rows):
        left = _GAP
        title = titles[number] if titles else ""
        heading = any(name for name, _, _ in row)
        begin = top + (_LINE + 6 if title else 0)
        height = max(picture.height for _, picture, _ in row)
        for name, picture, caption in row:
            drawn.append((left, begin + (_LINE if heading else 0), name, picture, caption, height))
            left += max(picture.width, columns) + _GAP
        if title:
            drawn.append((_GAP, top, title, None, "", 0))
        lines = max(caption.count("\n") + 1 if caption else 0 for _, _, caption in row)
        top = begin + (_LINE if heading else 0) + height + lines * (_LINE - 2) + _GAP
        wide = max(wide, left)
    canvas = Image.new("L", (wide, top), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for left, upper, text, shown, caption, height in drawn:
        if shown is None:
            draw.text((left, upper), text, _INK, _HEADING)
            continue
        if text:
            draw.text((left, upper - _LINE - 1), text, _INK, _HEADING)
        canvas.paste(shown, (left, upper))
        draw.multiline_text((left, upper + height + 3), caption, _FAINT, _CAPTION, spacing=2)
    canvas.save(path, optimize=True)


def cells_of(root: Path, table: Path | pd.DataFrame, **fields: Any) -> Any:
    """A dataset of cells, in memory."""
    cellcube.build(table, root, **{**_BUILD, **fields})
    return cellcube.open(root)


def chosen(plate: Path, *cell_ids: str) -> pd.DataFrame:
    """Rows of the plate's table, with paths that can be opened from anywhere."""
    table = pd.read_csv(plate / f"cells_{'3d' if cell_ids[0].startswith('A') else '2d'}.csv")
    table = table.set_index("cell_id", drop=False).loc[list(cell_ids)]
    for column in ("fov_path", "label_path"):
        table[column] = [str(plate / path) for path in table[column]]
    return table


def normalization(plate: Path, work: Path, path: Path) -> None:
    """One cell by four normalizers."""
    table = chosen(plate, "B02-s1-0021")
    shown: list[tuple[str, str, float, float, str]] = [
        ("none", "none", 0, 4095, "the camera's counts,\nshown from 0 to 4095"),
        ("percentile", "percentile", 0, 1, "1st percentile to 0,\n99.9th to 1"),
        ("img_bg_sub", "img_bg_sub", 0, 1, "smoothed, median to 0,\nmaximum to 1"),
        ("zscore", "zscore", -2, 5, "mean 0, deviation 1,\nshown from -2 to 5"),
    ]
    row = []
    for name, method, low, high, caption in shown:
        dataset = cells_of(work / f"n-{name}", table, channels=["ER"], shape=(1, 96, 96), normalize=method)
        row.append((name, grey(dataset["cells"].values[0, 0, 0], low, high, 2), caption))
    sheet(path, [row])


def scopes(plate: Path, work: Path, path: Path) -> None:
    """A dim and a bright cell by statistics of their own, and of the whole plate."""
    two = ("B02-s1-0021", "D08-s1-0001")
    every = chosen(plate, *pd.read_csv(plate / "cells_2d.csv")["cell_id"])
    row = []
    for scope, title in (("cell", "scope: cell"), ("dataset", "scope: {by: plate}")):
        dataset = cells_of(
            work / f"s-{scope}",
            every,
            channels=["ER"],
            shape=(1, 96, 96),
            normalize={
                "method": "percentile",
                "low": 1,
                "high": 99.9,
                "scope": "cell" if scope == "cell" else {"by": "plate"},
            },
        )
        for number, cell_id in enumerate(two):
            cell = dataset.sel(cell_id=cell_id)
            low, high = float(cell["norm_low"][0]), float(cell["norm_high"][0])
            drug = str(cell["treatment"].item())
            row.append(
                (
                    title if not number else "",
                    grey(cell["cells"].values[0, 0], 0, 1, 2),
                    f"{drug}\nblack {low:.0f}, white {high:.0f}",
                )
            )
    sheet(path, [row])


def alignment(plate: Path, work: Path, path: Path) -> None:
    """Cells as they lie, and turned and mirrored."""
    names = ["C05-s1-0021", "C05-s1-0038", "C05-s1-0004", "C05-s1-0034", "C05-s1-0045", "D08-s1-0032", "B02-s1-0004"]
    rows = []
    for number, fields in enumerate(({}, {"align": "major_axis"}, {"align": "major_axis", "flip": "ER"})):
        dataset = cells_of(
            work / f"a-{number + 1}",
            chosen(plate, *names),
            channels=["ER"],
            shape=(1, 112, 120),
            mask="label",
            **fields,
        )
        cells = dataset["cells"].values[:, 0, 0]
        rows.append([("", grey(cell, 0, 1), "") for cell in cells])
    sheet(path, rows, ["align: none", "align: major_axis", "align: major_axis, flip: ER"])


def isotropic(plate: Path, work: Path, path: Path) -> None:
    """A cell of a volume with flat voxels, and with cubic ones."""
    table = chosen(plate, "A01-s1-0003")
    row = []
    for number, (depth, voxel, title, size) in enumerate(
        [
            (24, None, "voxel_size: null", "0.5 x 0.2 x 0.2"),
            (60, (0.2, 0.2, 0.2), "voxel_size: [0.2, 0.2, 0.2]", "0.2 x 0.2 x 0.2"),
        ]
    ):
        dataset = cells_of(
            work / f"i-{number}",
            table,
            channels=["DNA"],
            shape=(depth, 108, 108),
            voxel_size=voxel,
            edge="shift",
            projections=["max_montage"],
        )
        caption = f"{depth} x 108 x 108 voxels of\n{size} micrometres"
        row.append((title, grey(dataset["max_montage"].values[0, 0], 0, 1, 2), caption))
    sheet(path, [row])


def masks(plate: Path, work: Path, path: Path) -> None:
    """One cell by five masks."""
    table = chosen(plate, "B02-s1-0008")
    row = []
    for title, fields, caption in [
        ("none", {}, "everything stays"),
        ("neighbours", {"neighbours": "remove"}, "other labels are 0,\nthe background stays"),
        ("label", {"mask": "label"}, "all but the label is 0"),
        ("dilated", {"mask": {"method": "dilated", "by": 6}}, "a margin of 6 voxels"),
        ("soft", {"mask": {"method": "soft", "by": 12}}, "falls to 0 over\n12 voxels"),
    ]:
        dataset = cells_of(
            work / f"m-{title}",
            table,
            channels=["AGP"],
            shape=(1, 104, 104),
            normalize={"method": "range", "low": 90, "high": 900},
            **fields,
        )
        name = "neighbours: remove" if title == "neighbours" else f"mask: {title}"
        row.append((name, grey(dataset["cells"].values[0, 0, 0], 0, 1, 1.5), caption))
    sheet(path, [row])


def illumination(plate: Path, work: Path, path: Path) -> None:
    """A whole field before and after the correction, with the flat-field that was used."""
    field = tifffile.imread(plate / "images" / "C05-s1.ome.tif")[1].astype(float)
    size = field.shape[0]
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    flat = 100 + 1000 * np.exp(-((y + 0.6) ** 2 + (x + 0.6) ** 2) / 2.4)
    dim = (field - 100) * (flat - 100) / (flat - 100).mean() + 100
    tifffile.imwrite(work / "dim.tif", np.rint(dim).astype(np.uint16))
    tifffile.imwrite(work / "flat.tif", np.rint(flat).astype(np.uint16))
    box = pd.DataFrame(
        {"cell_id": ["field"], "fov_path": [str(work / "dim.tif")], "y0": 0, "y1": size, "x0": 0, "x1": size}
    )
    row = []
    for name, light, low, caption in [
        ("before", {}, 100, "shown from 100 to 900"),
        ("after", {"channel_0": {"flat": str(work / "flat.tif"), "dark": 100}}, 0, "shown from 0 to 800"),
    ]:
        dataset = cells_of(work / f"f-{name}", box, shape=(1, size, size), normalize="none", illumination=light)
        row.append((name, grey(dataset["cells"].values[0, 0, 0], low, low + 800, 0.4), caption))
    row.insert(1, ("flat-field", grey(flat, 0, flat.max(), 0.4, 256), f"{flat.min():.0f} to {flat.max():.0f} counts"))
    sheet(path, [row])


FIGURES: dict[str, Callable[[Path, Path, Path], None]] = {
    "normalization": normalization,
    "scopes": scopes,
    "alignment": alignment,
    "isotropic": isotropic,
    "masks": masks,
    "illumination": illumination,
}


def main(folder: Path, names: Sequence[str]) -> None:
    """Write pictures into a folder; all, or those of some names."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_plate(work / "plate", sites=1, size=540, volumes=1, broken=False)
        for name in names or FIGURES:
            FIGURES[name](work / "plate", work, folder / f"{name}.png")
            print(f"{name}.png {(folder / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(IMAGES, sys.argv[1:])
