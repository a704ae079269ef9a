"""The claim that keeps two builds of one dataset apart."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from cellcube.errors import DatasetAccessError, DatasetBusyError
from cellcube.location import Location

BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0

# Between taking a claim over and looking whether another build did the same.
SETTLE_SECONDS = 0.2


class Claim:
    """Held while a build writes; a context manager.

    The claim is a small file that its owner renews. It is taken over when its owner runs no more: at once where that
    was a process of this machine, after `STALE_SECONDS` without renewal otherwise.

    Parameters
    ----------
    path : Location
        Where the claim lies.
    dataset : str
        For messages.

    Raises
    ------
    DatasetBusyError
        On entering, where another build holds the claim.
    DatasetAccessError
        On entering, where nothing can be written.
    """

    def __init__(self, path: Location, dataset: str) -> None:
        self._path = path
        self._dataset = dataset
        self._token = uuid.uuid4().hex
        self._started = _now()
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            taken = self._path.create(self._body())
            if not taken:
                self._take_over()
        except DatasetBusyError:
            raise
        except OSError as error:
            raise DatasetAccessError(
                f"The dataset cannot be written: {type(error).__name__}: {error}.",
                path=self._dataset,
                remedy="Check the path, the permissions and the storage options.",
            ) from error
        self._beating = threading.Thread(target=self._beat, name="cellcube-claim", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        if self._read().get("token") == self._token:
            self._path.remove()
            self._path.parent.remove_empty()

    def _take_over(self) -> None:
        try:
            other = _parsed(self._path.read())
        except FileNotFoundError:
            # The owner has just finished.
            if self._path.create(self._body()):
                return
            other = self._read()
        if other.get("token") == self._token:
            # Our own answer was lost on the way.
            return
        if not _is_dead(other):
            raise self._busy(other)
        self._path.write(self._body())
        time.sleep(SETTLE_SECONDS)
        other = self._read()
        if other.get("token") != self._token:
            raise self._busy(other)

    def _busy(self, other: dict[str, Any]) -> DatasetBusyError:
        return DatasetBusyError(
            f"Another build writes to this dataset since {other.get('started')}.",
            path=self._dataset,
            remedy=f"Wait for it, or delete {self._path.url} if it no longer runs.",
        )

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._path.write(self._body())
            except OSError:
                # The next beat may succeed; the build itself meets lasting trouble when it writes.
                continue

    def _body(self) -> bytes:
        return json.dumps(
            {
                "token": self._token,
                "machine": _machine(),
                "process": os.getpid(),
                "started": self._started,
                "renewed": _now(),
            }
        ).encode()

    def _read(self) -> dict[str, Any]:
        try:
            return _parsed(self._path.read())
        except OSError:
            return {}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _machine() -> str:
    # Enough to know one's own machine again, without telling its name to whoever can read the bucket.
    return hashlib.sha256(f"{platform.node()}-{uuid.getnode()}".encode()).hexdigest()[:16]


def _is_dead(claim: dict[str, Any]) -> bool:
    try:
        renewed = datetime.fromisoformat(claim["renewed"])
        process = int(claim["process"])
    except (KeyError, ValueError, TypeError):
        return True
    if claim.get("machine") == _machine():
        if process == os.getpid():
            return False
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    return (datetime.now(UTC) - renewed).total_seconds() > STALE_SECONDS
