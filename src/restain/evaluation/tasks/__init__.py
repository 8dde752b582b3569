"""What a normalizer is worth to those who use its images: classifiers and segmenters, trained once, tested before and
after.

    settings   how networks are trained: the papers' protocols
    examples   images of one size, and what is true of them
    models     networks with their settings; their files
    training   the loop
    testing    a model under any normalizer
    results    scores, and over seeds their mean, spread and confidence interval
    writing    JSON and CSV

A network is trained on images in the wanted appearance, and tested on others: as they are, and as each normalizer makes
them. What it gains is what the normalizer is worth, to this network, on these images.
"""

from restain.evaluation.tasks.examples import Examples, class_names, make_examples, read_examples
from restain.evaluation.tasks.models import Classifier, Segmenter, Training, load_model
from restain.evaluation.tasks.results import ClassificationResult, Line, SegmentationResult, TaskResult, summarize
from restain.evaluation.tasks.settings import PROTOCOLS, ClassifierSettings, SegmenterSettings, TaskSettings
from restain.evaluation.tasks.testing import evaluate_classifier, evaluate_segmenter
from restain.evaluation.tasks.training import train_classifier, train_segmenter
from restain.evaluation.tasks.writing import write_results

__all__ = [
    "PROTOCOLS",
    "ClassificationResult",
    "Classifier",
    "ClassifierSettings",
    "Examples",
    "Line",
    "SegmentationResult",
    "Segmenter",
    "SegmenterSettings",
    "TaskResult",
    "TaskSettings",
    "Training",
    "class_names",
    "evaluate_classifier",
    "evaluate_segmenter",
    "load_model",
    "make_examples",
    "read_examples",
    "summarize",
    "train_classifier",
    "train_segmenter",
    "write_results",
]
