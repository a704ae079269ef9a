"""Who made a dataset."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from cellcube.spec.values import Name, Value


class Author(Value):
    """An author.

    Parameters
    ----------
    name : str
    orcid : str, optional
        Such as ``0000-0002-1825-0097``; its last character is checked (ISO 7064, mod 11-2).
    affiliation : str, optional
    """

    name: Name
    orcid: Annotated[str, Field(pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")] | None = None
    affiliation: Name | None = None

    @field_validator("orcid", mode="before")
    @classmethod
    def _without_host(cls, value: Any) -> Any:
        return value.rpartition("/")[2] if isinstance(value, str) else value

    @field_validator("orcid")
    @classmethod
    def _checked(cls, value: str | None) -> str | None:
        if value is not None and _check_character(value) != value[-1]:
            raise ValueError("this is not an ORCID: its last character does not fit the others")
        return value


def _check_character(orcid: str) -> str:
    total = 0
    for digit in orcid[:-1].replace("-", ""):
        total = (total + int(digit)) * 2
    rest = (12 - total % 11) % 11
    return "X" if rest == 10 else str(rest)
