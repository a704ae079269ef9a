"""Functions of the user's own: called so that what goes wrong names the cell and the stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellcube.errors import UserFunctionError
from cellcube.functions import UserFunction


def call(stage: str, function: UserFunction, row: Mapping[str, Any], *arguments: Any) -> Any:
    """What a function returns.

    Parameters
    ----------
    stage : str
        Field of the spec that holds the function.
    function : UserFunction
    row : mapping
        Of the cell.
    *arguments
        Of the function.

    Raises
    ------
    UserFunctionError
        Where it raises anything.
    """
    try:
        return function(*arguments)
    except Exception as error:
        raise UserFunctionError(
            f"{stage}: {function.name} raised {type(error).__name__}: {error}.", cell_id=str(row["cell_id"])
        ) from error
