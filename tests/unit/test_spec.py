"""The spec: what it takes, what it refuses, and what its digest tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cellcube import CubeSpec
from cellcube.errors import SpecError
from cellcube.functions import UserFunction


def half(pixels: Any, cell: Any) -> Any:
    return pixels / 2


class Reader:
    pass


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
normalizers: Any = st.one_of(
    st.builds(
        lambda low, high: {"method": "percentile", "low": low, "high": high}, st.floats(0, 49), st.floats(50, 100)
    ),
    st.builds(lambda low, span: {"method": "range", "low": low, "high": low + span}, st.floats(-1e5, 1e5), st.just(7)),
    st.just({"method": "minmax"}),
    st.just({"method": "trans", "scope": {"by": "plate", "where": "role == 'control'"}}),
    st.just({"method": "percentile", "scope": "dataset"}),
)
fields: Any = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,8})?", fullmatch=True),
        "description": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "licence": st.none() | st.sampled_from(["CC-BY-4.0", "null", "0x1F", "2024-01-01", "yes"]),
        "channels": st.none()
        | st.lists(names | st.integers(0, 9), min_size=1, max_size=4, unique_by=str)
        | st.dictionaries(names, names, min_size=1, max_size=3)
        | st.dictionaries(names, st.integers(0, 9), min_size=1, max_size=3),
        "columns": st.dictionaries(names, names, max_size=3),
        "axes": st.none() | st.sampled_from(["CYX", "yx", "TCZYX"]),
        "label_channel": st.none() | names | st.integers(0, 5),
        "fov_voxel_size": st.none() | st.tuples(*[st.floats(1e-3, 100)] * 3),
        "shape": st.tuples(*[st.integers(1, 65_536)] * 3),
        "voxel_size": st.none() | st.tuples(st.none() | st.floats(1e-3, 100), *[st.floats(1e-3, 100)] * 2),
        "edge": st.sampled_from(["pad", "drop", "shift", "flag"]),
        "oversize": st.sampled_from(["crop", "drop", "shrink"]),
        "mask": st.sampled_from(["none", "label", {"method": "soft", "by": 2}, {"DNA": "label"}]),
        "neighbours": st.sampled_from(["keep", "remove"]),
        "align": st.sampled_from(["none", "major_axis"]),
        "measure": st.none() | st.just({"function": f"{__name__}:half"}),
        "split": st.none() | st.just({"by": "well", "fractions": {"train": 0.75, "test": 0.25}}),
        "representations": st.dictionaries(
            st.just("raw"), st.fixed_dictionaries({}, optional={"normalize": st.just("none"), "mask": st.just("label")})
        ),
        "normalize": st.sampled_from(["none", "minmax", None, {"function": f"{__name__}:half"}]) | normalizers,
        "dtype": st.sampled_from([None, "uint8", "uint16", "float16", "float32"]),
        "projections": st.lists(st.sampled_from(["max_z", "mean_y", "sum_x", "min_z"]), max_size=3),
        "drop": st.none() | st.just("area_um2 < 20 or touches_border"),
        "cell_axis": st.sampled_from(["cell", "t"]),
        "storage": st.fixed_dictionaries({}, optional={"chunk_cells": st.integers(1, 9), "codec": st.just("zstd")}),
    },
)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are imported by path; a spec names its function by its module."""
    import sys

    module = type(sys)(__name__)
    module.half = half  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, __name__, module)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_fields=fields)
def test_yaml_round_trip(tmp_path: Path, given_fields: dict[str, Any]) -> None:
    spec = CubeSpec(**given_fields)
    spec.to_yaml(tmp_path / "spec ü.yaml")
    again = CubeSpec.from_yaml(tmp_path / "spec ü.yaml")
    assert again == spec
    assert again.digest == spec.digest
    assert again.identity() == spec.identity()
    assert list(again.channels or ()) == list(spec.channels or ())
    assert spec.differences(again.identity()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_fields=fields, seed=st.randoms())
