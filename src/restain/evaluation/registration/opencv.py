"""OpenCV, which measures shifts, affine maps and flow; loaded when a pair is registered, not before."""

from typing import Any

from restain.errors import MissingExtraError

LONGEST_SIDE = 32_000
"""OpenCV's `remap` counts positions in 16 bits; a little is left for what lies outside the picture."""


def opencv() -> Any:
    """The module `cv2`.

    Raises:
        MissingExtraError: it is not installed; the message gives the line that installs it.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            f"registration needs OpenCV ({error}); install it with: pip install 'restain[evaluation]'"
        ) from error
    return cv2
