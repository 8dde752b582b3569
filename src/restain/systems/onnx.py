"""Trained networks as ONNX, with what comes before and after them: 8-bit images in, 8-bit images out.

The graph's inputs are `image`, uint8 (N, H, W, 3), and, where glass is taken care of, `white`, float32 (3,): the
slide's white point in levels, which `estimate` measures. The output is `normalized`, uint8 of the image's shape. H
and W are multiples of the network's own number, and its least side or more; both are in the file's metadata beside
what else is known of it.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restain import files
from restain.color.glass import GLASS_DENSITY
from restain.color.images import RGB8
from restain.errors import InputError, MissingExtraError
from restain.methods.base import Appearance, Normalizer
from restain.methods.stainnet import StainNet
from restain.strict_json import to_json
from restain.systems.base import System
from restain.systems.deployed import Deployed
from restain.systems.stst import SeededDropout

OPSET = 20
"""Of the operators in the file; runtimes since 2023 know it."""


class LevelsToLevels(nn.Module):
    """A network on 0..1 as one on 8-bit images, (N, H, W, 3), with the rule for glass (`restain.methods.glass`).

    Args:
        network: images (N, 3, H, W) in 0..1 to the same.
        reference_white: of the scale that its results are on.
        wanted_white: what the source's glass is to become; None for no rule.
        keep: whether it is to become what it is already (`background="keep"`).
    """

    def __init__(
        self, network: nn.Module, reference_white: Any, wanted_white: Any = None, *, keep: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.keep = keep
        self.ruled = keep or wanted_white is not None
        reference = torch.as_tensor(np.asarray(reference_white, np.float32)) + 1
        wanted = reference if wanted_white is None else torch.as_tensor(np.asarray(wanted_white, np.float32)) + 1
        self.register_buffer("reference", reference)
        self.register_buffer("wanted", wanted)

    def forward(self, image: Tensor, white: Tensor | None = None) -> Tensor:
        """Normalize; see the module's docstring."""
        levels = image.to(torch.float32)
        restyled = self.network(levels.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1) * 255
        if self.ruled:
            assert white is not None
            restyled = self._match_glass(levels, restyled, white + 1)
        out: Tensor = restyled.clamp(0, 255).round().to(torch.uint8)
        return out

    def _match_glass(self, levels: Tensor, restyled: Tensor, white: Tensor) -> Tensor:
        reference, wanted = self.reference, white if self.keep else self.wanted
        assert isinstance(reference, Tensor)
        assert isinstance(wanted, Tensor)
        transmittance = (levels + 1) / white
        density = -torch.log(transmittance).amin(dim=-1, keepdim=True)
        low, high = GLASS_DENSITY
        tissue = ((density - low) / (high - low)).clamp(0, 1)
        weight = 1 - tissue * tissue * (3 - 2 * tissue)
        # As levels of a scanner whose glass is 255, between its black and white.
        balanced = ((restyled + 1) / reference * 256 - 1).clamp(0, 255)
        return (weight * transmittance + (1 - weight) * (balanced + 1) / 256) * wanted - 1


def exportable(normalizer: Normalizer, appearance: Appearance | None = None) -> tuple[nn.Module, int]:
    """A trained normalizer as one module on 8-bit images, and the number that sides must be multiples of.

    Args:
        normalizer: a trained system, or a `StainNet`.
        appearance: of a slide, whose norm statistics are then part of it; None for each image's own.

    Raises:
        InputError: it is no network, or one that draws random numbers.
    """
    reference = normalizer._fitted()
    if isinstance(normalizer, System):
        if appearance is None:
            appearance = normalizer.appearance_type(reference.white_point, reference.white_origin, 0.0)
        network, multiple = normalizer.inference_network(appearance), normalizer.multiple
        if any(isinstance(module, SeededDropout) for module in network.modules()):
            raise InputError(
                f"{normalizer.name} draws random numbers here, which a file cannot; set its inference to instance"
            )
    elif isinstance(normalizer, StainNet):
        network, multiple = _pixel_network(normalizer), 1
    else:
        raise InputError(f"{normalizer.name} is no network; a colour map is exported as a .cube, by ColorMap.save_cube")
    background = normalizer.background
    wanted = {"match": reference.white_point, "white": np.full(3, 255.0)}.get(background)
    module = LevelsToLevels(network, reference.white_point, wanted, keep=background == "keep")
    return module.cpu().eval(), multiple


