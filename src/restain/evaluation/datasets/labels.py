"""Images whose values are labels: instances of glands, nuclei or classes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restain.errors import SlideError
from restain.slides.image_reader import READ_FORMATS


def read_labels(path: Path) -> NDArray[np.int32]:
    """A label image as (H, W) int32: 0 is background, every other value an instance or class.

    Palettes are not applied: the index is the label.

    Raises:
        SlideError: it cannot be read, or has colours, whose meaning nobody said.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
                raise SlideError(f"{path} came as {image.mode}; wanted an image of labels, one value a pixel")
            return np.asarray(image).astype(np.int32)
    except FileNotFoundError:
        raise SlideError(f"{path} does not exist") from None
    except SlideError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise SlideError(f"{path} cannot be read as an image of labels ({error})") from None