def test_digest_does_not_depend_on_the_order_of_fields(given_fields: dict[str, Any], seed: Any) -> None:
    shuffled = list(given_fields.items())
    seed.shuffle(shuffled)
    assert CubeSpec(**dict(shuffled)).digest == CubeSpec(**given_fields).digest


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\ufeff", "\x00", "😀", "a: b # c", "- x", "'\"", "\n\n ", "\ufffe"]
)
def test_awkward_text_survives_yaml(tmp_path: Path, text: str) -> None:
    spec = CubeSpec(description=text, channels=[text], columns={text: text})
    spec.to_yaml(tmp_path / "spec.yaml")
    assert CubeSpec.from_yaml(tmp_path / "spec.yaml") == spec


def test_defaults() -> None:
    assert CubeSpec().to_dict() == {
        "name": "cells",
        "description": None,
        "licence": None,
        "authors": [],
        "doi": None,
        "citation": None,
        "keywords": [],
        "channels": None,
        "columns": {},
        "reader": "auto",
        "axes": None,
        "label_axes": None,
        "label_channel": None,
        "fov_voxel_size": None,
        "label_images": {},
        "illumination": {},
        "voxel_size": None,
        "order": 1,
        "shape": [1, 96, 96],
        "shape_percentile": 95.0,
        "edge": "pad",
        "oversize": "crop",
        "align": "none",
        "flip": None,
        "preprocess": None,
        "mask": "none",
        "neighbours": "keep",
        "normalize": {"method": "percentile", "low": 1.0, "high": 99.9, "scope": "cell"},
        "dtype": None,
        "projections": ["max_z"],
        "saturation": None,
        "channel_measures": True,
        "measure": None,
        "drop": None,
        "representations": {},
        "split": None,
        "cell_axis": "cell",
        "storage": {
            "chunk_cells": 1,
            "shard_mb": 64.0,
            "codec": "blosc-zstd",
            "level": 1,
            "shuffle": "bitshuffle",
        },
    }


def test_digest_is_pinned() -> None:
    # A published dataset can be appended to only while this stays. Change it with a new format.
    spec = CubeSpec(channels=["DNA", "ER"], shape=(1, 64, 64), normalize={"method": "range", "low": 0, "high": 4095})
    assert CubeSpec().digest == "aff350e8cd3101799ef4b29be08da99a37611ce7810781f9bb80725670711381"
    assert spec.digest == "785e6b8c8d48053522ea31b28e748c04b3e8b2b1743cfd6a0b38e231f8e42bcd"


def test_what_describes_does_not_count() -> None:
    described = CubeSpec(name="lab/project", description="new", licence="CC0-1.0", columns={"cell_id": "Id"})
    orcid = "https://orcid.org/0000-0002-1825-0097"
    described = described.replace(authors=["A B", {"name": "C", "orcid": orcid}], doi="https://doi.org/10.5281/z.1")
    assert described.to_dict()["authors"][1] == {"name": "C", "orcid": "0000-0002-1825-0097", "affiliation": None}
    assert described.doi == "10.5281/z.1"
    assert described.digest == CubeSpec().digest
    assert described.differences(CubeSpec().identity()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": ["DNA"]},
        {"shape": (1, 96, 97)},
        {"edge": "drop"},
        {"normalize": "none"},
        {"normalize": {"method": "percentile", "low": 2}},
        {"normalize": half},
        {"dtype": "float16"},
        {"projections": []},
        {"storage": {"codec": "none"}},
        {"storage": {"level": 3}},
        {"storage": {"shuffle": "noshuffle"}},
        {"drop": "oversize"},
        {"cell_axis": "t"},
        {"axes": "CYX"},
        {"reader": "bioio"},
        {"voxel_size": (1, 0.5, 0.5)},
        {"neighbours": "remove"},
        {"mask": {"method": "soft", "by": 3}},
        {"align": "major_axis"},
        {"normalize": {"method": "percentile", "scope": "fov"}},
        {"representations": {"raw": {"normalize": "none"}}},
        {"preprocess": half},
        {"order": 3},
    ],
)
def test_what_decides_pixels_counts(changed: dict[str, Any]) -> None:
    spec = CubeSpec(**changed)
    assert spec.digest != CubeSpec().digest
    ((name, before, now),) = spec.differences(CubeSpec().identity())
    assert name in changed
    assert before != now


