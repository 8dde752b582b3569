"""Metrics: what the field measures normalizers with, each saying what it wants and which way is better.

`METRICS` has every metric by name, `SUITES` the sets that papers report; `run_suite` computes one for an image. The
metrics themselves are plain functions of arrays: `ssim(reference, image)`.
"""

from restain.evaluation.metrics.catalogue import METRICS, Metric
from restain.evaluation.metrics.suites import SUITES, Entry, SuiteResult, Summary, run_cohort, run_suite, summarise

__all__ = ["METRICS", "SUITES", "Entry", "Metric", "SuiteResult", "Summary", "run_cohort", "run_suite", "summarise"]
