"""`restain separate`: what each stain looks like alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restain.cli.options import Flag, Icc, Json, OnError, check_workers, numbers
from restain.cli.sources import check_folder, find_sources, images_among, root_of
from restain.errors import OutputError
from restain.terminal import file_progress, print_separations, slide_progress

if TYPE_CHECKING:
    from restain.slides.separate import SeparationResult


def separate(
    source: str,
    output: Path,
    /,
    *,
    stains: str = "he",
    names: str | None = None,
    white: str | None = None,
    json_: Json = False,
    overwrite: Flag = False,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    workers: int | None = None,
    quality: int = 90,
    subsampling: Literal["444", "422", "420"] = "444",
    tile_size: int = 512,
    max_pixels: int = 64_000_000,
    seed: int = 0,
) -> int:
    """Write what each stain of a slide, an image, or a folder of them looks like alone.

    Parameters
    ----------
    source: str
        A slide, an image, a folder (searched through), or a pattern in quotes.
    output: Path
        The folder to write to: NAME.hematoxylin.png, ... and NAME.concentrations.tif for images, .tif for slides.
    stains: str
        he, he-warwick, hdab, hed, or two or three vectors of R, G, B densities: "0.65,0.70,0.29;0.07,0.99,0.11".
    names: str
        What the stains are called, as in "hematoxylin,orange,green".
    white: str
        The level of empty glass, R,G,B; estimated from each file by default.
    json_: bool
        Print a machine-readable summary: vectors, white points, percentiles.
    overwrite: bool
        Replace existing outputs.
    icc: str
        Convert sources to sRGB by their ICC profiles first (srgb), or take pixels as they are (keep).
    on_error: str
        Where a tile of a slide is damaged: stop with an error, skip it (it becomes padding), or fill it with glass.
    workers: int
        Threads; one a core by default. The result does not depend on it.
    quality: int
        JPEG quality of slides, 1 to 100.
    subsampling: str
        Chroma subsampling of slides.
    tile_size: int
        Side of the tiles of written slides.
    max_pixels: int
        Most tissue pixels to sample from a slide for its white point and percentiles.
    seed: int
        Of that sample.
    """
    from restain.methods.separation import parse_stains
    from restain.slides.batch import Failure, is_image
    from restain.slides.codecs import PyramidSettings
    from restain.slides.separate import SeparationSettings, separate_file, separate_files

    check_workers(workers)
    settings = SeparationSettings(
        stains=parse_stains(stains),
        names=None if names is None else tuple(name.strip() for name in names.split(",")),
        white_point=None if white is None else numbers(white, ",", float, "--white 243,243,243"),
        max_pixels=max_pixels,
        seed=seed,
        pyramid=PyramidSettings(tile_size, quality, subsampling),
        icc=icc,
        on_error=on_error,
        overwrite=overwrite,
        workers=workers,
    )
    files, many = find_sources(source)
    if not output.is_dir() and is_image(output):
        raise OutputError(f"{output} is named like a file; name a folder, as every stain gets a file of its own")
    results: list[SeparationResult] = []
    failures: list[Failure] = []
    if many:
        root = root_of(source, files)
        check_folder(output, root)
        images = images_among(files, root, output)
        with file_progress(len(images)) as progress:
            for item in separate_files(images, root, output, settings, resume=True, progress=progress):
                if isinstance(item, Failure):
                    failures.append(item)
                else:
                    results.append(item)
    else:
        with slide_progress() as progress:
            results = [separate_file(files[0], output, settings, progress=progress)]
    print_separations(results, failures, as_json=json_, many=many)
    return 1 if failures else 0