def test_the_order_of_channels_counts() -> None:
    one = CubeSpec(channels={"DNA": "dna", "ER": "er"})
    other = CubeSpec(channels={"ER": "er", "DNA": "dna"})
    assert one.digest != other.digest
    assert [name for name, *_ in one.differences(other.identity())] == ["channels"]
    assert CubeSpec(channels=["DNA", "ER"]).digest != CubeSpec(channels=["ER", "DNA"]).digest


def test_functions_count_by_their_source() -> None:
    def scaled(factor: int) -> Any:
        return lambda pixels, cell: pixels * factor

    spec = CubeSpec(normalize=half, reader=Reader)
    assert spec.functions()["normalize"].source == "def half(pixels: Any, cell: Any) -> Any:\n    return pixels / 2"
    assert set(spec.functions()) == {"normalize", "reader"}
    assert spec.to_dict()["normalize"] == {"function": f"{__name__}:half", "digest": UserFunction.of(half).digest}
    assert CubeSpec(normalize=scaled(1)).digest != CubeSpec(normalize=scaled(2)).digest
    assert CubeSpec(normalize=scaled(1)).digest == CubeSpec(normalize=scaled(1)).digest


def test_function_by_name() -> None:
    assert CubeSpec(normalize={"function": f"{__name__}:half"}) == CubeSpec(normalize=half)


