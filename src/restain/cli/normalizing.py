"""`restain normalize`: a slide, an image, or many of them, in the reference appearance."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restain.cli.fitting import method_named
from restain.cli.options import Background, Flag, Icc, Json, OnError, check_workers
from restain.cli.sources import check_folder, find_sources, images_among, root_of
from restain.errors import InputError, OutputError
from restain.terminal import Reported, cohort_progress, print_note, print_report, slide_progress

if TYPE_CHECKING:
    from restain.methods.base import Normalizer
    from restain.slides.batch import BatchSettings, Failure


def normalize(
    source: str,
    output: Path,
    /,
    *,
    method: str | None = None,
    target: str | None = None,
    target_consensus: Flag = False,
    normalizer: Path | None = None,
    background: Background | None = None,
    estimate: Literal["image", "folder"] = "image",
    scheduler: str | None = None,
    resume: bool | None = None,
    preview: Path | None = None,
    json_: Json = False,
    overwrite: Flag = False,
    associated: Literal["drop", "keep"] = "drop",
    icc: Icc = "keep",
    on_error: OnError = "stop",
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
        In a reference it is not counted.
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
    from restain.slides.batch import BatchSettings, normalize_file, plan_outputs
    from restain.slides.codecs import PyramidSettings
    from restain.slides.folders import is_output_folder
    from restain.slides.formats import pyramid_format

    check_workers(workers)
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
    files, many = find_sources(source)
    if target_consensus and (target is not None or normalizer is not None):
        raise InputError("--target-consensus finds the reference itself; leave out --target and --normalizer")
    if not many and (target_consensus or scheduler is not None):
        option = "--target-consensus" if target_consensus else "--scheduler"
        raise InputError(f"{option} is for several slides; {source} is one")
    fitted = (
        method_named(method or "macenko", background)
        if target_consensus
        else _fitted(method, target, normalizer, background, icc, on_error)
    )
    results: list[Reported] = []
    failures: list[Failure] = []
    if many:
        root = root_of(source, files)
        pairs = plan_outputs(images_among(files, root, output), root, output, format or "tiff")
        _check_preview(preview, pairs, overwrite)
        check_folder(output, root)
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


def _fitted(
    method: str | None,
    target: str | None,
    saved: Path | None,
    background: Background | None,
    icc: Icc,
    on_error: OnError,
) -> "Normalizer":
    from restain.saved import load_with

    if saved is None:
        return method_named(method or "macenko", background).fit(target or "he", icc=icc, on_error=on_error)
    if method is not None or target is not None:
        raise InputError("--normalizer already holds a method and its reference; leave out --method and --target")
    fitted = load_with(saved, background)
    if icc == "srgb" and fitted.reference_ is not None and fitted.reference_.icc_profile is not None:
        raise InputError(f"{saved} was fitted in its reference's own colours; fit it again with --icc srgb")
    return fitted


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
            say=print_note,
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


def _write_preview(preview: Path, results: list[Reported], overwrite: bool) -> None:
    from restain.files import write_atomically
    from restain.slides.preview import contact_sheet, encode_sheet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # already told
        data = encode_sheet(contact_sheet([(r.source, r.output) for r in results]), preview.suffix)
    write_atomically(preview, lambda stream: stream.write(data), overwrite=overwrite)
