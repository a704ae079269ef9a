"""What all parts of a spec are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cellcube.functions import UserFunction

Size = Annotated[int, Field(ge=1, le=65_536)]
Micrometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Value(BaseModel):
    """Frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def is_function(value: Any) -> bool:
    """Whether a value of a YAML file stands for a function of the user's own."""
    return isinstance(value, Mapping) and "function" in value and set(value) <= {"function", "digest"}


def described(value: Any) -> Any:
    """A callable, or a mapping that names one, as a `UserFunction`; all else as it is."""
    if callable(value) and not isinstance(value, UserFunction | BaseModel | type(None)):
        return UserFunction.of(value)
    return UserFunction.load(str(value["function"])) if is_function(value) else value


def plain(value: Any) -> Any:
    """A value of a spec as JSON and YAML can hold it."""
    if isinstance(value, UserFunction):
        return {"function": value.name, "digest": value.digest}
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def functions_in(value: Any, place: str = "") -> dict[str, UserFunction]:
    """User functions anywhere in a value, by the place that holds them, such as ``normalize.DNA``."""
    if isinstance(value, UserFunction):
        return {place: value}
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {}
    return {
        where: function
        for name, each in value.items()
        for where, function in functions_in(each, f"{place}.{name}".lstrip(".")).items()
    }
