"""Memory of batches that nobody holds any more, used again."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

_Block = npt.NDArray[np.uint8]


class _Loan:
    """What an array is made over: gives the memory back when the last array over it is gone."""

    def __init__(self, block: _Block, free: deque[_Block]) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._block)


class Recycled:
    """Gives arrays whose memory comes back when no array over it is left, for the next one of the same size.

    A large array of new memory costs its size in pages that the system has to clear first.

    Parameters
    ----------
    keep : int
        Blocks that are kept at most.
    """

    def __init__(self, keep: int = 2) -> None:
        # Appending to a full deque drops what is at the other end; both its methods are safe to call from any thread.
        self._free: deque[_Block] = deque(maxlen=keep)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array whose values are whatever was there before.

        Parameters
        ----------
        shape : tuple of int
        dtype : dtype

        Returns
        -------
        ndarray, shape `shape`
            C-contiguous and writable.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        block = None
        with contextlib.suppress(IndexError):
            block = self._free.pop()
        if block is None or block.nbytes != size:
            block = np.empty(size, np.uint8)
        return np.asarray(_Loan(block, self._free)).view(dtype).reshape(shape)
