"""The dataset card of an export to Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from cellcube.export.selection import Selection

# Licences that the Hub has a name for, which is that of SPDX in lower case.
_LICENCES = {
    "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-2.0", "cc-by-sa-4.0",
    "cc-by-sa-3.0", "cc-by-nc-4.0", "cc-by-nc-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0",
    "gpl-3.0", "mit", "odbl", "pddl",
}  # fmt: skip
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGEST = "10M<n<100M"


def dataset_card(selection: Selection, splits: Sequence[str], pixels: bool) -> str:
    """A card: YAML that the Hub reads, then text.

    Parameters
    ----------
    selection : Selection
    splits : sequence of str
        Names, as they stand in those of the files.
    pixels : bool
        Whether the rows have all voxels.
    """
    attributes = selection.state.attributes
    spec: dict[str, Any] = attributes["spec"]
    licence, keywords = attributes["licence"], list(spec.get("keywords") or [])
    head: dict[str, Any] = {"pretty_name": attributes["name"]}
    if licence:
        known = licence.lower() in _LICENCES
        head["license"] = licence.lower() if known else "other"
        if not known:
            head["license_name"] = "-".join(licence.lower().split())
    head["tags"] = list(dict.fromkeys(["biology", "microscopy", "single-cell", *keywords]))
    head["task_categories"] = ["image-feature-extraction"]
    head["size_categories"] = [next((name for most, name in _SIZES if len(selection) < most), _LARGEST)]
    files = [{"split": split, "path": f"data/{split}-*"} for split in splits]
    head["configs"] = [{"config_name": "default", "data_files": files}]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    size = " x ".join(map(str, selection.item[1:]))
    lines = [
        f"---\n{front}---\n",
        f"# {attributes['name']}\n",
        f"{attributes['description'] or 'Single-cell images cut from microscopy fields of view.'}\n",
        "| | |",
        "|---|---|",
        f"| cells | {len(selection):,} |",
        f"| channels | {', '.join(selection.channels)} |",
        f"| crop | {size} voxels (z, y, x), variable `{selection.variable}` |",
        f"| licence | {licence or 'not stated'} |",
        *_people(spec),
        f"| made from | version {selection.version} of a [cellcube](https://pypi.org/project/cellcube/) dataset |",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'cells = load_dataset("<this folder, or owner/name on the Hub>")',
        f'cells["{splits[0]}"][0]["image"]',
        "```\n",
        "| column | meaning |",
        "|---|---|",
        "| `image` | colour composite of the cell's maximum projections |",
    ]
    if pixels:
        lines.append("| `pixels` | all voxels (c, z, y, x) |")
    lines += [f"| `{name}` | {about} |" for name, about in selection.descriptions().items()]
    return "\n".join(lines) + "\n"


def _people(spec: dict[str, Any]) -> list[str]:
    authors = [author["name"] if isinstance(author, dict) else str(author) for author in spec.get("authors") or []]
    rows = {"authors": ", ".join(authors), "DOI": spec.get("doi"), "cite as": spec.get("citation")}
    return [f"| {name} | {text} |" for name, text in rows.items() if text]
