"""JSON as strict parsers read it; the oracle is one that refuses everything RFC 8259 does."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restain.methods.macenko import Macenko
from restain.phantom import Phantom
from restain.slides.batch import BatchSettings, normalize_file
from restain.slides.manifest import COLUMNS, Row
from restain.slides.pipeline import normalize_slide
from restain.slides.writer import PyramidSettings, write_array
from restain.strict_json import to_json


def parsed(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan"), np.float64("inf")])
def test_what_is_not_finite_becomes_null(number: float) -> None:
    facts = {"a": number, "b": [1.5, (number, {"c": number})], "d": MappingProxyType({"e": number}), "nan": "NaN"}
    assert parsed(to_json(facts)) == {"a": None, "b": [1.5, [None, {"c": None}]], "d": {"e": None}, "nan": "NaN"}
    assert parsed(to_json(number)) is None


def test_all_else_is_as_the_standard_library_writes_it() -> None:
    facts = {"text": 'é "\n', "on": True, "none": None, "whole": 2**70, "small": 1e-300, "rows": [[1, 2.5], []]}
    for indent in (None, 2):
        assert to_json(facts, indent=indent) == json.dumps(facts, indent=indent)
    assert to_json(facts).isascii()
    with pytest.raises(TypeError):
        to_json({"a": object()})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_any_value_can_be_parsed(value: Any) -> None:
    def same(one: Any, other: Any) -> bool:
        if isinstance(one, float) and not math.isfinite(one):
            return other is None
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(same, one, other))
        return type(one) is type(other) and one == other

    assert same(value, parsed(to_json(value)))


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.ome.zarr", "out.dcm", "out.png"])
def test_outputs_describe_themselves_in_json(name: str, phantom: Phantom, tmp_path: Path) -> None:
    """Also where a number is not known: what is planted here no method measures, but a caller's appearance may have."""
    if name.endswith("dcm"):
        pytest.importorskip("pydicom")
    fitted = Macenko().fit("he")
    appearance = replace(fitted.estimate(phantom.image), tissue_pixels=math.nan)
    source = tmp_path / ("in.png" if name.endswith("png") else "in.tif")
    if name.endswith("png"):
        Image.fromarray(phantom.image).save(source)
        normalize_file(source, tmp_path / name, fitted, BatchSettings(), appearance=appearance)
        with Image.open(tmp_path / name) as image:
            text = image.text["Description"]  # type: ignore[attr-defined]
    else:
        write_array(source, phantom.image, settings=PyramidSettings(tile=64), mpp=(0.5, 0.5))
        normalize_slide(source, tmp_path / name, fitted, appearance=appearance, settings=PyramidSettings(tile=64))
        text = described(tmp_path / name)
    facts = parsed(text)
    assert facts["method"] == "macenko"
    assert facts["appearance"]["tissue_pixels"] is None


def described(path: Path) -> str:
    """What an output says of itself, by readers of each format's own."""
    if path.name.endswith(".zarr"):
        return str(parsed((path / "zarr.json").read_text())["attributes"]["restain"]["description"])
    if path.suffix == ".dcm":
        from pydicom import dcmread

        return str(dcmread(path / "level-0.dcm").ImageComments)
    with tifffile.TiffFile(path) as handle:
        if not handle.is_ome:
            return handle.pages.first.description
        return str(tifffile.xml2dict(handle.ome_metadata or "")["OME"]["Image"]["Description"])


def test_a_manifest_keeps_what_is_null(tmp_path: Path) -> None:
    appearance = {"white_point": [243.0, 243.0, 243.0], "tissue_pixels": math.nan, "maximum": [1.0, math.inf]}
    row = Row(input=Path("a.tif"), output="a.tif", status="done", appearance=appearance)
    cells = row.cells()
    assert parsed(cells[COLUMNS.index("appearance")])["maximum"] == [1.0, None]
    read = Row.from_cells(cells)
    assert read.appearance["tissue_pixels"] is None
    assert read.cells() == cells
