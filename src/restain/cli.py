"""The command line: one short function a command. Nothing heavy is imported before a command needs it."""

import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from restain import __version__, cli_training
from restain.errors import InputError, OutputError, RestainError
from restain.terminal import (
    Reported,
    appearance_line,
    cohort_progress,
    file_progress,
    in_line,
    print_comparison,
    print_evaluation,
    print_registrations,
    print_report,
    print_separations,
    slide_progress,
)

if TYPE_CHECKING:
    from restain.color.histogram import ColorHistogram
    from restain.methods.base import Normalizer
    from restain.slides.batch import BatchSettings, Failure
    from restain.slides.icc import Icc
    from restain.slides.separate import SeparationResult

app = App(
    name="restain",
    help="Stained tissue in one reference appearance: tiles and whole slides.",
    version=__version__,
)

Background = Literal["match", "keep", "white", "none"]


@app.command
def normalize(
    source: str,
    output: Path,
    /,
    *,
    method: str | None = None,
    target: str | None = None,
    target_consensus: Annotated[bool, Parameter(negative="")] = False,
    normalizer: Path | None = None,
    background: Background | None = None,
    estimate: Literal["image", "folder"] = "image",
    scheduler: str | None = None,
    resume: bool | None = None,
    preview: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    associated: Literal["drop", "keep"] = "drop",
    icc: Literal["keep", "srgb"] = "keep",
    on_error: Literal["stop", "skip", "fill"] = "stop",
    workers: int | None = None,
    quality: int = 90,
    subsampling: Literal["444", "422", "420"] = "444",
    format: Literal["tiff", "ome-tiff", "ome-zarr", "dicom"] | None = None,
    compression: Literal["jpeg", "jpeg2000", "jpegxl", "webp", "deflate", "zstd", "none"] | None = None,
    tile_size: int = 512,
    max_pixels: int = 64_000_000,
    seed: int = 0,
) -> int:
    """Write a slide, an image, or a folder of them in the reference appearance.

    Parameters
    ----------
    source: str
        A slide, an image, a folder (searched through), or a pattern in quotes, such as `"tiles/*.png"`.
    output: Path
        A file for one source, a folder for several. How it ends chooses the format of a slide: .tif, .ome.tif,
        .ome.zarr, or .dcm for DICOM; the last two are folders.
    method: str
        One of `restain methods`; macenko by default.
    target: str
        The reference: a profile's name, an image, a slide, a folder or a pattern; the profile "he" by default.
    target_consensus: bool
        For several slides: the reference is what they look like on the whole, each counted alike.
    normalizer: Path
        A normalizer saved by `restain fit`, or a training run's folder, instead of --method and --target.
    background: str
        What becomes of glass: the reference's white (match), unchanged (keep), 255 (white), the bare method (none).
    estimate: str
        For several images: how each one looks (image), or all of them together (folder).
    scheduler: str
        For several slides: do them on a Dask cluster, by its address (tcp://host:8786) or its scheduler file.
    resume: bool
        For several slides: leave what an earlier run with the same settings finished, and do the rest. The default,
        unless --overwrite does everything anew; with both, what this run's settings had finished is left.
    preview: Path
        Also write a before/after contact sheet.
    json_: bool
        Print a machine-readable summary.
    overwrite: bool
        Replace existing outputs.
    associated: str
        Label and macro images of slides: labels carry patients' names.
    icc: str
        Convert sources and reference to sRGB by their ICC profiles first (srgb), or take pixels as they are (keep).
    on_error: str
        Where a tile of a slide is damaged: stop with an error, skip it (it becomes padding), or fill it with glass.
    workers: int
        Threads; one a core by default. The result does not depend on it.
    quality: int
        Quality of slides, 1 to 100: of JPEG, JPEG 2000, JPEG XL and WebP; the last three lose nothing at 100.
    subsampling: str
        Chroma subsampling of slides in JPEG.
    format: str
        Of slides (and all TIFF) that are written into a folder, tiff by default; a single output says it by its name.
    compression: str
        Of slides; jpeg by default, and zstd in OME-Zarr.
    tile_size: int
        Side of the tiles of written slides.
    max_pixels: int
        Most tissue pixels to sample from a slide for its estimate.
    seed: int
        Of that sample.
    """
    from restain.references import find_files
    from restain.slides.batch import BatchSettings, normalize_file, plan_outputs
    from restain.slides.codecs import PyramidSettings
    from restain.slides.folders import is_output_folder
    from restain.slides.formats import pyramid_format

    _check_workers(workers)
    settings = BatchSettings(
        estimate=estimate,
        max_pixels=max_pixels,
        seed=seed,
        pyramid=PyramidSettings(tile_size, quality, subsampling, compression, format or "tiff"),
        associated=associated,
        icc=icc,
        on_error=on_error,
        overwrite=overwrite,
        workers=workers,
    )
    files = find_files(source)
    if not files:
        raise InputError(f"{source} does not exist, or no file matches it")
    many = files != [Path(source)]
    if target_consensus and (target is not None or normalizer is not None):
        raise InputError("--target-consensus finds the reference itself; leave out --target and --normalizer")
    if not many and (target_consensus or scheduler is not None):
        option = "--target-consensus" if target_consensus else "--scheduler"
        raise InputError(f"{option} is for several slides; {source} is one")
    fitted = (
        _method(method or "macenko", background)
        if target_consensus
        else _fitted(method, target, normalizer, background, icc)
    )
    results: list[Reported] = []
    failures: list[Failure] = []
    if many:
        root = Path(source) if Path(source).is_dir() else Path(os.path.commonpath([f.parent for f in files]))
        pairs = plan_outputs(_images(files, root, output), root, output, format or "tiff")
        _check_preview(preview, pairs, overwrite)
        if root.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{output} is, or holds, the input folder itself; name another folder")
        _make_folder(output)
        fitted, results, failures = _run_many(
            pairs,
            output,
            fitted,
            settings,
            consensus=target_consensus,
            resume=not overwrite if resume is None else resume,
            scheduler=scheduler,
        )
    else:
        target_path = output
        if is_output_folder(output):
            target_path = plan_outputs(files, files[0].parent, output, format or "tiff")[0][1]
        elif format not in (None, pyramid_format(output)):
            raise InputError(f"--format {format} and the name {output.name} say different things; leave out --format")
        _check_preview(preview, [(files[0], target_path)], overwrite)
        with slide_progress() as progress:
            result = normalize_file(files[0], target_path, fitted, settings, progress=progress)
        results = [Reported.of(result, fitted)]
    if preview is not None and results:
        _write_preview(preview, results, overwrite)
    print_report(fitted, results, failures, as_json=json_, many=many)
    return 1 if failures else 0


