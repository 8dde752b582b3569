"""Did normalization help, did it harm, and which method should be used: methods side by side on one's own images."""

from restain.evaluation.benchmark.contenders import RAW, Contender, make_contenders
from restain.evaluation.benchmark.measure import Evaluation, Row, evaluate
from restain.evaluation.benchmark.samples import Sample, open_samples

__all__ = ["RAW", "Contender", "Evaluation", "Row", "Sample", "evaluate", "make_contenders", "open_samples"]
