"""What TIFF files tell about channels and voxel size: OME-XML, ImageJ, MetaMorph, resolution tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from cellcube.images.protocol import VoxelSize
from cellcube.images.voxels import in_micrometres, micrometres

# Resolutions that programs write when they know none: screen and print, and one pixel a unit.
_PLACEHOLDERS_DPI = (72, 96, 100, 150, 300, 600)


def describe(tif: Any, series: Any, number: int) -> tuple[tuple[str, ...] | None, VoxelSize]:
    """Channel names and voxel size of one series of an open `tifffile.TiffFile`.

    Parameters
    ----------
    tif, series : tifffile.TiffFile, tifffile.TiffPageSeries
    number : int
        Position of the series in the file.

    Returns
    -------
    names : tuple of str or None
    voxel_size : VoxelSize
        In µm; a part that the file gives as zero or nan is given as that.
    """
    if series.kind == "ome":
        image = _ome_image(tif, series, number)
        if image is not None:
            names, size = _ome_names(image), _ome_size(image)
            return names, size if size != VoxelSize() else tag_size(series.keyframe)
    if tif.is_imagej:
        return _imagej(tif, series)
    if tif.is_stk:
        return _stk(tif.stk_metadata or {}, series.keyframe)
    if tif.is_metaseries:
        return _metaseries(tif, series.keyframe)
    return None, tag_size(series.keyframe)


def tag_size(page: Any) -> VoxelSize:
    """Pixel size from the resolution tags, where their unit is a length and the value is not a placeholder."""
    unit = page.tags.valueof("ResolutionUnit")
    factor = {2: 25400.0, 3: 10000.0}.get(int(unit) if unit is not None else 0)
    if factor is None:
        return VoxelSize()
    y, x = (_per_pixel(page, tag, factor) for tag in ("YResolution", "XResolution"))
    if any(value and _placeholder(factor, value) for value in (y, x)):
        return VoxelSize()
    return VoxelSize(y=y, x=x)


def _placeholder(factor: float, size: float) -> bool:
    per_unit, dpi = factor / size, 25400.0 / size
    return abs(per_unit - 1) < 1e-6 or any(abs(dpi - known) < 0.005 * known for known in _PLACEHOLDERS_DPI)


def _per_pixel(page: Any, tag: str, factor: float) -> float | None:
    """`factor` divided by the pixels per unit of a tag; 0.0 where the tag is there and zero."""
    value = page.tags.valueof(tag)
    if value is None:
        return None
    above, below = value
    return float(factor * below / above) if above and below else 0.0


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _local(child) == name)


def _ome_root(tif: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata or "")
    except ElementTree.ParseError:
        return None


def _ome_image(tif: Any, series: Any, number: int) -> ElementTree.Element | None:
    root = _ome_root(tif)
    images = [] if root is None else list(_children(root, "Image"))
    named = [image for image in images if image.get("Name") == series.name]
    # tifffile leaves out images without data, so the number is the second best way to find one.
    found = named if len(named) == 1 else images[number : number + 1]
    pixels = list(_children(found[0], "Pixels")) if found else []
    return pixels[0] if pixels else None


def ome_files(tif: Any) -> list[str]:
    """Names of all files that the OME-XML counts as its own, in order."""
    root = _ome_root(tif)
    if root is None:
        return []
    names = (element.get("FileName") for element in root.iter() if _local(element) == "UUID")
    return list(dict.fromkeys(name for name in names if name))


def described_elsewhere(tif: Any) -> str:
    """Name of the file that describes the set an OME-TIFF is a part of, where the file itself does not; else empty."""
    root = _ome_root(tif) if tif.is_ome else None
    found = next(_children(root, "BinaryOnly"), None) if root is not None else None
    return "" if found is None else str(found.get("MetadataFile") or "another file")


def _ome_names(pixels: ElementTree.Element) -> tuple[str, ...] | None:
    channels = list(_children(pixels, "Channel"))
    if not any(channel.get("Name") for channel in channels):
        return None
    return tuple(channel.get("Name") or channel.get("ID") or f"Channel:{i}" for i, channel in enumerate(channels))


def _ome_size(pixels: ElementTree.Element) -> VoxelSize:
    def of(axis: str) -> float | None:
        text = pixels.get(f"PhysicalSize{axis}")
        try:
            value = None if text is None else float(text)
        except ValueError:
            return float("nan")
        return in_micrometres(value, pixels.get(f"PhysicalSize{axis}Unit", "µm"))

    return VoxelSize(z=of("Z"), y=of("Y"), x=of("X"))


def _imagej(tif: Any, series: Any) -> tuple[tuple[str, ...] | None, VoxelSize]:
    meta = tif.imagej_metadata or {}
    labels, channels = meta.get("Labels"), int(meta.get("channels", 1))
    names = None
    if isinstance(labels, list) and len(labels) == channels > 1 and "Z" not in series.axes:
        names = tuple(str(label) for label in labels)
    factor = micrometres(str(meta["unit"])) if "unit" in meta else None
    if "unit" not in meta:
        return names, tag_size(series.keyframe)
    if factor is None:
        return names, VoxelSize()
    spacing = meta.get("spacing")
    return names, VoxelSize(
        z=None if spacing is None else float(spacing) * factor,
        y=_per_pixel(series.keyframe, "YResolution", factor),
        x=_per_pixel(series.keyframe, "XResolution", factor),
    )


def _stk(meta: dict[str, Any], page: Any) -> tuple[tuple[str, ...] | None, VoxelSize]:
    name = str(meta.get("Name") or "").strip()
    unit = str(meta.get("CalibrationUnits") or "")
    if not meta.get("SpatialCalibration") or micrometres(unit) is None:
        return (name,) if name else None, tag_size(page)
    steps = meta.get("ZDistance")
    distances = [] if steps is None else [float(step) for step in steps]
    return (name,) if name else None, VoxelSize(
        z=in_micrometres(distances[0], unit) if len(distances) > 1 and distances[0] else None,
        y=in_micrometres(meta.get("YCalibration"), unit),
        x=in_micrometres(meta.get("XCalibration"), unit),
    )


def _metaseries(tif: Any, page: Any) -> tuple[tuple[str, ...] | None, VoxelSize]:
    plane = (tif.metaseries_metadata or {}).get("PlaneInfo", {})
    name = str(plane.get("image-name") or "").strip()
    unit = str(plane.get("spatial-calibration-units") or "")
    if not plane.get("spatial-calibration-state") or micrometres(unit) is None:
        return (name,) if name else None, tag_size(page)
    return (name,) if name else None, VoxelSize(
        y=in_micrometres(plane.get("spatial-calibration-y"), unit),
        x=in_micrometres(plane.get("spatial-calibration-x"), unit),
    )