@app.command
def fit(
    reference: list[str],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    method: str = "macenko",
    background: Background | None = None,
    icc: Literal["keep", "srgb"] = "keep",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Learn a reference appearance and save it as a normalizer.

    Parameters
    ----------
    reference: list[str]
        Images, slides, folders, patterns, or a profile's name.
    output: Path
        The normalizer to write, .safetensors.
    method: str
        One of `restain methods`.
    background: str
        What becomes of glass; see `restain normalize`.
    icc: str
        Convert the reference to sRGB by its ICC profile first (srgb), or take its pixels as they are (keep).
    overwrite: bool
        Replace an existing output.
    """
    _check_normalizer_path(output, reference, overwrite)
    wanted = reference if len(reference) > 1 else reference[0]
    fitted = _method(method, background).fit(_reference(wanted, icc))
    fitted.save(output, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {appearance_line(fitted)}")
    return 0


@app.command(name="import")
def import_weights(
    system: Literal["stainnet"],
    weights: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    target: str | None = None,
    background: Background | None = None,
    training_data_license: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Turn weights that a paper's authors released into a normalizer. Needs PyTorch; applying the result does not.

    Parameters
    ----------
    system: str
        Whose weights they are.
    weights: Path
        The released file (.pth). Only tensors are read from it; no code in it is run.
    output: Path
        The normalizer to write, .safetensors.
    target: str
        An image, a slide, a folder or a profile whose glass the results shall have; a neutral gray by default.
    background: str
        What becomes of glass; see `restain normalize`.
    training_data_license: str
        Licence of the images that the weights were trained on, to be kept with them.
    overwrite: bool
        Replace an existing output.
    """
    from restain.released import import_stainnet

    _check_normalizer_path(output, [str(weights), *([target] if target else [])], overwrite)
    fitted = import_stainnet(weights, target, background or "match", training_data_license=training_data_license)
    fitted.save(output, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {appearance_line(fitted)}")
    return 0


@app.command
def separate(
    source: str,
    output: Path,
    /,
    *,
    stains: str = "he",
    names: str | None = None,
    white: str | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
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
    from restain.references import find_files
    from restain.slides.batch import Failure, is_image
    from restain.slides.codecs import PyramidSettings
    from restain.slides.separate import SeparationSettings, separate_file, separate_files

    _check_workers(workers)
    settings = SeparationSettings(
        stains=parse_stains(stains),
        names=None if names is None else tuple(name.strip() for name in names.split(",")),
        white_point=None if white is None else _numbers(white, ",", float, "--white 243,243,243"),
        max_pixels=max_pixels,
        seed=seed,
        pyramid=PyramidSettings(tile_size, quality, subsampling),
        overwrite=overwrite,
        workers=workers,
    )
    files = find_files(source)
    if not files:
        raise InputError(f"{source} does not exist, or no file matches it")
    if not output.is_dir() and is_image(output):
        raise OutputError(f"{output} is named like a file; name a folder, as every stain gets a file of its own")
    many = Path(source).is_dir() or len(files) > 1 or not Path(source).exists()
    results: list[SeparationResult] = []
    failures: list[Failure] = []
    if many:
        root = Path(source) if Path(source).is_dir() else Path(os.path.commonpath([f.parent for f in files]))
        if root.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{output} is, or holds, the input folder itself; name another folder")
        images = _images(files, root, output)
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


@app.command
def register(
    source: Path,
    target: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    pairs: Path | None = None,
    preview: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    workers: int | None = None,
) -> int:
    """Lay the images of one folder over those of another, so that their pixels can be compared.

    Parameters
    ----------
    source: Path
        A folder of images, whose pixels stay as they are.
    target: Path
        A folder of images of the same tissue, which are warped to lie over the sources.
    output: Path
        The folder to write to: NAME.png, NAME.mask.png, NAME.safetensors for each pair, and registration.csv.
    pairs: Path
        A csv with the columns source,target; images of the same name by default.
    preview: Path
        Also write a sheet of checkerboards, before and after.
    json_: bool
        Print a machine-readable summary.
    overwrite: bool
        Do pairs again that are done already.
    workers: int
        Threads; one a core by default. The result does not depend on it.
    """
    from restain.evaluation.registration.command import register_folders

    _check_workers(workers)
    outcomes = register_folders(
        source, target, output, pairs, preview=preview, overwrite=overwrite, workers=workers, progress=file_progress
    )
    print_registrations(outcomes, as_json=json_)
    return 0 if all(outcome.status == "accepted" for outcome in outcomes) else 1


@app.command
def evaluate(
    *,
    source: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    methods: str = "macenko,reinhard,vahadane",
    target: Path | None = None,
    pairs: Path | None = None,
    reference: str | None = None,
    suites: str = "stainnet,toolkit",
    estimate: Literal["image", "folder"] = "image",
    background: Background | None = None,
    lpips_weights: Path | None = None,
    fid_weights: Path | None = None,
    examples: int = 6,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    workers: int | None = None,
) -> int:
    """Say whether normalization helps or harms, and which method to use: tables and a page to look at.

    Parameters
    ----------
    source: Path
        A folder of images to normalize.
    output: Path
        The folder to write to: metrics.csv, metrics.parquet, summary.csv, evaluation.json, report.html.
    methods: str
        Methods (also of another package, as in macenko:torchstain) and saved normalizers, separated by commas.
    target: Path
        A folder of the same tissue in the wanted appearance; each pair is registered once.
    pairs: Path
        A csv with the columns source,target; images of the same name by default.
    reference: str
        What methods are fitted to: a file, folder or profile; all targets by default, or "he" without targets.
    suites: str
        Of metrics: stainnet, dstgan, stst, toolkit, separated by commas.
    estimate: str
        How each image looks (image), or all of them together, as tiles of one slide (folder).
    background: str
        What becomes of glass; see `restain normalize`.
    lpips_weights: Path
        ImageNet weights of AlexNet, as torchvision publishes them; without, there is no LPIPS.
    fid_weights: Path
        Weights of the FID Inception network; without, there is no FID.
    examples: int
        Images that the page shows, the worst first.
    json_: bool
        Print the summary machine-readable.
    overwrite: bool
        Replace an earlier evaluation; registrations are kept.
    workers: int
        Threads; one a core by default. The result does not depend on it.
    """
    from restain.evaluation.benchmark.command import EvaluateSettings, evaluate_folders

    _check_workers(workers)
    if examples < 1:
        raise InputError(f"got --examples {examples}; wanted 1 or more")
    weights = {"lpips_target": lpips_weights, "fid_target": fid_weights}
    settings = EvaluateSettings(
        methods=_names(methods),
        reference=reference,
        suites=_names(suites),
        estimate=estimate,
        background=background,
        options={label: {"weights": path} for label, path in weights.items() if path is not None},
        examples=examples,
        workers=workers,
        overwrite=overwrite,
    )
    result = evaluate_folders(source, target, pairs, output, settings, progress=file_progress)
    print_evaluation(result, as_json=json_)
    return 1 if result.evaluation.failures else 0


@app.command
def compare(
    source: str,
    target: str,
    /,
    *,
    methods: str = "macenko,reinhard",
    preview: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    max_pixels: int = 64_000_000,
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Say how far two slides are apart in colour, before and after the first is normalized to the second.

    Parameters
    ----------
    source: str
        A slide or image.
    target: str
        The slide or image whose appearance is wanted.
    methods: str
        Methods and saved normalizers, separated by commas.
    preview: Path
        Also write a sheet: the source, what each method makes of it, the target.
    json_: bool
        Print it machine-readable.
    overwrite: bool
        Replace an existing preview.
    max_pixels: int
        Most tissue pixels to sample from each slide.
    seed: int
        Of that sample.
    workers: int
        Threads. The result does not depend on it.
    """
    from restain.evaluation.comparison import check_preview, compare_slides, write_preview

    _check_workers(workers)
    if preview is not None:
        check_preview(preview, (source, target), overwrite)
    result = compare_slides(source, target, _names(methods), max_pixels=max_pixels, seed=seed, workers=workers)
    if preview is not None:
        write_preview(preview, result, overwrite)
    print_comparison(result, as_json=json_)
    return 0


@app.command
def info(path: str, /, *, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Say what a slide, image, profile, histogram or normalizer is.

    Parameters
    ----------
    path: str
        A file, or a profile's name.
    json_: bool
        Print it machine-readable.
    """
    from restain.describe import describe_path

    facts = describe_path(path)
    if json_:
        print(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {_text(value)}")
    return 0


@app.command
def methods() -> int:
    """List the methods and the shipped profiles."""
    from restain.describe import first_sentence
    from restain.methods import METHODS
    from restain.profiles import load_profile, profile_names

    width = max(map(len, [*METHODS, *profile_names()]))
    for name, method in METHODS.items():
        print(f"{name:<{width}}  {first_sentence(sys.modules[method.__module__].__doc__)}")
    print("\nprofiles (for --target):")
    for name in profile_names():
        print(f"{name:<{width}}  {load_profile(name).provenance.get('title', '')}")
    return 0


@app.command
def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("demo"),
    slide: Path | None = None,
    offline: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Normalize a real slide where one is at hand, else a synthetic one, and write before/after pictures.

    Parameters
    ----------
    output: Path
        The folder to write to.
    slide: Path
        The slide to use. By default one in the folder that RESTAIN_DATA names, else OpenSlide's CC0 sample (2 MB,
        downloaded and checked), else a phantom.
    offline: bool
        Do not try to download.
    overwrite: bool
        Replace what an earlier demonstration wrote.
    """
    from restain.demo import run_demo

    with slide_progress() as progress:
        print(run_demo(output, slide, download=not offline, overwrite=overwrite, progress=progress))
    return 0


@app.command
def phantom(
    output: Path,
    /,
    *,
    size: str = "2048x2048",
    lab: Literal["a", "b"] = "a",
    white: str = "243,243,243",
    gamma: float = 1.0,
    blur: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write synthetic H&E tissue: an image, or a pyramidal slide (.tif).

    Parameters
    ----------
    output: Path
        .tif for a slide, .png or .jpg for an image.
    size: str
        WIDTHxHEIGHT in pixels.
    lab: str
        Which of two labs stained it.
    white: str
        The scanner's level of empty glass, R,G,B.
    gamma: float
        The scanner's exponent on transmittance.
    blur: float
        The scanner's blur, sigma in pixels.
    noise: float
        The scanner's noise, standard deviation in grey levels.
    seed: int
        Of the tissue and the noise.
    overwrite: bool
        Replace an existing output.
    """
    from restain.demo import write_phantom

    write_phantom(
        output,
        size=_numbers(size, "x", int, "--size 2048x2048"),
        lab=lab,
        white=_numbers(white, ",", float, "--white 243,243,243"),
        gamma=gamma,
        blur=blur,
        noise=noise,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"{output}: synthetic tissue, {size}, lab {lab}, seed {seed}")
    return 0


app.command(cli_training.train)
app.command(cli_training.distill)
app.command(cli_training.export)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 some files failed, 2 what was asked for cannot be done."""
    warnings.showwarning = _show_warning
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what it logs, an error says in one line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(" ".join(str(error).split()))
    except RestainError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except MemoryError:
        _fail("out of memory; use fewer --workers or a smaller --max-pixels")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"restain: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"restain: note: {in_line(message)}", file=sys.stderr)


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"got --workers {workers}; wanted 1 or more")


def _names(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_normalizer_path(output: Path, inputs: list[str], overwrite: bool) -> None:
    """Raise `OutputError`, before any work is done, if a normalizer may not be written there."""
    from restain.files import refuse_overwrite

    if output.suffix != ".safetensors":
        raise OutputError(f"{output} should end in .safetensors, the format of saved normalizers")
    refuse_overwrite(output, overwrite)
    for item in inputs:
        if output.exists() and Path(item).exists() and os.path.samefile(item, output):
            raise OutputError(f"{output} is an input; name another output")


def _method(name: str, background: Background | None) -> "Normalizer":
    from restain.methods import METHODS

    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]() if background is None else METHODS[name](background=background)


def _fitted(
    method: str | None, target: str | None, saved: Path | None, background: Background | None, icc: "Icc"
) -> "Normalizer":
    from restain.saved import load_with

    if saved is None:
        return _method(method or "macenko", background).fit(_reference(target or "he", icc))
    if method is not None or target is not None:
        raise InputError("--normalizer already holds a method and its reference; leave out --method and --target")
    fitted = load_with(saved, background)
    if icc == "srgb" and fitted.reference_ is not None and fitted.reference_.icc_profile is not None:
        raise InputError(f"{saved} was fitted in its reference's own colours; fit it again with --icc srgb")
    return fitted


def _reference(reference: str | list[str], icc: "Icc") -> "str | list[str] | ColorHistogram":
    """What a method is to be fitted to; read here only where it is to be converted."""
    from restain.references import read_reference

    return reference if icc == "keep" else read_reference(reference, icc=icc)


def _images(files: list[Path], root: Path, output: Path) -> list[Path]:
    """The files that look like images or slides, without what lies in an output folder inside the source's."""
    from restain.slides.batch import is_image

    inside = output.resolve()
    nested = inside != root.resolve() and inside.is_relative_to(root.resolve())
    images = [f for f in files if is_image(f) and not (nested and f.resolve().is_relative_to(inside))]
    if not images:
        raise InputError(f"none of {len(files)} files has the extension of an image or slide")
    return images


def _make_folder(output: Path) -> None:
    from restain.slides.batch import is_image
    from restain.slides.folders import is_output_folder
    from restain.slides.formats import pyramid_format

    named = is_image(output) or pyramid_format(output) is not None
    if named if not output.exists() else not is_output_folder(output):
        raise OutputError(f"{output} is a file, or named like one; several inputs need a folder as output")
    output.mkdir(parents=True, exist_ok=True)


def _run_many(
    pairs: list[tuple[Path, Path]],
    output: Path,
    fitted: "Normalizer",
    settings: "BatchSettings",
    *,
    consensus: bool,
    resume: bool,
    scheduler: str | None,
) -> "tuple[Normalizer, list[Reported], list[Failure]]":
    from restain.saved import load
    from restain.slides.batch import Failure
    from restain.slides.cohort import normalize_cohort

    with cohort_progress() as progress:
        done = normalize_cohort(
            pairs,
            output,
            fitted,
            load,
            settings,
            consensus=consensus,
            resume=resume,
            scheduler=scheduler,
            say=_show_warning,
            progress=progress,
        )
    failures = [Failure(source, row.error) for (source, _), row in done.rows if row.status == "failed"]
    results = [Reported.of_row(row, source, path) for (source, path), row in done.rows if row.status == "done"]
    return done.normalizer, results, failures


def _check_preview(preview: Path | None, pairs: list[tuple[Path, Path]], overwrite: bool) -> None:
    """Raise `OutputError`, before any work is done, if the preview may not be written, or is an input or output."""
    from restain.slides.pipeline import check_paths

    if preview is None:
        return
    if preview.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"{preview} should end in .png or .jpg")
    for source, output in pairs:
        check_paths(source, preview, overwrite)
        if preview.resolve() == output.resolve():
            raise OutputError(f"{preview} is to be both an output and the preview; name another preview")


def _write_preview(preview: Path, results: "list[Reported]", overwrite: bool) -> None:
    from restain.files import write_atomically
    from restain.slides.preview import contact_sheet, encode_sheet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # already told
        data = encode_sheet(contact_sheet([(r.source, r.output) for r in results]), preview.suffix)
    write_atomically(preview, lambda stream: stream.write(data), overwrite=overwrite)


def _numbers(text: str, separator: str, kind: type, example: str) -> Any:
    try:
        return tuple(kind(part) for part in text.lower().split(separator))
    except ValueError:
        raise InputError(f"got {text!r}; wanted numbers as in {example}") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    main()
