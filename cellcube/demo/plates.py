"""Write a small synthetic screen: Cell Painting fields, 3D colonies, labels and the tables that list them.

The pixels imitate what matters to an analysis: touching cells of irregular shape, uneven illumination, blur,
shot and read noise over a camera offset, and treatments with a known effect.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
from scipy import fft, ndimage

Rng = np.random.Generator
Field = npt.NDArray[np.float32]
Counts = npt.NDArray[np.uint16]
Labels = npt.NDArray[np.uint16]
Owners = npt.NDArray[np.int32]
Rendered = tuple[Counts, Labels, Labels]

CHANNELS_2D = ("DNA", "ER", "RNA", "AGP", "Mito")
CHANNELS_3D = ("DNA", "membrane", "structure")
VOXEL_2D = (1.0, 0.65, 0.65)
VOXEL_3D = (0.5, 0.2, 0.2)
WELLS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"B02": ("DMSO", 0.0), "C05": ("etoposide", 3.0), "D08": ("tunicamycin", 3.0)}
)

_MARGIN = 64  # px rendered around a 2D field, so that cells reach over its border
_OFFSET, _READ_NOISE, _FULL_SCALE = 100.0, 2.5, 4095
_PLACE = ("fov_id", "fov_path", "label_path")
_ORIGIN = ("plate", "well", "row", "column", "site", "treatment", "concentration_um")


@dataclass(frozen=True)
class DemoPlate:
    """What `write_plate` wrote.

    Parameters
    ----------
    folder : Path
        The folder; paths in the tables are relative to it.
    cells_csv, cells_3d_csv : Path
        Tables with one row a labelled cell, of the 2D fields and of the 3D fields.
    fovs_csv, fovs_3d_csv : Path
        Tables with one row a field and no `label`, which means every label in it.
    broken_fov : str or None
        `fov_id` of the 2D field whose image file is cut off; its label images are whole.
    """

    folder: Path
    cells_csv: Path
    cells_3d_csv: Path
    fovs_csv: Path
    fovs_3d_csv: Path
    broken_fov: str | None


@dataclass(frozen=True)
class _Effect:
    """What a treatment does: factors on nuclear diameter and ER intensity, and the mitotic fraction."""

    nucleus: float = 1.0
    er: float = 1.0
    mitotic: float = 0.07


def write_plate(
    folder: str | Path,
    *,
    seed: int = 0,
    wells: Mapping[str, tuple[str, float]] = WELLS,
    sites: int = 2,
    size: int = 540,
    volumes: int = 2,
    broken: bool = True,
) -> DemoPlate:
    """Write a synthetic plate with its labels and tables.

    Parameters
    ----------
    folder : str or Path
        Where to write; made if missing. Gets ``images/``, ``labels/`` and four tables.
    seed : int
        The same seed and the same other arguments write the same pixels and tables.
    wells : mapping of str to (str, float)
        Treatment and its concentration in µM by well. Etoposide enlarges nuclei and stops division, tunicamycin
        raises the ER; any other name does nothing.
    sites : int
        2D fields a well: OME-TIFF, uint16 (c, y, x), `CHANNELS_2D`, 0.65 µm pixels, 12 bits used.
    size : int
        Height and width of a 2D field in pixels. At 540 a field has about 20 to 35 cells.
    volumes : int
        3D fields, DMSO and etoposide in turn: OME-TIFF, uint16 (c, z, y, x) = (3, 24, 200, 200), `CHANNELS_3D`,
        voxels of 0.5, 0.2 and 0.2 µm.
    broken : bool
        Add one more site to the last well, whose image file ends after 60 % of its bytes.

    Returns
    -------
    DemoPlate

    Notes
    -----
    Label images are uint16 TIFF, ``<fov_id>_cells.tif`` and ``<fov_id>_nuclei.tif``, with gaps between ids. A nucleus
    has the id of its cell. As in a segmentation that starts from nuclei, a cell whose nucleus is outside of the field
    is seen but not labelled, and a cell that the border cuts stays.
    """
    folder = Path(folder)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    broken_fov = f"{list(wells)[-1]}-s{sites + 1}" if broken and wells else None

    fovs, cells = [], []
    for w, (well, treatment) in enumerate(wells.items()):
        for site in range(1, sites + 1 + (broken_fov is not None and w == len(wells) - 1)):
            field = _painted_field(np.random.default_rng([seed, 2, w, site]), size, _effect_of(*treatment))
            fovs.append(_fov_row("demo-painting", well, site, *treatment))
            cells += _write_field(folder, fovs[-1], field, seed)
    if broken_fov is not None:
        path = folder / fovs[-1]["fov_path"]
        os.truncate(path, path.stat().st_size * 6 // 10)

    fovs_3d, cells_3d = [], []
    for v in range(volumes):
        treatment = ("etoposide", 3.0) if v % 2 else ("DMSO", 0.0)
        field = _colony(np.random.default_rng([seed, 3, v]), (24, 200, 200), _effect_of(*treatment))
        fovs_3d.append(_fov_row("demo-colony", f"A{v + 1:02d}", 1, *treatment))
        cells_3d += _write_field(folder, fovs_3d[-1], field, seed)

    paths = [folder / f"{name}.csv" for name in ("cells_2d", "fovs_2d", "cells_3d", "fovs_3d")]
    for path, rows in zip(paths, (cells, fovs, cells_3d, fovs_3d), strict=True):
        columns = _PLACE + _ORIGIN if path.name.startswith("fovs") else ("cell_id", *_PLACE, "label", *_ORIGIN)
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False, lineterminator="\n")
    return DemoPlate(folder, paths[0], paths[2], paths[1], paths[3], broken_fov)


def _effect_of(treatment: str, concentration: float) -> _Effect:
    response = concentration / (concentration + 1.0)  # half of the effect at 1 µM
    if treatment == "etoposide":
        return _Effect(nucleus=1 + 0.4 * response, mitotic=0.0)
    return _Effect(er=1 + 1.2 * response) if treatment == "tunicamycin" else _Effect()


def _painted_field(rng: Rng, size: int, effect: _Effect) -> Rendered:
    """One Cell Painting field: image (c, y, x), cell labels and nucleus labels (y, x)."""
    shape = (size + 2 * _MARGIN,) * 2
    centres = _scatter(rng, shape, count=round(rng.integers(20, 27) * (size / 540) ** 2))
    n = len(centres)
    mitotic = rng.permutation(n) < round(effect.mitotic * n)
    owner, dna, nuclear = _draw_bodies(rng, shape, centres, mitotic, effect.nucleus)

    def per_cell(values: npt.NDArray[Any]) -> Field:
        """Spread one value a cell over its pixels."""
        return np.concatenate([[0.0], values]).astype(np.float32)[owner]

    def vary() -> npt.NDArray[np.float64]:
        return np.exp(rng.normal(0, 0.18, n)) * np.where(mitotic, 1.5, 1.0)  # round cells are thick

    inside = (owner > 0) & (ndimage.minimum_filter(owner, 3) == ndimage.maximum_filter(owner, 3))
    edge = ndimage.distance_transform_edt(inside).astype(np.float32)
    away = ndimage.distance_transform_edt(nuclear == 0).astype(np.float32)
    nucleus = ndimage.gaussian_filter((nuclear > 0).astype(np.float32), 1.4, truncate=3)
    thickness = (1 - np.exp(-edge / 7)) * (0.25 + 0.75 * np.exp(-away / 18))
    cytoplasm = (1 - 0.8 * nucleus) * thickness
    chromatin = 1 + 0.16 * _noise(rng, shape, 1.3) + 0.12 * _noise(rng, shape, 3.5)
    nucleoli = np.clip(2 * (_noise(rng, shape, 2.4) - 0.85), 0, 1) * np.clip(4 * nucleus - 3, 0, 1)
    nucleoli *= 1 - per_cell(mitotic)
    reticulum = 0.45 + 0.55 * _filaments(rng, shape, 1.5, 0.55) + 0.12 * _noise(rng, shape, 5)
    mitochondria = _filaments(rng, shape, 1.8, 0.34) * np.clip(0.8 + 0.5 * _noise(rng, shape, 5), 0, 1.6)
    golgi = np.clip(_noise(rng, shape, 2.2) - 0.3, 0, 2) * np.exp(-(((away - 5) / 4) ** 2)) * (away > 0)
    golgi *= np.clip(_noise(rng, shape, 14), 0, 1.5)
    direction = per_cell(rng.integers(0, 4, n)).astype(int)
    fibres = np.choose(direction, [_noise(rng, shape, (9.0, 0.9), k * np.pi / 4) for k in range(4)])
    fibres = np.clip(fibres - 0.4, 0, 2) * np.clip(0.5 + 0.7 * _noise(rng, shape, 18), 0, 1)
    fibres *= thickness * (1 - per_cell(mitotic))
    cortex = np.exp(-edge / 1.6) * np.clip(1 + 0.35 * _noise(rng, shape, 4), 0.2, 2)

    dna = dna * np.clip(chromatin, 0.3, 2) * (1 - 0.4 * nucleoli)
    channels = [
        1150 * dna * per_cell(np.exp(rng.normal(0, 0.08, n)) * rng.choice([1.0, 1.35, 1.75], n, p=[0.6, 0.2, 0.2])),
        1250 * cytoplasm * np.exp(-away / 24) * reticulum * per_cell(vary()) * effect.er,
        per_cell(vary()) * (650 * nucleoli + 230 * nucleus + 620 * cytoplasm * (0.55 + 0.6 * reticulum)),
        per_cell(vary()) * (430 * cortex + 330 * fibres + 380 * golgi + 150 * thickness),
        1900 * cytoplasm * (mitochondria + 0.05) * per_cell(vary()),
    ]
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    photons = np.empty((len(channels), size, size), np.float32)
    inner = (slice(_MARGIN, -_MARGIN),) * 2
    for c, field in enumerate(channels):
        field = field * (owner > 0)
        # Light from above and below the focus makes the haze of a widefield image.
        haze = ndimage.uniform_filter(ndimage.uniform_filter(field, 17), 17)
        seen = 0.8 * ndimage.gaussian_filter(field, 0.85, truncate=3) + 0.2 * haze
        light = 1.08 - 0.30 * ((y - 0.15 + 0.04 * c) ** 2 + (x + 0.20 - 0.05 * c) ** 2)
        photons[c] = ((seen + 45) * light)[inner]
    labels, nuclei = _number(rng, owner[inner], nuclear[inner], least=60)
    return _camera(rng, photons), labels, nuclei


def _draw_bodies(
    rng: Rng, shape: tuple[int, int], centres: npt.NDArray[np.float64], mitotic: npt.NDArray[np.bool_], enlarged: float
) -> tuple[Owners, Field, Owners]:
    """Cells as (y, x): owner (0 or 1 + index), DNA profile (0 to about 1, mitotic about 2) and nucleus (like owner)."""
    nearest, dna = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    owner, nuclear = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    ruffle = [5 * _noise(rng, shape, 11) + 1.1 * _noise(rng, shape, 3.0) for _ in range(2)]
    dent = [1.1 * _noise(rng, shape, 7) for _ in range(2)]
    y, x = (i.astype(np.float32) for i in np.ogrid[: shape[0], : shape[1]])
    windows = [tuple(slice(max(int(at) - 95, 0), int(at) + 95) for at in centre) for centre in centres]
    for k, (window, (cy, cx)) in enumerate(zip(windows, centres.tolist(), strict=True)):
        calm = 0.25 if mitotic[k] else 1.0
        dy = y[window[0]] - cy + calm * ruffle[0][window]
        dx = x[:, window[1]] - cx + calm * ruffle[1][window]
        theta = np.arctan2(dy, dx)
        radius = 19.0 if mitotic[k] else rng.uniform(36, 50)
        outline = np.ones_like(theta)
        for order in (2, 3, 4, 5):
            outline += calm * rng.normal(0, 0.26 / order) * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
        score = np.hypot(dy, dx) / (radius * np.clip(outline, 0.45, 1.7))
        won = score < nearest[window]
        nearest[window][won] = score[won]
        owner[window][won] = k + 1

    for k, (window, (cy, cx)) in enumerate(zip(windows, centres.tolist(), strict=True)):
        mine = owner[window] == k + 1
        cy, cx = cy + rng.normal(0, 3 * ~mitotic[k]), cx + rng.normal(0, 3 * ~mitotic[k])
        dy, dx = y[window[0]] - cy + dent[0][window], x[:, window[1]] - cx + dent[1][window]
        angle = rng.uniform(0, math.pi)
        u, v = (math.cos(turn) * dx + math.sin(turn) * dy for turn in (angle, angle + math.pi / 2))
        if mitotic[k]:  # a metaphase plate, or two in anaphase
            apart = 7.0 * rng.integers(2)
            level = np.hypot(u / 11.5, (np.abs(v) - apart) / (4.2 - 0.1 * apart))
            profile = 2.1 * np.clip(1.6 * (1 - level), 0, 1)
        else:
            long = rng.normal(14.0, 1.0) * enlarged
            level = np.hypot(u / long, v / (long * rng.uniform(0.68, 0.92)))
            profile = np.clip(3.5 * (1 - level), 0, 1) * (0.8 + 0.2 * np.clip(1 - level, 0, 1))
        filled = mine & (level < 1)
        pieces, count = ndimage.label(mine)
        if count > 1:  # ruffles can cut off a piece of a cell
            largest = 1 + int(np.argmax(np.bincount(pieces[filled], minlength=count + 1)[1:]))
            owner[window][mine & (pieces != largest)] = 0
            filled &= pieces == largest
        nuclear[window][filled] = k + 1
        dna[window] += np.where(filled, profile, 0)
    return owner, dna, nuclear


def _colony(rng: Rng, shape: tuple[int, int, int], effect: _Effect) -> Rendered:
    """One field of an epithelial colony: image (c, z, y, x), cell labels and nucleus labels (z, y, x)."""
    z, y, x = (i.astype(np.float32) * v for i, v in zip(np.ogrid[tuple(map(slice, shape))], VOXEL_3D, strict=True))
    wide = shape[1] * VOXEL_3D[1]
    # Rows of a jittered hexagonal grid, 16 µm apart, reaching over the border of the field.
    grid = [(i * 14.0 - 3, j * 16.5 - 5 + 8.2 * (i % 2)) for i in range(5) for j in range(5)]
    centres = [(rng.normal(5.0, 0.4), gy + rng.normal(0, 1.3), gx + rng.normal(0, 1.3)) for gy, gx in grid]
    centres = [c for c in centres if max(c) < wide + 10 and c[1] + c[2] < 1.62 * wide]
    warp = [0.8 * _noise(rng, shape, (4, 14, 14)) for _ in range(3)]
    wz, wy, wx = z + 0.5 * warp[0], y + warp[1], x + warp[2]

    nearest, second, level = (np.full(shape, np.inf, np.float32) for _ in range(3))
    owner = np.zeros(shape, np.int32)
    for k, (cz, cy, cx) in enumerate(centres):
        dz, dy, dx = wz - cz, wy - cy, wx - cx
        far = (0.35 * dz) ** 2 + dy**2 + dx**2
        closer = far < nearest
        second = np.where(closer, nearest, np.minimum(second, far))
        nearest = np.where(closer, far, nearest)
        owner[closer] = k + 1
        a, b = (rng.uniform(4.6, 5.6) * effect.nucleus for _ in range(2))
        level = np.minimum(level, np.sqrt((dz / 2.7) ** 2 + (dy / a) ** 2 + (dx / b) ** 2))
    # The colony lies on the glass, is highest over its nuclei and thins out towards its rim.
    roof = 10.2 - 0.035 * nearest + 0.5 * warp[0]
    between = np.sqrt(second) - np.sqrt(nearest)
    body = (z > 1.2) & (z < roof) & (nearest < 130)
    owner *= body
    nuclear = np.where((level < 1) & (between > 0.6), owner, 0)

    depth = np.minimum(np.minimum(roof - z, z - 1.2), np.sqrt(130) - np.sqrt(nearest))
    membrane = np.exp(-((between / 0.45) ** 2)) + 0.8 * np.exp(-((depth / 0.7) ** 2))
    chromatin = np.clip(1 + 0.22 * _noise(rng, shape, (0.8, 2, 2)) + 0.15 * _noise(rng, shape, (2, 6, 6)), 0.2, 2)
    nucleoli = np.clip(2 * (_noise(rng, shape, (1.8, 4.5, 4.5)) - 1.3), 0, 1)
    tubes = _filaments(rng, shape, (1.3, 3.2, 3.2), 0.42) * np.clip(0.7 + 0.6 * _noise(rng, shape, (4, 10, 10)), 0, 1.5)
    free = np.clip(2.5 * (level - 1), 0, 1) * np.clip((between - 0.8) / 1.2, 0, 1)

    def per_cell(spread: float) -> Field:
        return np.exp(rng.normal(0, spread, len(centres) + 1)).astype(np.float32)[owner]

    photons = np.stack([
        900 * (nuclear > 0) * chromatin * (1 - 0.7 * nucleoli) * per_cell(0.12),
        750 * membrane * np.clip(1 + 0.2 * _noise(rng, shape, (1, 3, 3)), 0.3, 2) + 25,
        1500 * tubes * free * np.exp(-np.clip(level - 1, 0, None) / 1.1) * per_cell(0.25) + 20,
    ])  # fmt: skip
    photons *= body
    for c in range(len(photons)):
        sharp = ndimage.gaussian_filter(photons[c], (1.5, 1.0, 1.0), truncate=3)
        haze = ndimage.uniform_filter(ndimage.uniform_filter(photons[c], (7, 11, 11)), (7, 11, 11))
        photons[c] = (0.85 * sharp + 0.15 * haze) * np.exp(-0.02 * z) + 12
    labels, nuclei = _number(rng, owner, nuclear, least=5000)
    return _camera(rng, photons), labels, nuclei


def _scatter(rng: Rng, shape: tuple[int, int], count: int) -> npt.NDArray[np.float64]:
    """Points (y, x) in patches, no two nearer than 47 px, `count` of them at least 8 px inside the field."""
    crowd = 1 / (1 + np.exp(-2.2 * _noise(rng, shape, 60)))
    points: list[npt.NDArray[np.float64]] = []
    inside = 0
    for point in rng.uniform(0, shape, (20_000, 2)):
        if inside >= count:
            break
        far = all(np.hypot(*(point - other)) > 47 for other in points)
        if far and rng.random() < crowd[int(point[0]), int(point[1])]:
            points.append(point)
            inside += bool(np.all(np.minimum(point, shape - point) > _MARGIN + 8))
    return np.array(points).reshape(-1, 2)


def _noise(rng: Rng, shape: tuple[int, ...], sigma: float | Sequence[float], angle: float = 0) -> Field:
    """Gaussian random field of unit variance, smooth over `sigma` pixels, in 2D turned by `angle` radians."""
    sigmas = [sigma] * len(shape) if isinstance(sigma, int | float) else list(sigma)
    lengths = [fft.next_fast_len(n, real=True) for n in shape]
    axes = [fft.fftfreq(n) for n in lengths[:-1]] + [fft.rfftfreq(lengths[-1])]
    waves = [w.astype(np.float32) for w in np.meshgrid(*axes, indexing="ij", sparse=True)]
    if angle:
        fy, fx = waves
        waves = [fy * math.cos(turn) - fx * math.sin(turn) for turn in (angle, angle - math.pi / 2)]
    # The spectrum of white noise is white noise, so none is transformed forwards.
    field = rng.standard_normal((*lengths[:-1], lengths[-1] + 2 & ~1), dtype=np.float32).view(np.complex64)
    for s, wave in zip(sigmas, waves, strict=True):
        field *= np.exp((-2 * np.pi**2 * s**2) * wave**2)
    field = fft.irfftn(field, s=lengths)[tuple(slice(n) for n in shape)]
    return np.asarray(field / field.std(), np.float32)


def _filaments(rng: Rng, shape: tuple[int, ...], sigma: float | Sequence[float], width: float) -> Field:
    """Curved threads of height 1: where a smooth random field crosses zero (in 3D, where two do)."""
    crossing = sum(_noise(rng, shape, sigma) ** 2 for _ in range(len(shape) - 1))
    return np.asarray(np.exp(-np.asarray(crossing) / width**2), np.float32)


def _number(rng: Rng, owner: Owners, nuclear: Owners, least: int) -> tuple[Labels, Labels]:
    """Labels with gaps between ids, for the cells of which at least `least` voxels of nucleus are seen."""
    seen = np.bincount(nuclear.ravel(), minlength=int(owner.max()) + 1)
    kept = np.flatnonzero(seen[1:] >= least) + 1
    ids = np.zeros(len(seen), np.uint16)
    ids[kept] = np.cumsum(rng.choice([1, 1, 1, 2, 3], len(kept)))
    return ids[owner], ids[nuclear]


def _camera(rng: Rng, photons: Field) -> Counts:
    counts = rng.poisson(photons) + _READ_NOISE * rng.standard_normal(photons.shape, dtype=np.float32) + _OFFSET
    return np.clip(np.rint(counts), 0, _FULL_SCALE).astype(np.uint16)


def _fov_row(plate: str, well: str, site: int, treatment: str, concentration: float) -> dict[str, Any]:
    fov = f"{well}-s{site}"
    paths = (f"images/{fov}.ome.tif", f"labels/{fov}_cells.tif")
    values = (fov, *paths, plate, well, well[0], int(well[1:]), site, treatment, concentration)
    return dict(zip(_PLACE + _ORIGIN, values, strict=True))


def _write_field(folder: Path, fov: Mapping[str, Any], field: Rendered, seed: int) -> list[dict[str, Any]]:
    """Write the image and both label images of a field; returns the table rows of its cells."""
    image, labels, nuclei = field
    channels, voxel = (CHANNELS_2D, VOXEL_2D[1:]) if labels.ndim == 2 else (CHANNELS_3D, VOXEL_3D)
    axes = "ZYX"[-labels.ndim :]
    metadata: dict[str, Any] = {
        "axes": "C" + axes,
        "Name": fov["fov_id"],
        "Creator": "cellcube demo",
        "UUID": str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"cellcube-demo/{seed}/{fov['fov_id']}")
        ),  # else a new one each time
        "Channel": {"Name": list(channels)},
        "SignificantBits": 12,
    }
    for axis, length in zip(axes, voxel, strict=True):
        metadata |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "µm"}
    _write_tiff(folder / fov["fov_path"], image, metadata)
    _write_tiff(folder / fov["label_path"], labels, {"axes": axes})
    _write_tiff(folder / fov["label_path"].replace("_cells", "_nuclei"), nuclei, {"axes": axes})
    present = [i for i in np.unique(labels).tolist() if i > 0]
    return [{"cell_id": f"{fov['fov_id']}-{label:04d}", "label": label, **fov} for label in present]


def _write_tiff(path: Path, pixels: Counts, metadata: Mapping[str, Any]) -> None:
    coding = {"compression": "zlib", "compressionargs": {"level": 4}, "predictor": True, "maxworkers": 1}
    ome = "UUID" in metadata
    tifffile.imwrite(path, pixels, ome=ome, metadata=metadata, photometric="minisblack", software=False, **coding)
