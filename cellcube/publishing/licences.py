"""Licences by their SPDX identifiers."""

from __future__ import annotations

import re

from cellcube.errors import ArgumentError, did_you_mean

LICENCE_LIST = "https://spdx.org/licenses/"

# Those that data are usually published under; what is suggested for a text that is no identifier.
USUAL = (
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-ND-4.0",
    "ODC-By-1.0",
    "ODbL-1.0",
    "PDDL-1.0",
    "Apache-2.0",
    "BSD-3-Clause",
    "MIT",
)
_CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)(/.*)?", re.IGNORECASE)
_ZERO = re.compile(r"https?://creativecommons\.org/publicdomain/zero/(\d\.\d)(/.*)?", re.IGNORECASE)


def check_licence(text: str) -> str:
    """The SPDX expression that a text stands for, in its canonical spelling.

    Parameters
    ----------
    text : str
        An identifier or expression in any case (``cc-by-4.0``, ``MIT OR Apache-2.0``), ``LicenseRef-…`` for terms of
        one's own, or the address of a licence at spdx.org or creativecommons.org.

    Raises
    ------
    cellcube.errors.ArgumentError
        Where it is none of these.

    Examples
    --------
    >>> check_licence("cc-by-4.0"), check_licence("https://creativecommons.org/publicdomain/zero/1.0/")
    ('CC-BY-4.0', 'CC0-1.0')
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(_without_address(text.strip())))
    except InvalidLicenseExpression:
        raise ArgumentError(
            f"{text!r} is not an SPDX licence identifier.",
            remedy=did_you_mean(text, USUAL) or f"Give one of {LICENCE_LIST}, such as CC-BY-4.0 or CC0-1.0.",
        ) from None


def licence_url(licence: str) -> str | None:
    """The address of an SPDX identifier; None for expressions of several licences and terms of one's own.

    Examples
    --------
    >>> licence_url("CC-BY-4.0")
    'https://spdx.org/licenses/CC-BY-4.0'
    """
    if " " in licence or licence.startswith("LicenseRef-"):
        return None
    return f"{LICENCE_LIST}{licence}"


def _without_address(text: str) -> str:
    if found := _CREATIVE_COMMONS.fullmatch(text):
        return f"CC-{found[1]}-{found[2]}"
    if found := _ZERO.fullmatch(text):
        return f"CC0-{found[1]}"
    for start in (LICENCE_LIST, LICENCE_LIST.replace("https", "http")):
        if text.startswith(start):
            return text.removeprefix(start).rstrip("/").removesuffix(".html").removesuffix(".json")
    return text
