"""What an answer is made of, and how methods are named in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from restain.evaluation.benchmark.report.markup import joined, tag, text


@dataclass(frozen=True)
class Question:
    """A question, its answer in a few words, and sentences that give the numbers; HTML but for the question."""

    title: str
    verdict: str
    sentences: Sequence[str]


def method_name(method: str) -> str:
    """A method's name as HTML."""
    return tag("span", text(method), class_="method")


def method_names(methods: Sequence[str], last: str = "and") -> str:
    """Several as in a sentence."""
    return joined([method_name(name) for name in methods], last)
