"""What tests of builds share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def small_jobs() -> Iterator[None]:
    """Jobs of one FOV, so that few cells make many."""
    patch = pytest.MonkeyPatch()
    patch.setattr("cellcube.plan.jobs.JOB_FOVS", 1)
    yield
    patch.undo()
