"""What the datasets of these tests are made with."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "name": "lab/nuclei",
    "description": "Nuclei of a synthetic plate.",
    "licence": "CC0-1.0",
    "authors": ["Ada Lovelace"],
    "doi": "10.1234/nuclei",
    "channels": ["DNA", "ER"],
    "shape": (1, 32, 32),
    "storage": {"shard_mb": 0.02},
    "progress": False,
}
FIRST = 7
