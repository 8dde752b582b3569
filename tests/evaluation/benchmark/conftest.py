"""Pairs by two scanners, and what was measured on them, made once."""

import pytest

from restain.evaluation.benchmark import Evaluation, Sample, evaluate, make_contenders, open_samples
from restain.evaluation.datasets.pairs import Pair

from .scanned import write_pairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return write_pairs(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="session")
def samples(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return open_samples(pairs, tmp_path_factory.mktemp("registration"))[0]


@pytest.fixture(scope="session")
def evaluation(samples: list[Sample], pairs: list[Pair]) -> Evaluation:
    contenders = make_contenders(["macenko", "reinhard"], [pair.target for pair in pairs])
    return evaluate(samples, contenders, ("stainnet", "dstgan", "toolkit"))
