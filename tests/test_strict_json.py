"""JSON as strict parsers read it; the oracle is one that refuses everything RFC 8259 does."""

import json
import math
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
