"""Every metric by name, and what one must know before comparing its numbers."""

from restain.evaluation.metrics.catalogue.looks import LOOKS
from restain.evaluation.metrics.catalogue.metric import Metric
from restain.evaluation.metrics.catalogue.structure import STRUCTURE
from restain.evaluation.metrics.catalogue.tasks import TASKS

__all__ = ["METRICS", "Metric"]

METRICS: dict[str, Metric] = STRUCTURE | LOOKS | TASKS
"""Every metric by its name in suites, tables and on the command line."""
