"""Analyse a cube that need not fit into memory: mean cells of wells, features of cells, principal components.

    python examples/lazy_analysis.py [folder] [--cells 1000] [--crop 48]

The cube is made from synthetic fields of eight wells with two treatments; there may be any number of cells. Then xarray
and dask go over it shard by shard. Writes a picture of what is found into the folder; run again, only the analysis is
done.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
import xarray as xr
from PIL import Image, ImageDraw

import cellcube

Pixels = npt.NDArray[Any]

CHANNELS = ["DNA", "ER", "RNA", "AGP", "Mito"]
WELLS = {
    **dict.fromkeys(["B02", "B03", "B04", "B05"], "DMSO"),
    **dict.fromkeys(["C02", "C03"], "etoposide"),
    **dict.fromkeys(["D02", "D03"], "tunicamycin"),
}
COLORS = {"DMSO": (90, 90, 90), "etoposide": (0, 114, 178), "tunicamycin": (213, 94, 0)}
CELLS_A_FIELD = 100
PITCH = 80


def paint_cell(rng: np.random.Generator, treatment: str) -> tuple[Pixels, Pixels]:
    """Photons (c, y, x) and the mask (y, x) of one cell: etoposide swells nuclei, tunicamycin brightens the ER."""
    angle, long = rng.uniform(0, math.pi), rng.uniform(1.1, 1.5)
    nucleus = rng.normal(11, 1.2) * (1.5 if treatment == "etoposide" else 1)
    y, x = np.mgrid[:PITCH, :PITCH] - PITCH / 2 + rng.uniform(-3, 3, (2, 1, 1))
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    away = np.hypot(along / long, across)
    inside = 1 / (1 + np.exp(away - nucleus))
    body = 1 / (1 + np.exp((away - nucleus - 9) / 2)) * (1 - 0.8 * inside)
    spots = rng.random((5, PITCH // 4, PITCH // 4)).repeat(4, 1).repeat(4, 2)
    er = 2.2 if treatment == "tunicamycin" else 1
    photons = np.stack([600 * inside, 300 * er * body, 250 * (body + inside), 200 * body, 400 * body])
    return photons * (0.5 + spots) * rng.lognormal(0, 0.15), away < nucleus + 9


def paint_fields(folder: Path, cells: int) -> pd.DataFrame:
    """Write fields of 100 cells with their labels; a table with one row a cell."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for field in range(math.ceil(cells / CELLS_A_FIELD)):
        well = list(WELLS)[field % len(WELLS)]
        rng = np.random.default_rng(field)
        size = 10 * PITCH
        photons, labels = np.full((5, size, size), 100.0), np.zeros((size, size), np.uint16)
        for label in range(1, min(CELLS_A_FIELD, cells - field * CELLS_A_FIELD) + 1):
            place = np.array(divmod(label - 1, 10)) * PITCH
            window = (slice(place[0], place[0] + PITCH), slice(place[1], place[1] + PITCH))
            cell, mask = paint_cell(rng, WELLS[well])
            photons[:, *window] += cell
            labels[window][mask] = label
            rows.append(
                {
                    "cell_id": f"{field:04d}-{label:03d}",
                    "fov_id": f"{well}-{field:04d}",
                    "fov_path": str(folder / f"{field:04d}.ome.tif"),
                    "label_path": str(folder / f"{field:04d}_labels.tif"),
                    "label": label,
                    "well": well,
                    "treatment": WELLS[well],
                }
            )
        metadata = {"axes": "CYX", "Channel": {"Name": CHANNELS}, "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}
        tifffile.imwrite(rows[-1]["fov_path"], rng.poisson(photons).astype(np.uint16), ome=True, metadata=metadata)
        tifffile.imwrite(rows[-1]["label_path"], labels, metadata={"axes": "YX"})
    return pd.DataFrame(rows).sort_values(["well", "fov_id"], kind="stable")


def build(folder: Path, cells: int, crop: int, shard_mb: float = 8) -> Path:
    """The cube, made if it is not there. Its shards are small, so that there are some of them."""
    root = folder / f"cells-{cells}-{crop}-{shard_mb:g}"
    if not (root / "catalog.yaml").exists():
        # Intensities on one scale for all cells, so that means can be compared.
        normalize = {"method": "range", "low": 100, "high": 1500}
        table = paint_fields(folder / "fields", cells)
        storage = {"shard_mb": shard_mb}
        print(cellcube.build(table, root, shape=(1, crop, crop), normalize=normalize, storage=storage))
    return root


def features_of(cells: xr.DataArray) -> xr.DataArray:
    """Features (cell, feature) of crops (cell, c, z, y, x): brightness, and width of the light around the middle."""
    pixels = cells.astype("float32")
    y, x = (pixels[axis] - (pixels.sizes[axis] - 1) / 2 for axis in ("y", "x"))
    light = pixels.sum(["z", "y", "x"])
    # A dot product makes no second block of pixels, and neither do weights of the same type.
    away = (y**2 + x**2).astype("float32")
    width = np.sqrt(xr.dot(pixels, away, dim=["z", "y", "x"]) / np.maximum(light, 1e-6))
    parts = [light / math.prod(cells.shape[2:]), width]
    return xr.concat([part.rename(c="feature") for part in parts], "feature", coords="minimal").transpose("cell", ...)


def all_features(cells: xr.DataArray) -> pd.DataFrame:
    """`features_of` of every cell: each block of the array is one call, on the shard that holds it."""
    names = [f"{kind} {channel}" for kind in ("mean", "width") for channel in cells["c"].values]
    # map_blocks wants to know what comes out: as many rows, divided as the cells are.
    lazy = cells.drop_vars(cells.coords).assign_coords({axis: np.arange(cells.sizes[axis]) for axis in ("y", "x")})
    shape, chunks = (cells.sizes["cell"], len(names)), (cells.chunksizes["cell"], len(names))
    template = xr.DataArray(da.zeros(shape, chunks=chunks, dtype="float32"), dims=("cell", "feature"))
    return pd.DataFrame(xr.map_blocks(features_of, lazy, template=template).values, columns=names)


def principal_components(images: xr.DataArray, count: int) -> tuple[Pixels, Pixels, Pixels]:
    """Scores (cell, k), components (k, c, y, x) and their shares of the variance, of images (cell, c, y, x)."""
    flat = images.data.reshape(len(images), -1).astype("float32")
    centred = flat - flat.mean(axis=0).compute()
    # With compute=True the shards are read anew in each pass, so that they need not stay in memory.
    u, s, v = da.linalg.svd_compressed(centred, count, n_power_iter=1, seed=0, compute=True)
    left, scale, components = da.compute(u, s, v)
    shares = scale**2 / float((centred**2).sum().compute())
    return left * scale, components.reshape(count, *images.shape[1:]), shares


def analyse(root: Path) -> tuple[xr.DataArray, pd.DataFrame, Pixels, Pixels]:
    """Mean cells by well, features, scores and components; prints what they say."""
    dataset = cellcube.open(root)
    cells = dataset["cells"]
    print(f"\n{cells.sizes['cell']:,} cells, {cells.nbytes / 1e6:,.0f} MB, in blocks of {cells.chunks[0][0]:,} cells")

    means = cells.isel(z=0).astype("float32").groupby("well").mean("cell").compute()

    features = all_features(cells)
    treatment = dataset["treatment"].values.astype(object)
    control = features[treatment == "DMSO"]
    print("\nMedian of each treatment, as a ratio to DMSO:")
    for name in ("etoposide", "tunicamycin"):
        ratio = features[treatment == name].median() / control.median()
        print(f"  {name:<12}" + ", ".join(f"{key} {ratio[key]:.2f}" for key in ("width DNA", "mean DNA", "mean ER")))

    scores, components, shares = principal_components(dataset["max_z"], 4)
    print("\nShares of the variance: " + ", ".join(f"{share:.1%}" for share in shares))
    for name in COLORS:
        at = scores[treatment == name].mean(axis=0)
        print(f"  {name:<12}" + "".join(f"{value:>8.1f}" for value in at))
    table = features.assign(treatment=treatment, well=dataset["well"].values.astype(object))
    return means, table, scores, components


def grey(pixels: Pixels, low: float, high: float) -> Image.Image:
    """Pixels (y, x) as a tile of 96 x 96."""
    share = np.clip((pixels - low) / (high - low), 0, 1)
    return Image.fromarray((share * 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BILINEAR)


def draw(path: Path, means: xr.DataArray, table: pd.DataFrame, scores: Pixels, components: Pixels) -> None:
    """Mean cells by well and channel, components by channel, and the cells by their first two components."""
    left, top, step = 110, 24, 100
    rows = len(means) + len(components)
    picture = Image.new("RGB", (left + step * len(CHANNELS) + 560, top + step * rows + 20), "white")
    pen = ImageDraw.Draw(picture)
    for column, channel in enumerate(CHANNELS):
        x = left + step * column
        pen.text((x, 6), channel, "black")
        mean = means.sel(c=channel)
        for row, well in enumerate(means["well"].values):
            tile = grey(mean.sel(well=well).values, float(mean.min()), float(mean.max()))
            picture.paste(tile, (x, top + step * row))
        for row, component in enumerate(components):
            extent = float(np.abs(component).max())
            picture.paste(grey(component[column], -extent, extent), (x, top + step * (len(means) + row) + 20))
    for row, well in enumerate(means["well"].values):
        pen.text((6, top + step * row + 40), f"{well}\n{WELLS[str(well)]}", "black")
    for row in range(len(components)):
        pen.text((6, top + step * (len(means) + row) + 60), f"component {row + 1}", "black")

    x0, y0, size = left + step * len(CHANNELS) + 40, top + 20, 480
    pen.rectangle((x0, y0, x0 + size, y0 + size), outline="black")
    low, high = scores[:, :2].min(axis=0), scores[:, :2].max(axis=0)
    places = (scores[:, :2] - low) / (high - low) * (size - 10) + 5
    for (x, y), name in zip(places, table["treatment"], strict=True):
        pen.ellipse((x0 + x - 2, y0 + size - y - 2, x0 + x + 2, y0 + size - y + 2), fill=COLORS[name])
    pen.text((x0, y0 + size + 6), f"component 1 (across), component 2 (up); {len(scores):,} cells", "black")
    for number, (name, color) in enumerate(COLORS.items()):
        pen.text((x0 + number * 110, y0 - 16), name, color)
    picture.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lazy-analysis"))
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--crop", type=int, default=48, help="pixels; at most 80 are of one cell")
    given = parser.parse_args()
    # Blocks that dask would have to cut or join are a mistake here, not something to be told about.
    warnings.simplefilter("error", da.PerformanceWarning)
    found = analyse(build(given.folder, given.cells, given.crop))
    draw(given.folder / "lazy_analysis.png", *found)
    print(f"\nPicture: {given.folder / 'lazy_analysis.png'}")


if __name__ == "__main__":
    main()
