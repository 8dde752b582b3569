"""JSON that other programs can read."""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(facts: Any, *, indent: int | None = None) -> str:
    """Plain facts (mappings, sequences, numbers, text) as JSON in ASCII.

    JSON (RFC 8259) knows neither NaN nor infinities, and strict parsers refuse all of a text for one of them. So a
    number that is not finite becomes null: there is no such number.
    """
    return json.dumps(_finite(facts), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
