"""From stored pixels back to intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellcube.errors import ArgumentError, did_you_mean
from cellcube.pixels.normalize import stored_scale

if TYPE_CHECKING:
    import xarray as xr

# ``x = low + y * (high - low)``
LINEAR = ("percentile", "minmax", "range", "zscore", "robust_zscore", "trans")
# All these rise with the intensity, so the highest of several stored pixels is that of the highest intensity.
CURVED = ("arcsinh", "log")
MONOTONE = (*LINEAR, *CURVED)
_MAIN = "cells"


def denormalize(dataset: xr.Dataset, variable: str = _MAIN) -> xr.DataArray:
    """Intensities of stored pixels: normalization undone, lazily.

    With ``y = stored / scale``, where `scale` is 1 for floats and the highest value of an integer type:
    ``low + y * (high - low)`` for ``percentile``, ``minmax``, ``range``, ``zscore``, ``robust_zscore`` and ``trans``;
    ``offset + cofactor * sinh(y)`` for ``arcsinh``; ``exp(y) - offset`` for ``log``; the pixel itself for ``none``.

    Intensities are exact within half a step of the stored type. Clipped pixels come back as the bound that they were
    clipped to, and voxels outside of the image or of a mask, which are stored as 0, as the intensity that 0 stands for.

    Parameters
    ----------
    dataset : xarray.Dataset
        With `variable`, and with ``norm_low`` and ``norm_high`` along cells and ``c``; or ``norm_low_<name>`` and
        ``norm_high_<name>`` for another representation than ``cells``.
    variable : str
        A representation, such as ``cells``; or a projection of one: ``max`` and ``min``, and ``mean`` where the
        normalization is linear. Its attributes say how it was normalized: ``normalization``, a list with one mapping a
        channel; ``soft_mask``; ``projection`` and ``representation``. Where all these mappings name their ``channel``,
        some of the channels may have been selected.

    Returns
    -------
    xarray.DataArray
        Of the shape, name and coordinates of `variable`, in float64: float32 holds a 16-bit intensity, but not the
        steps of `uint16` between two that are close to each other. With method ``none``, in the stored type. What is a
        dask array stays one, with the same chunks, and nothing is read.

    Raises
    ------
    ArgumentError
        Where there is no such variable, or no inverse: the message says why.
    """
    if variable not in dataset.variables:
        raise ArgumentError(
            f"The dataset has no variable {variable!r}.",
            remedy=did_you_mean(variable, [str(name) for name in dataset.data_vars]) or None,
        )
    stored = dataset[variable]
    rules, names = _rules(stored, variable)
    methods = [rule.get("method") for rule in rules]
    if stored.attrs.get("soft_mask"):
        raise ArgumentError(
            f"{variable!r} cannot be denormalized: its pixels were multiplied by a soft mask, which is not stored.",
            remedy="Build with the mask 'label' or 'dilated'.",
        )
    if all(method == "none" for method in methods):
        raw = stored.copy(deep=False)
        raw.attrs = {"long_name": "intensity"}
        return raw
    kind = str(stored.attrs["projection"]).partition("_")[0] if "projection" in stored.attrs else None
    for rule, name in zip(rules, names, strict=True):
        _refuse(rule, name, variable, kind, stored)
    low, high = (_bounds(dataset, stored, variable, bound) for bound in ("norm_low", "norm_high"))
    values = _inverted(stored, rules, low, high, _scale(dataset, stored, variable, kind))
    found = stored.copy(deep=False, data=values.transpose(*stored.dims).data)
    found.attrs = {"long_name": "intensity"}
    found.encoding = {}
    return found


def _rules(stored: xr.DataArray, variable: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """How each channel of a variable was normalized, and what it is called."""
    rules = stored.attrs.get("normalization")
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ArgumentError(
            f"{variable!r} does not say how it was normalized.",
            remedy="Take a variable of pixels from a dataset as cellcube opens it, with its attributes.",
        )
    rules = list(rules)
    count = stored.sizes.get("c", 1)
    names = [str(name) for name in np.atleast_1d(stored["c"].values)] if "c" in stored.coords else None
    if names is not None and all("channel" in rule for rule in rules):
        by_name = {str(rule["channel"]): rule for rule in rules}
        if set(names) <= set(by_name):
            return [by_name[name] for name in names], names
    if len(rules) != count:
        raise ArgumentError(
            f"{variable!r} has {count} channels, and the normalization of {len(rules)}.",
            remedy="Denormalize first, then select channels.",
        )
    return rules, names or [str(number) for number in range(count)]


def _refuse(rule: Mapping[str, Any], name: str, variable: str, kind: str | None, stored: xr.DataArray) -> None:
    """Raise where the normalization of a channel has no inverse."""
    method = rule.get("method")
    if "function" in rule:
        why = f"the function {rule['function']} of the user's own normalized it, and its inverse is not known"
    elif method == "img_bg_sub":
        why = "img_bg_sub smooths, and smoothing loses information"
    elif method not in MONOTONE:
        why = f"the method {method!r} is not one that this version of cellcube can undo"
    elif kind in (None, "max", "min") or (kind == "mean" and method in LINEAR):
        return
    elif kind in ("sum", "mean"):
        why = f"the {kind} of pixels normalized by {method} is not that of a {kind} of intensities"
    else:
        why = f"{stored.attrs['projection']} is a projection of the user's own"
    raise ArgumentError(
        f"{variable!r} cannot be denormalized: channel {name!r}: {why}.",
        remedy="Build another representation with normalize='none' to keep intensities.",
    )


def _bounds(dataset: xr.Dataset, stored: xr.DataArray, variable: str, bound: str) -> xr.DataArray:
    """Low or high of a variable, as a dask array where its pixels are one."""
    representation = stored.attrs.get("representation", variable)
    own = f"{bound}_{representation}"
    name = own if representation != _MAIN and own in dataset.variables else bound
    if name not in dataset.variables:
        raise ArgumentError(
            f"The dataset has no {name!r}, which {variable!r} was normalized with.", remedy="Do not drop it."
        )
    found = dataset[name]
    if stored.chunks is None or found.chunks is not None:
        return found
    # A coordinate that is not yet read would be read by the arithmetic.
    return found.chunk({axis: stored.chunksizes[axis] for axis in found.dims if axis in stored.chunksizes})


def _scale(dataset: xr.Dataset, stored: xr.DataArray, variable: str, kind: str | None) -> float:
    """The stored value that stands for 1; means are floats in the steps of what they are means of."""
    if kind != "mean":
        return stored_scale(stored.dtype)
    representation = str(stored.attrs.get("representation", _MAIN))
    if representation not in dataset.variables:
        raise ArgumentError(
            f"{variable!r} is a mean of {representation!r}, which is not in the dataset.", remedy="Do not drop it."
        )
    return stored_scale(dataset[representation].dtype)


def _inverted(
    stored: xr.DataArray, rules: Sequence[Mapping[str, Any]], low: xr.DataArray, high: xr.DataArray, scale: float
) -> xr.Variable:
    import xarray as xr

    along = ("c",) if "c" in stored.dims else ()

    def parameters(values: Sequence[float]) -> xr.DataArray:
        return xr.DataArray(np.asarray(values, np.float64) if along else np.float64(values[0]), dims=along)

    curves = parameters([CURVED.index(rule["method"]) + 1 if rule["method"] in CURVED else 0 for rule in rules])
    cofactors = parameters([float(rule.get("cofactor", 1)) for rule in rules])
    offsets = parameters([float(rule.get("offset", 0)) for rule in rules])
    # Variables, because indexes along cells that are the same need not be compared.
    given = [each.variable for each in (stored, low, high, curves, cofactors, offsets)]
    found: xr.Variable = xr.apply_ufunc(
        _intensities, *given, kwargs={"scale": scale}, dask="parallelized", output_dtypes=[np.float64]
    )
    return found


def _intensities(
    stored: npt.NDArray[Any],
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    curves: npt.NDArray[Any],
    cofactors: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    *,
    scale: float,
) -> npt.NDArray[np.float64]:
    """The formulas, for arrays that broadcast; `curves` is 0 for linear, 1 for arcsinh, 2 for log."""
    values = stored.astype(np.float64)
    if scale != 1:
        values /= scale
    curves, cofactors, offsets = (np.broadcast_to(each, values.shape) for each in (curves, cofactors, offsets))
    found: npt.NDArray[np.float64] = low + values * (high - low)
    for number, curve in ((1, np.sinh), (2, np.exp)):
        where = curves == number
        if where.any():
            bent = curve(values[where])
            found[where] = offsets[where] + cofactors[where] * bent if number == 1 else bent - offsets[where]
    return found