def test_short_forms() -> None:
    assert CubeSpec(normalize="none").keeps_raw
    assert CubeSpec(normalize=None) == CubeSpec(normalize={"method": "none"})
    assert CubeSpec(normalize={"DNA": "minmax", "ER": {"method": "range", "low": 0, "high": 1}}).to_dict()[
        "normalize"
    ] == {
        "DNA": {"method": "minmax", "scope": "cell"},
        "ER": {"method": "range", "low": 0.0, "high": 1.0},
    }
    assert CubeSpec(projections="max_z").projections == ("max_z",)
    assert CubeSpec(projections=None).projections == ()
    assert CubeSpec(projections=["max_z", "max_z"]).projections == ("max_z",)
    assert CubeSpec(axes="czyx").axes == "CZYX"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("shape", 96, "shape: give three whole numbers.*z = 1.*got 96"),
        ("shape", (1, 96.5, 96), r"shape: give three whole numbers.*\(1, 96.5, 96\)"),
        ("shape", (96, 96), r"shape: give three.*\(96, 96\)"),
        ("shape", (0, 96, 96), "from 1 to 65536"),
        ("shape", "car", "got 'car'"),
        ("shape", (1, 10**9, 1), "from 1 to 65536"),
        ("channels", "DNA", "channels: give a list of names or indices.*got 'DNA'"),
        ("channels", [], "at least one channel"),
        ("channels", {}, "at least one channel"),
        ("channels", ["DNA", "DNA"], "named twice: DNA"),
        ("channels", [True], "true and false"),
        ("channels", {"DNA": True}, "true and false"),
        ("channels", {"DNA": 1.5}, "channels: give"),
        ("channels", [""], "channels: give"),
        ("normalize", "percentiel", "no method 'percentiel'.*Did you mean 'percentile'"),
        ("normalize", {"method": "percentile", "lo": 1}, "unknown key 'normalize.lo'. Did you mean 'low'"),
        ("normalize", {"method": "percentile", "low": 99, "high": 1}, "low.*must be below high"),
        ("normalize", {"method": "percentile", "high": 101}, "normalize.high.*less than or equal to 100"),
        ("normalize", {"method": "range", "low": 0, "high": float("inf")}, "finite"),
        ("normalize", {"method": "range"}, "normalize.low is needed; normalize.high is needed"),
        ("normalize", {"DNA": {"metod": "minmax"}}, "normalize.DNA: give a method"),
        ("normalize", {"DNA": 5}, "normalize.DNA: give a normalizer"),
        ("normalize", {"DNA": "none", "ER": "minmax"}, "either all channels or none"),
        ("normalize", {}, "give one normalizer"),
        ("normalize", 3, "normalize: give a normalizer"),
        ("normalize", {"function": "no_such_package:f"}, "'no_such_package:f' cannot be imported"),
        ("normalize", {"function": 3}, "cannot be imported"),
        ("dtype", "int32", "'uint8', 'uint16', 'float16' or 'float32'.*got 'int32'"),
        ("projections", ["max_q"], "<max|mean|sum|min>_<z|y|x>"),
        ("projections", 3, "projections: give a list"),
        ("edge", "mirror", "'pad', 'drop', 'shift' or 'flag'"),
        ("storage", {"chunk_cell": 1}, "unknown key 'storage.chunk_cell'. Did you mean 'chunk_cells'"),
        ("storage", {"shard_mb": 0}, "storage.shard_mb.*greater than 0"),
        ("storage", 3, "storage"),
        ("axes", "C", "such as 'CYX'"),
        ("axes", 5, "such as 'CYX'"),
        ("fov_voxel_size", (0, 1, 1), "three positive numbers in µm"),
        ("fov_voxel_size", (1, 1, float("nan")), "three positive numbers in µm"),
        ("voxel_size", (1, 1, 0), "voxel_size: give three positive numbers"),
        ("voxel_size", (1, None, 1), "z may be null"),
        ("normalize", {"method": "zscore", "scope": "plate"}, "'cell', 'fov' or 'dataset'"),
        ("normalize", {"method": "zscore", "scope": {"column": "plate"}}, "unknown key 'normalize.scope.column'"),
        ("normalize", {"method": "zscore", "scope": {}}, "for all fields, write 'dataset'"),
        ("normalize", {"method": "img_bg_sub", "scope": "fov"}, "normalize.scope.*'cell'"),
        ("mask", "nucleus", "mask: give 'none', 'label'.*got 'nucleus'"),
        ("mask", {"method": "dilated"}, "mask 'dilated' needs 'by'"),
        ("mask", {"method": "label", "by": 2}, "mask 'label' has no 'by'"),
        ("mask", {"method": "label", "labels": "nucleus"}, "no label image 'nucleus'.*label_images"),
        ("mask", {"DNA": {"method": "label", "label": "nucleus"}}, "unknown key.*Did you mean 'labels'"),
        ("mask", {}, "give one mask"),
        ("mask", "soft", r"'soft' needs a distance in voxels, such as \{method: soft, by: 3\}"),
        ("flip", "DNA", "flip: cells are mirrored only where they are aligned"),
        ("align", "minor_axis", "align: give 'none', 'major_axis' or a function"),
        ("split", {"by": "well", "fractions": {"train": 0.8}}, "sum to 1"),
        ("split", {"by": [], "fractions": {"train": 1}}, "at least one column"),
        ("split", {"by": "well"}, "split.fractions is needed"),
        ("split", {"by": "well", "fraction": {"train": 1}}, "Did you mean 'fractions'"),
        ("representations", {"Raw": {}}, "representations"),
        ("representations", {"raw": {"normalise": "none"}}, "unknown key 'representations.raw.normalise'.*'normalize'"),
        ("representations", {"raw": {"normalize": "zscore", "dtype": "uint8"}}, "'zscore' gives values that uint8"),
        ("illumination", {"DNA": {"dark": 1}}, "illumination.DNA.*give either 'flat'.*or 'gain'"),
        ("illumination", {"DNA": {"flat": "a", "gain": "b"}}, "illumination.DNA.*give either 'flat'.*or 'gain'"),
        ("measure", "area", "measure: give a function"),
        ("authors", [{"name": "A", "orcid": "0000-0002-1825-0098"}], "authors.*not an ORCID"),
        ("authors", [{"name": "A", "orcid": "1825"}], "authors.*orcid"),
        ("authors", [{"orcid": None}], "authors.*name is needed"),
        ("doi", "zenodo.1234", "doi: give a DOI"),
        ("name", "a b", "owner/project"),
        ("name", None, "owner/project"),
        ("name", "../up", "owner/project"),
        ("reader", 3, "reader: give the name of a reader"),
        ("columns", ["a"], "columns: give a mapping"),
        ("columns", {"cell_id": 3}, "columns: give a mapping"),
        ("chanels", ["DNA"], "unknown key 'chanels'. Did you mean 'channels'"),
        ("description", 4, "description.*string"),
    ],
)
def test_bad_value(field: str, value: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        CubeSpec(**{field: value})
    text = str(caught.value)
    assert field in text
    # The words of the validator, which mean nothing to who writes a spec.
    assert not any(word in text for word in ("pydantic", "constrained", "tuple", "discriminator", "UserFunction"))


def test_all_problems_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        CubeSpec(shap=1, edge="mirror", dtype="int32")
    assert all(word in str(caught.value) for word in ("shap", "edge", "dtype"))


def test_normalizers_must_be_those_of_the_channels() -> None:
    with pytest.raises(SpecError, match="one normalizer for each of the channels DNA, ER"):
        CubeSpec(channels=["DNA", "ER"], normalize={"DNA": "minmax"})


def test_statistics_of_fields_do_not_go_with_a_function_that_changes_crops() -> None:
    with pytest.raises(SpecError, match="preprocess: it changes crops"):
        CubeSpec(preprocess=half, normalize={"method": "percentile", "scope": "fov"})
    with pytest.raises(SpecError, match="preprocess: it changes crops"):
        CubeSpec(preprocess=half, representations={"z": {"normalize": {"method": "zscore", "scope": "dataset"}}})
    assert CubeSpec(preprocess=half, normalize="percentile").functions()["preprocess"].function is half


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CubeSpec().edge = "drop"


def test_replace_validates_and_keeps_the_rest() -> None:
    spec = CubeSpec(shape=(1, 32, 32), channels=["DNA"], normalize=half)
    other = spec.replace(edge="drop")
    assert (other.shape, other.channels, other.edge, spec.edge) == ((1, 32, 32), ("DNA",), "drop", "pad")
    assert other.functions() == spec.functions()
    with pytest.raises(SpecError, match="edge"):
        spec.replace(edge="mirror")
    with pytest.raises(SpecError, match="one normalizer for each"):
        spec.replace(normalize={"ER": "minmax"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shape: [1, 2", "not YAML"),
        ("- DNA\n- ER", "mapping of fields"),
        ("just words", "mapping of fields"),
        ("1: 2", "mapping of fields"),
        ("chanels: [DNA]", "Did you mean 'channels'"),
        ("shape: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SpecError, match=says) as caught:
        CubeSpec.from_yaml(tmp_path / "spec.yaml")
    assert caught.value.path == str(tmp_path / "spec.yaml")


def test_yaml_that_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no spec file"):
        CubeSpec.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        CubeSpec.from_yaml(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"II*\x00\xff\xfe\x00\x01")
    with pytest.raises(SpecError, match="not YAML"):
        CubeSpec.from_yaml(tmp_path / "image.yaml")


def test_empty_yaml_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("# nothing yet\n")
    assert CubeSpec.from_yaml(tmp_path / "spec.yaml") == CubeSpec()


def test_yaml_on_s3(s3: dict[str, Any]) -> None:
    from cellcube.location import Location

    Location.of("s3://bucket/spec.yaml", s3).write(CubeSpec(shape=(2, 3, 4)).to_yaml().encode())
    assert CubeSpec.from_yaml("s3://bucket/spec.yaml", s3).shape == (2, 3, 4)


def test_urls_of_illumination_images_lose_their_keys() -> None:
    signed = "https://me:pw@host/flat.tif?X-Amz-Signature=abc"
    spec = CubeSpec(illumination={"DNA": {"flat": signed, "dark": "s3://bucket/dark.tif"}})
    assert spec.illumination["DNA"].flat == signed
    shown = {"flat": "https://host/flat.tif", "gain": None, "dark": "s3://bucket/dark.tif"}
    assert spec.to_dict()["illumination"] == {"DNA": shown}
    # Another signature of the same image is the same spec.
    other = CubeSpec(illumination={"DNA": {"flat": signed.replace("abc", "def"), "dark": "s3://bucket/dark.tif"}})
    assert spec.digest == other.digest
