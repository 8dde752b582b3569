"""Tissue beside glass that saturates the scanner; and reading that goes on while Numba is imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.phantom import make_phantom
from restain.slides.reader import open_slide
from restain.slides.tissue import find_tissue


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_pale_tissue_beside_saturated_glass(share: float, tmp_path: Path) -> None:
    """Glass of 255 with a few pixels of 254 is noise enough to tell it from padding; white is not what is pale."""
    generator = np.random.default_rng(0)
    image = np.full((800, 800, 3), 255, np.uint8)
    image[generator.random(image.shape) < share] = 254
    image[100:300, 100:500] = (222, 212, 224)
    image[400:700, 400:700] = generator.integers(60, 180, (300, 300, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    with open_slide(tmp_path / "in.png") as slide:
        tissue, glass = find_tissue(slide, 100)
    assert tissue[1:3, 1:5].all()
    assert glass[0].all()
    assert tissue[4:7, 4:7].all()


INTERRUPTED = """
import os, signal, sys, threading, time
from restain.slides.sample import sample_slide

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numba.core.decorators":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

sys.meta_path.insert(0, Interrupting())
try:
    sample_slide(sys.argv[1])
except KeyboardInterrupt:
    print(len(sample_slide(sys.argv[1])))
"""


def test_an_interrupt_while_numba_is_imported_does_not_leave_half_of_it(tmp_path: Path) -> None:
    Image.fromarray(make_phantom(300, 300, seed=2).image).save(tmp_path / "in.png")
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "in.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100  # colours of the second sample, which the first one's end must not spoil
