"""`restain distill` and `restain export`: what a trained network becomes elsewhere."""

import math
from pathlib import Path
from typing import Literal

from restain.cli.options import Assignments, Background, Flag, Icc, Json, OnError, Output, need
from restain.errors import InputError
from restain.strict_json import to_json


def distill(
    teacher: Path,
    /,
    *,
    images: tuple[str, ...],
    output: Output,
    student: Literal["stainnet", "colormap"] = "stainnet",
    kernels: str | None = None,
    recipe: str = "stainnet-small",
    set_: Assignments = (),
    test: tuple[str, ...] = (),
    select_on: Literal["validation", "test"] = "validation",
    estimate: Literal["image", "folder"] = "image",
    tile: int = 256,
    tiles: int = 0,
    lattice: int = 33,
    validation_share: float = 0.1,
    group_pattern: str = "",
    background: Background | None = None,
    training_data_license: str | None = None,
    run: Path | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json_: Json = False,
    overwrite: Flag = False,
) -> int:
    """Make a colour map, or a StainNet, of any normalizer: a trained network, or a method. Needs PyTorch.

    Parameters
    ----------
    teacher: Path
        A training run's folder, or a saved normalizer.
    images: tuple[str, ...]
        Images of the source: a folder, slides, a pattern; may be given several times.
    output: Path
        The student to write, .safetensors.
    student: str
        The network StainNet, or a colormap fitted to the colours, without training.
    kernels: str
        Of StainNet's convolutions, instead of the recipe's: 1,1,1 is a colour map; with 3s, as in 3,1,1, it sees
        neighbours.
    recipe: str
        Of StainNet's training: stainnet-small takes minutes, stainnet is the paper's.
    set_: tuple[str, ...]
        Any setting of that recipe, as in --set config.epochs=20.
    test: tuple[str, ...]
        Images that the student is judged on at the end.
    select_on: str
        Which tiles choose the student's weights; test is the paper's leak, for parity.
    estimate: str
        Whether the teacher sees each tile by itself (image), or all of them as one slide's (folder).
    tile: int
        Side of the teacher's tiles, pixels.
    tiles: int
        Most tiles; 0 for all.
    lattice: int
        Points along each side of a colormap's lattice.
    validation_share: float
        Share of the images that the student is not trained on.
    group_pattern: str
        Regular expression whose first group, in a file's path, names its slide or patient: none is on both sides.
    background: str
        What becomes of glass, for the teacher and the student; the teacher's by default.
    training_data_license: str
        Licence of the images, to be kept with the student; the teacher's by default.
    run: Path
        A folder that keeps the teacher's work and the student's training; they are removed by default.
    seed: int
        Of the split and the student.
    device: str
        Where to compute.
    json_: bool
        Print a machine-readable summary.
    overwrite: bool
        Replace an existing student.
    """
    need("train", "distilling", "torch", *(["accelerate"] if student == "stainnet" else []))
    from restain.saved import load_with
    from restain.terminal import file_progress
    from restain.training.distill import DistillSettings
    from restain.training.distill import distill as make
    from restain.training.settings import parse_overrides

    try:
        sides = None if kernels is None else tuple(int(kernel) for kernel in kernels.split(","))
    except ValueError:
        raise InputError(f"got --kernels {kernels}; wanted sides such as 1,1,1") from None
    settings = DistillSettings(
        student=student,
        kernels=sides,
        recipe=recipe,
        overrides=parse_overrides(set_),
        tile=tile,
        tiles=tiles,
        estimate=estimate,
        validation_share=validation_share,
        select_on=select_on,
        group_pattern=group_pattern,
        training_data_license=training_data_license,
        lattice=lattice,
        seed=seed,
    )
    fitted = load_with(teacher, background)
    with file_progress(0, "the teacher's work") as progress:
        result = make(
            fitted,
            images,
            output,
            settings,
            test=test,
            run=run,
            device=device,
            overwrite=overwrite,
            quiet=json_,
            progress=progress,
        )
    facts = {
        "output": str(output),
        "method": result.student.name,
        "psnr": round(result.psnr, 3) if math.isfinite(result.psnr) else None,  # None: the very same pixels
        "ssim": round(result.ssim, 5),
        "tiles": result.judged,
        "judged_on": "test" if result.on_test else "validation",
        "unexplained": result.unexplained,
    }
    if json_:
        print(to_json(facts, indent=2))
        return 0
    print(
        f"{output}: {result.student.name}, {result.psnr:.2f} dB and SSIM {result.ssim:.4f} to its teacher on "
        f"{result.judged} {facts['judged_on']} tiles"
    )
    if result.unexplained is not None:
        print(f"{result.unexplained:.1%} of the variance of the teacher's colours no map of colours could give")
    return 0


def export(
    normalizer: Path,
    /,
    *,
    output: Output,
    slide: str | None = None,
    background: Background | None = None,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    overwrite: Flag = False,
) -> int:
    """Write a trained network as ONNX, for other runtimes: 8-bit images in, 8-bit images out.

    Parameters
    ----------
    normalizer: Path
        A training run's folder, or a saved network or StainNet.
    output: Path
        The file to write, .onnx.
    slide: str
        A slide whose norm statistics are frozen into the file; without, each image is normalized by its own.
    background: str
        What becomes of glass; with none the file has no input for the slide's white point.
    icc: str
        Convert the slide to sRGB by its ICC profile first (srgb), or take its pixels as they are (keep).
    on_error: str
        Where a tile of the slide is damaged: stop with an error, or do not count it (skip and fill alike).
    overwrite: bool
        Replace an existing file.
    """
    need("export", "exporting", "torch", "onnx", "onnxscript")
    from restain.saved import load_with
    from restain.systems.onnx import export_onnx

    if output.suffix != ".onnx":
        raise InputError(f"{output} should end in .onnx")
    fitted = load_with(normalizer, background)
    appearance = None
    if slide is not None:
        from restain.slides.forgiving import ForgivingSlide
        from restain.slides.reader import open_slide
        from restain.slides.sample import estimate_slide, sample_slide

        with open_slide(slide, icc=icc, on_error=on_error) as opened:
            histogram = sample_slide(opened)
            if isinstance(opened, ForgivingSlide):
                opened.check_some_left(histogram)
            appearance, _ = estimate_slide(opened, fitted, histogram)
            if isinstance(opened, ForgivingSlide):
                opened.tell()
    export_onnx(fitted, output, appearance=appearance, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {output.stat().st_size / 1e6:.1f} MB")
    return 0
