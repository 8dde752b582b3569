"""Every error and warning that restain raises on purpose.

RestainError
├── InputError          an image, array or argument is not what was wanted (also a ValueError)
├── FitError            a reference holds too little to learn from
├── NotFittedError      a normalizer was used before `fit`
├── SlideError          a slide or image file cannot be opened or read (also an OSError)
├── OutputError         an output may not or cannot be written (also an OSError)
├── WeightsUnavailable  a metric or loss needs a network's published weights, and their file was not given
├── TrainingError       a training run cannot go on: a loss is not finite, a network has collapsed, no checkpoint loads
├── FormatError         a saved normalizer, profile or histogram is damaged or of another kind (also a ValueError)
└── MissingExtraError   an optional library is not installed; the message says how to (also an ImportError)

RestainWarning (a UserWarning)
├── EstimateWarning     an appearance could not be measured; what was used instead is named
├── MetricWarning       a metric was computed where its number says little; the message says why
├── TrainingWarning     a part of a training run cannot be used; what is used instead is named
└── SlideWarning        a slide's own metadata is implausible and was ignored
"""


class RestainError(Exception):
    """Base of all errors raised on purpose; its message is one readable line."""


class InputError(RestainError, ValueError):
    """An image, array or argument is not what was wanted."""


class FitError(RestainError):
    """A reference holds too little to learn from."""


class NotFittedError(RestainError):
    """A normalizer was used before `fit`."""


class SlideError(RestainError, OSError):
    """A slide or image file cannot be opened or read."""


class OutputError(RestainError, OSError):
    """An output may not or cannot be written."""


class WeightsUnavailable(RestainError):
    """A metric or loss needs a network's published weights; the message says which file, and how to give it."""


class TrainingError(RestainError):
    """A training run cannot go on; the message says at which step, why, and from where it can be taken up again."""


class FormatError(RestainError, ValueError):
    """A saved normalizer, profile or histogram is damaged or of another kind."""


class MissingExtraError(RestainError, ImportError):
    """An optional library is not installed; the message has the line that installs it."""


class RestainWarning(UserWarning):
    """Base of all warnings issued on purpose."""


class EstimateWarning(RestainWarning):
    """An appearance could not be measured; the message names what was used instead."""


class MetricWarning(RestainWarning):
    """A metric was computed where its number says little; the message says why."""


class TrainingWarning(RestainWarning):
    """A part of a training run cannot be used (a damaged checkpoint); the message names what is used instead."""


class SlideWarning(RestainWarning):
    """A slide's own metadata is implausible and was ignored."""
