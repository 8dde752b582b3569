"""The demonstration: a real slide where one is at hand, else a phantom, before and after."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from restain.errors import InputError, OutputError
from restain.files import write_atomically
from restain.methods.macenko import Macenko
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.image_reader import encode_image
from restain.slides.pipeline import Progress, check_paths, normalize_slide
from restain.slides.preview import contact_sheet, encode_sheet
from restain.slides.writer import write_array

SAMPLE_NAME = "CMU-1-Small-Region.svs"
SAMPLE_URL = f"https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/{SAMPLE_NAME}"
SAMPLE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
"""OpenSlide's freely distributable test slide (CC0), 1.9 MB."""

PHANTOM_MPP = 0.5


def run_demo(
    folder: Path,
    slide: Path | None = None,
    *,
    download: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Normalize a slide into `folder` and write before/after pictures; returns what was done, in a few lines."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; wanted a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    output, preview = folder / "normalized.tif", folder / "before-after.png"
    for path in (output, preview):
        check_paths(slide or folder, path, overwrite)
    source, what = _find(folder, slide, download, overwrite)
    result = normalize_slide(source, output, Macenko().fit("he"), overwrite=overwrite, progress=progress)
    data = encode_sheet(contact_sheet([(source, output)]), ".png")
    write_atomically(preview, lambda stream: stream.write(data), overwrite=overwrite)
    width, height = result.size
    return (
        f"{what}: {source}\n"
        f"normalized by macenko to the profile he in {result.seconds:.1f} s ({width}x{height}): {output}\n"
        f"before and after: {preview}"
    )


def write_phantom(
    output: Path,
    *,
    size: tuple[int, ...] = (2048, 2048),
    lab: str = "a",
    white: tuple[float, ...] = (243.0, 243.0, 243.0),
    gamma: float = 1.0,
    blur: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write synthetic tissue of (width, height) pixels as a pyramidal slide (.tif) or an image."""
    if len(size) != 2 or len(white) != 3:
        raise InputError(f"got size {size} and white {white}; wanted WIDTHxHEIGHT and R,G,B")
    stains = STAINS_A if lab == "a" else STAINS_B
    try:
        scanner = Scanner(white=(white[0], white[1], white[2]), gamma=gamma, blur=blur, noise=noise)
        image = make_phantom(size[1], size[0], seed=seed, stain_matrix=stains, scanner=scanner).image
    except ValueError as error:
        raise InputError(str(error)) from None
    if output.suffix.lower() in (".tif", ".tiff"):
        write_array(output, image, mpp=(PHANTOM_MPP, PHANTOM_MPP), overwrite=overwrite)
    else:
        data = encode_image(image, output.suffix, None)
        write_atomically(output, lambda stream: stream.write(data), overwrite=overwrite)


def _find(folder: Path, slide: Path | None, download: bool, overwrite: bool) -> tuple[Path, str]:
    if slide is not None:
        return slide, "the slide you named"
    data = os.environ.get("RESTAIN_DATA")
    if data:
        found = sorted(Path(data).rglob("*.svs"))
        if found:
            return found[0], "a real slide from RESTAIN_DATA"
    sample = folder / SAMPLE_NAME
    if _is_sample(sample) or (download and _download(sample)):
        return sample, "OpenSlide's CC0 sample slide"
    phantom = folder / "phantom.tif"
    write_phantom(phantom, lab="b", white=(232, 232, 234), gamma=1.1, noise=1.0, overwrite=overwrite)
    return phantom, "a synthetic slide (no real one at hand)"


def _is_sample(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SAMPLE_SHA256


def _download(path: Path) -> bool:
    """Fetch the sample slide; False where there is no network, or something else answers in its place."""
    try:
        with urllib.request.urlopen(SAMPLE_URL, timeout=10) as response:
            data = response.read(10_000_000)
    except (OSError, http.client.HTTPException):
        return False
    if hashlib.sha256(data).hexdigest() != SAMPLE_SHA256:
        return False
    write_atomically(path, lambda stream: stream.write(data), overwrite=True)
    return True
