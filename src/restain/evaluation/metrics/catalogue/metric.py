"""What one must know of a metric before comparing its numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Takes = Literal["pair", "image", "cohort", "cohorts", "function", "labels", "masks"]
"""What a metric is called with: (reference, image), (image), (images), (references, images), (function, batch),
(labels, predictions) or (reference mask, mask)."""

Against = Literal["source", "target", "cohort", "self", "truth", "nothing"]
"""What it may be compared with: the source, the registered target, the wanted cohort (any images of the wanted look),
the image itself before it was taken apart, a pathologist's labels, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric and what one must know of it.

    Attributes:
        function: the metric; its docstring says exactly what is computed.
        higher_is_better: None where neither way is.
        takes: what it is called with; see `Takes`.
        against: what the reference may be; see `Against`.
        wants: colour space, type, range and window of what it is computed on.
        values: the range of its values, worst to best where there is a best.
        summary: what it says, in a sentence.
        paper: where it comes from.
        takes_mask: whether it has an argument `mask`.
        legacy: whether it reproduces a published error, and says nothing but "as they computed it".
    """

    function: Callable[..., Any]
    higher_is_better: bool | None
    takes: Takes
    against: tuple[Against, ...]
    wants: str
    values: str
    summary: str
    paper: str
    takes_mask: bool = False
    legacy: bool = False


PAIRED: tuple[Against, ...] = ("source", "target", "self")
"""What a metric of two pictures of one tissue may be compared with."""
