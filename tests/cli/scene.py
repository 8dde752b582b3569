"""What the tests of commands share: two pictures, and looks at what commands leave behind."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.methods import METHODS
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.cohort import OWN_FILES

from ..running import Outcome, Run, contents

MEASURING = [name for name, method in METHODS.items() if not method.fixed]  # the others need weights
TISSUE = make_phantom(200, 300, seed=1, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0)).image
OTHER = make_phantom(180, 240, seed=2, stain_matrix=STAINS_B, scanner=Scanner(white=(236.0, 231.0, 228.0))).image


def outputs(folder: str | Path) -> dict[str, bytes]:
    """What is in a cohort's folder beside what it keeps on itself."""
    return {name: data for name, data in contents(folder).items() if name not in OWN_FILES}


def pixels(path: str) -> RGB8:
    with Image.open(path) as image:
        return np.asarray(image)


def default(image: RGB8) -> RGB8:
    """What `restain normalize` makes of an image without options."""
    return METHODS["macenko"]().fit("he").transform(image)


def is_one_line(outcome: Outcome) -> bool:
    return outcome.err.startswith("restain: ") and outcome.err.count("\n") == 1 and "Traceback" not in outcome.err


def write_damaged(path: Path, image: RGB8 = TISSUE) -> None:
    """A slide of tiles of 64, in one of which, at (128, 64), all but the first bytes are lost."""
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), compression="lzw")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        number = -(-page.imagewidth // 64) + 2
        place, count = page.dataoffsets[number], page.databytecounts[number]
    with path.open("r+b") as stream:
        stream.seek(place + 16)
        stream.write(bytes(count - 16))


def info(run: Run, path: str) -> dict[str, Any]:
    """The facts, after a look at the readable form of them."""
    readable = run("info", path)
    outcome = run("info", path, "--json")
    assert readable.code == outcome.code == 0
    assert readable.err == outcome.err == ""
    facts = outcome.json
    assert [line.split()[0] for line in readable.out.splitlines()] == list(facts)
    assert isinstance(facts, dict)
    return facts
