"""`restain register`, `evaluate` and `compare`: whether normalization helps."""

from pathlib import Path
from typing import Literal

from restain.cli.options import Background, Flag, Icc, Json, OnError, Output, check_workers, parts
from restain.errors import InputError
from restain.terminal import file_progress, print_comparison, print_evaluation, print_registrations


def register(
    source: Path,
    target: Path,
    /,
    *,
    output: Output,
    pairs: Path | None = None,
    preview: Path | None = None,
    json_: Json = False,
    overwrite: Flag = False,
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

    check_workers(workers)
    outcomes = register_folders(
        source, target, output, pairs, preview=preview, overwrite=overwrite, workers=workers, progress=file_progress
    )
    print_registrations(outcomes, as_json=json_)
    return 0 if all(outcome.status == "accepted" for outcome in outcomes) else 1


def evaluate(
    *,
    source: Path,
    output: Output,
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
    json_: Json = False,
    overwrite: Flag = False,
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

    check_workers(workers)
    if examples < 1:
        raise InputError(f"got --examples {examples}; wanted 1 or more")
    weights = {"lpips_target": lpips_weights, "fid_target": fid_weights}
    settings = EvaluateSettings(
        methods=parts(methods),
        reference=reference,
        suites=parts(suites),
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


def compare(
    source: str,
    target: str,
    /,
    *,
    methods: str = "macenko,reinhard",
    preview: Path | None = None,
    json_: Json = False,
    overwrite: Flag = False,
    icc: Icc = "keep",
    on_error: OnError = "stop",
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
    icc: str
        Convert both to sRGB by their ICC profiles first (srgb), or take pixels as they are (keep).
    on_error: str
        Where a tile of a slide is damaged: stop with an error, or do not count it (skip and fill alike).
    max_pixels: int
        Most tissue pixels to sample from each slide.
    seed: int
        Of that sample.
    workers: int
        Threads. The result does not depend on it.
    """
    from restain.evaluation.comparison import check_preview, compare_slides, write_preview

    check_workers(workers)
    if preview is not None:
        check_preview(preview, (source, target), overwrite)
    result = compare_slides(
        source,
        target,
        parts(methods),
        icc=icc,
        on_error=on_error,
        max_pixels=max_pixels,
        seed=seed,
        workers=workers,
    )
    if preview is not None:
        write_preview(preview, result, overwrite)
    print_comparison(result, as_json=json_)
    return 0