def export_onnx(
    normalizer: Normalizer,
    path: str | os.PathLike[str],
    *,
    appearance: Appearance | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trained network as ONNX.

    Args:
        normalizer, appearance: see `exportable`.
        path: the file, .onnx.
        overwrite: whether one that is there is replaced.

    Raises:
        InputError: it is no network. OutputError: the file may not be written.
        MissingExtraError: onnx or onnxscript are not installed.
    """
    path = Path(path)
    files.refuse_overwrite(path, overwrite)
    module, multiple = exportable(normalizer, appearance)
    side = max(2 * multiple, 64)
    image = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    inputs: tuple[Tensor, ...] = (image, torch.full((3,), 240.0))
    names = ["image", "white"]
    if normalizer.background == "none":
        inputs, names = inputs[:1], names[:1]
    dim = torch.export.Dim
    height, width = (multiple * dim(name, min=1, max=65536 // multiple) if multiple > 1 else dim(name) for name in "hw")
    shapes: dict[str, Any] = {"image": {0: dim("n"), 1: height, 2: width}}
    if len(names) > 1:
        shapes["white"] = None
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                input_names=names,
                output_names=["normalized"],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                optimize=True,
            )
    except ImportError as error:
        raise MissingExtraError(
            f"exporting needs onnx and onnxscript ({error}); install them: pip install 'restain[export]'"
        ) from None
    assert program is not None
    facts = {
        "method": normalizer.name,
        "settings": normalizer.settings(brief=True),
        "provenance": dict(normalizer.provenance_),
        "multiple": multiple,
        "least_side": normalizer.least_side if isinstance(normalizer, System) else 1,
        "norm_statistics": getattr(appearance, "statistics", getattr(normalizer, "own_statistics", "none")),
    }
    program.model.metadata_props["restain"] = to_json(facts)
    with files.atomic_output(path, overwrite=overwrite) as temporary:
        program.save(temporary, external_data=False)
    return path


def run_onnx(path: str | os.PathLike[str], images: RGB8, white: Any = None, threads: int = 0) -> RGB8:
    """Run an exported file with ONNX Runtime on the CPU: what users do, and what exports are checked with.

    Args:
        path: the file.
        images: (N, H, W, 3) uint8.
        white: (3,) the slide's white point; for files that have this input.
        threads: of the runtime; 0 for its own choice.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"running ONNX needs onnxruntime ({error}); install it: pip install 'restain[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {"image": images}
    if len(session.get_inputs()) > 1:
        if white is None:
            raise InputError(f"{path} takes care of glass; give the slide's white point")
        feed["white"] = np.asarray(white, np.float32)
    out: RGB8 = session.run(None, feed)[0]
    return out


def _pixel_network(normalizer: StainNet) -> nn.Module:
    """A StainNet's weights as 1×1 convolutions on 0..1."""
    assert normalizer.weights is not None
    layers: list[nn.Module] = []
    for number in range(1, len(normalizer.weights) // 2 + 1):
        weight = torch.from_numpy(np.asarray(normalizer.weights[f"weight{number}"], np.float32))
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        bias = torch.from_numpy(np.asarray(normalizer.weights[f"bias{number}"], np.float32))
        layer.weight, layer.bias = nn.Parameter(weight[:, :, None, None]), nn.Parameter(bias)
        layers += [layer, nn.ReLU()]
    return Deployed(nn.Sequential(*layers[:-1]))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of what it does, and warns of its own inside."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), open(os.devnull, "w") as sink:
            import contextlib

            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(sink):
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
