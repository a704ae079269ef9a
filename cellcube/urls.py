"""Paths and URLs as text: protocols, joining, and what of them may be written down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

StorageOptions = Mapping[str, Any]

# What may be written down about storage options. Everything else could be a secret.
_PUBLIC_OPTIONS = {"anon", "endpoint_url", "requester_pays", "region_name"}
_SECRET_PARAMETER = re.compile(
    r"sig|token|key|secret|credential|password|passwd|auth|^x-amz-|^x-goog-|^se$|^sp$|^sv$|^expires$", re.IGNORECASE
)


def protocol_of(path: str) -> str:
    """The fsspec protocol of a path: ``"file"`` for local ones, the outermost of a chained URL.

    Examples
    --------
    >>> protocol_of("s3://bucket/a.tif"), protocol_of("/data/a.tif"), protocol_of("C:/a.tif")
    ('s3', 'file', 'file')
    """
    head, separator, _ = path.partition("://")
    if not separator:
        head, separator, _ = path.partition("::")
    if not separator or len(head) == 1:
        return "file"
    protocol = head.split("::")[0].lower()
    return "file" if protocol == "local" else protocol


def is_remote(path: str) -> bool:
    """Whether a path is a URL of something other than this machine's files."""
    return protocol_of(path) != "file"


def local_path(path: str) -> Path:
    """The local path behind a plain path or a ``file://`` URL."""
    for prefix in ("file://", "local://"):
        if path.lower().startswith(prefix):
            return Path(path[len(prefix) :])
    return Path(path)


def options_for(path: str, storage_options: StorageOptions | None) -> dict[str, Any]:
    """The storage options that apply to one path.

    Parameters
    ----------
    path : str
        Local path or URL.
    storage_options : mapping, optional
        fsspec options for every remote path, or one mapping a protocol: ``{"s3": {...}, "https": {...}}``.

    Returns
    -------
    dict
        Empty for local paths.
    """
    protocol = protocol_of(path)
    if protocol == "file" or not storage_options:
        return {}
    known = {"s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "http", "https", "ftp", "sftp", "memory", "file"}
    if set(storage_options) <= known and all(isinstance(value, Mapping) for value in storage_options.values()):
        return dict(storage_options.get(protocol, {}))
    return dict(storage_options)


def public_options(storage_options: StorageOptions | None) -> dict[str, Any]:
    """What of the storage options may be written into a dataset: no keys, no tokens, no secrets.

    Examples
    --------
    >>> public_options({"key": "AKIA", "secret": "x", "anon": False, "client_kwargs": {"region_name": "eu-west-1"}})
    {'anon': False, 'client_kwargs': {'region_name': 'eu-west-1'}}
    """
    kept: dict[str, Any] = {}
    for name, value in (storage_options or {}).items():
        if isinstance(value, Mapping):
            inner = public_options(value)
            if inner:
                kept[name] = inner
        elif name in _PUBLIC_OPTIONS and isinstance(value, str | bool | int | float):
            # An endpoint may be written without its scheme.
            text = value if not isinstance(value, str) or "://" in value else value.rpartition("@")[2]
            kept[name] = public_url(text) if isinstance(text, str) else text
    return kept


def public_url(path: str) -> str:
    """A path without user, password, signature or token.

    Examples
    --------
    >>> public_url("https://me:pw@host/a.tif?X-Amz-Signature=abc&part=1")
    'https://host/a.tif'
    >>> public_url("images/a b.tif")
    'images/a b.tif'
    """
    if "://" not in path:
        return path
    # A chained URL, such as simplecache::https://..., holds one URL a link.
    return "::".join(_public_link(link) for link in path.split("::"))


def _public_link(link: str) -> str:
    head, separator, tail = link.partition("://")
    if not separator:
        return link
    host = re.split(r"[/?#]", tail, maxsplit=1)[0]
    if "@" in host:
        tail = tail[host.rindex("@") + 1 :]
    elif "@" in tail and re.search(r":(?!\d*$)", host) and not host.startswith("["):
        # What stands where a port should is no port: a password with a character that should be quoted.
        tail = tail.rpartition("@")[2]
    for mark in "#?":
        rest, found, parameters = tail.partition(mark)
        names = [name for name, _ in parse_qsl(parameters, keep_blank_values=True)]
        if found and any(_SECRET_PARAMETER.search(name) for name in names):
            tail = rest
    return f"{head}://{tail}"


def join(base: str, path: str) -> str:
    """`path` as it is when it is absolute or a URL, otherwise seen from the folder or URL `base`."""
    if protocol_of(path) != "file" or path.lower().startswith(("file://", "local://")):
        return path
    if is_remote(base):
        if path.startswith("/"):
            return path
        head, _, tail = base.partition("://")
        # Servers refuse "..", so it is resolved here; there is nothing above the bucket or host.
        bucket, _, folder = tail.partition("/")
        inside = os.path.normpath(f"/{folder}/{path}").lstrip("/")
        return f"{head}://{bucket}/{inside}"
    if path.startswith("~/"):
        path = str(Path(path).expanduser())
    return path if Path(path).is_absolute() else os.path.normpath(local_path(base) / path)


def seen_from(base: str, text: str) -> str:
    """A text with the paths below `base` as they are seen from there.

    Examples
    --------
    >>> seen_from("/home/me/screen", "There is no file. (path '/home/me/screen/a.tif')")
    "There is no file. (path 'a.tif')"
    """
    folder = base.rstrip("/")
    return text.replace(f"{folder}/", "") if folder else text
