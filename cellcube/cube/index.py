"""An index on `cell_id` that reads the identifiers when the first cell is looked up, not when a dataset is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from xarray import Variable
from xarray.core.indexing import IndexSelResult
from xarray.indexes import Index, PandasIndex


class IdentifierIndex(Index):
    """An xarray index on one variable along one dimension, loaded at its first use.

    Parameters
    ----------
    name : str
        Of the variable.
    variable : xarray.Variable
        One-dimensional; may be lazy.
    """

    def __init__(self, name: str, variable: Variable) -> None:
        self._name = name
        self._variable = variable
        self._pandas: PandasIndex | None = None

    @classmethod
    def from_variables(cls, variables: Mapping[Any, Variable], *, options: Mapping[str, Any]) -> Self:
        """The index of exactly one variable."""
        ((name, variable),) = variables.items()
        return cls(str(name), variable)

    @property
    def _loaded(self) -> PandasIndex:
        if self._pandas is None:
            values = np.asarray(self._variable.values).astype(object)
            self._pandas = PandasIndex(values, self._variable.dims[0])
        return self._pandas

    def create_variables(self, variables: Mapping[Any, Variable] | None = None) -> dict[Any, Variable]:
        """The variable as it is, lazy."""
        return {self._name: self._variable}

    def to_pandas_index(self) -> Any:
        """The identifiers as a pandas index."""
        return self._loaded.index

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """The index of a part; None of a single cell."""
        chosen = indexers.get(self._variable.dims[0])
        if chosen is None:
            return self
        part = self._variable.isel({self._variable.dims[0]: chosen})
        return type(self)(self._name, part) if part.ndim == 1 and part.dims == self._variable.dims else None

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Where identifiers are."""
        return self._loaded.sel(labels, method, tolerance)

    def equals(self, other: Index, *, exclude: frozenset[Any] | None = None) -> bool:
        """Whether both hold the same identifiers in the same order."""
        if self is other:
            return True
        return isinstance(other, IdentifierIndex) and self._loaded.equals(other._loaded)

    def join(self, other: Self, how: Any = "inner") -> Self:
        """The identifiers of both."""
        return self._of(self._loaded.join(other._loaded, how))

    def reindex_like(self, other: Self) -> dict[Any, Any]:
        """Where the identifiers of another index are."""
        return {self._variable.dims[0]: self._loaded.index.get_indexer(other._loaded.index)}

    @classmethod
    def concat(cls, indexes: Any, dim: Any, positions: Iterable[Iterable[int]] | None = None) -> Self:
        """One index after the other."""
        first = indexes[0]
        return first._of(PandasIndex.concat([each._loaded for each in indexes], dim, positions))  # type: ignore[no-any-return]

    def rename(self, name_dict: Mapping[Any, Any], dims_dict: Mapping[Any, Any]) -> Self:
        """The same under other names."""
        name = name_dict.get(self._name, self._name)
        dim = self._variable.dims[0]
        if name == self._name and dim not in dims_dict:
            return self
        renamed = self._variable.copy(deep=False)
        renamed.dims = (dims_dict.get(dim, dim),)
        return type(self)(name, renamed)

    def _of(self, index: PandasIndex) -> Self:
        return type(self)(self._name, Variable(self._variable.dims, index.index.to_numpy(object)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}, {self._variable.sizes})"
