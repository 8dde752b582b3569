"""Runs inside one peer's environment, as a process: answers JSON lines; needs NumPy and the peer, nothing of restain.

Each request names what to `do`; arrays are .npy files. What the peer prints goes to standard error.
"""

import functools
import importlib
import json
import os
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from unittest import mock

import numpy as np


class Torchstain:
    """torchstain; NumPy takes (H, W, 3) uint8, torch (3, H, W) uint8. Without the H and E pictures, which cost time."""

    def __init__(self):
        import torch
        import torchstain

        self._torch, self._normalizers = torch, torchstain.normalizers

    def make(self, method):
        name, backend = method.split()
        if name == "macenko":
            return self._normalizers.MacenkoNormalizer(backend=backend)
        modified = "modified" if name == "reinhard_modified" else None
        return self._normalizers.ReinhardNormalizer(backend=backend, method=modified)

    def convert(self, method, array):
        if method.endswith("numpy"):
            return array
        tensor = self._torch.from_numpy(array)
        return tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor

    def transform(self, method, normalizer, image):
        if method.startswith("macenko"):
            return normalizer.normalize(image, stains=False)[0]
        return normalizer.normalize(image)

    def back(self, method, output):
        return np.asarray(output)  # (H, W, 3) from either backend


class TIAToolbox:
    """tiatoolbox: (H, W, 3) uint8 in and out."""

    def __init__(self):
        self._make = importlib.import_module("tiatoolbox.tools.stainnorm").get_normalizer

    def make(self, method):
        return self._make(method)

    def convert(self, method, array):
        return array

    def transform(self, method, normalizer, image):
        return normalizer.transform(image)

    def back(self, method, output):
        return np.asarray(output)


class StainTools(TIAToolbox):
    """StainTools: (H, W, 3) uint8 in and out.

    "vahadane rested" is its method with a factorisation that may come to rest, see `Rested`.
    """

    def __init__(self):
        import staintools

        self._package = staintools

    def make(self, method):
        if method == "reinhard":
            return self._package.ReinhardColorNormalizer()
        name, *options = method.split()
        normalizer = self._package.StainNormalizer(name)
        if "rested" in options:
            normalizer.extractor = Rested(normalizer.extractor)
        return normalizer


class Rested:
    """A stain extractor whose factorisation takes 1000 rounds of 4096 pixels, not what a second has time for."""

    def __init__(self, extractor):
        self._extractor = extractor

    def get_stain_matrix(self, image):
        import spams

        longer = functools.partial(spams.trainDL, iter=1000, batchsize=4096, numThreads=1)
        with mock.patch.object(spams, "trainDL", longer):
            return self._extractor.get_stain_matrix(image)


class TorchStainTools:
    """torch-staintools: (N, 3, H, W) float32 in 0..1, called as a module, which is how its documentation has it.

    A method may be followed by "cached": the stain matrix of the first image serves all.
    """

    def __init__(self):
        self._torch = importlib.import_module("torch")
        self._make = importlib.import_module("torch_staintools.normalizer").NormalizerBuilder.build

    def make(self, method):
        return self._make(method.split()[0], use_cache="cached" in method)

    def convert(self, method, array):
        tensor = self._torch.from_numpy(array)
        if array.dtype == np.uint8:
            tensor = tensor.float() / 255
        return tensor.permute(2, 0, 1)[None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)

    def transform(self, method, normalizer, image):
        if "cached" in method:
            return normalizer(image, cache_keys=["slide"] * len(image))
        return normalizer(image)

    def back(self, method, output):
        return np.moveaxis(output.numpy()[0], 0, -1) if len(output) == 1 else np.moveaxis(output.numpy(), 1, -1)


PEERS = {
    "torchstain": Torchstain,
    "tiatoolbox": TIAToolbox,
    "torch-staintools": TorchStainTools,
    "staintools": StainTools,
}


def main():
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peer prints must not get among the replies
    sys.stdout = sys.stderr
    load_torchvision()
    name = sys.argv[1]
    peer, fitted, held = PEERS[name](), {}, []
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"error": "", "message": "", "seconds": 0.0, "changed": False}
        try:
            if request["do"] == "hello":
                reply["version"] = version(name)
            elif request["do"] == "fit":
                fit(peer, fitted, request, reply)
            elif request["do"] == "load":
                held = [np.load(path) for path in request["paths"]]
            elif request["do"] == "time":
                reply["seconds"] = time_all(peer, fitted, request["method"], held)
            else:
                transform(peer, fitted, request, reply)
        except Exception as error:  # whatever the peer raises is what is asked for
            kind = type(error)
            reply["error"] = f"{kind.__module__}.{kind.__name__}" if kind.__module__ == "cv2" else kind.__name__
            reply["message"] = str(error).strip().splitlines()[0][:160] if str(error).strip() else ""
        print(json.dumps(reply), file=replies, flush=True)


def fit(peer, fitted, request, reply):
    method = request["method"]
    normalizer = peer.make(method)
    target = peer.convert(method, np.load(request["path"]))
    begin = time.perf_counter()
    normalizer.fit(target)
    reply["seconds"] = time.perf_counter() - begin
    fitted[method] = normalizer


def transform(peer, fitted, request, reply):
    method = request["method"]
    image = np.load(request["path"])
    before = image.copy()
    image.setflags(write=not request["read_only"])
    given = peer.convert(method, image)
    tensor_before = None if given is image else given.clone()
    begin = time.perf_counter()
    try:
        output = peer.transform(method, fitted[method], given)
    finally:
        reply["seconds"] = time.perf_counter() - begin
        reply["changed"] = not np.array_equal(image, before, equal_nan=image.dtype.kind == "f")
        if tensor_before is not None:
            reply["changed"] |= not bool((given == tensor_before).all())
    np.save(request["out"], peer.back(method, output))


def time_all(peer, fitted, method, images):
    """Seconds inside the calls; conversions to and from the peer's form, and copies, are not counted."""
    normalizer, seconds = fitted[method], 0.0
    for image in images:
        given = peer.convert(method, image.copy())
        begin = time.perf_counter()
        peer.transform(method, normalizer, given)
        seconds += time.perf_counter() - begin
    return seconds


def load_torchvision():
    """Import torchvision where its compiled part cannot be loaded, as beside a CPU build of torch.

    It then refuses to be imported at all, because the operators that it describes to torch's compiler are missing. No
    normalizer uses one of them, so their descriptions are left out.
    """
    with suppress(ImportError):
        import torch.library

        register = torch.library.register_fake

        def register_known(operator, *args, **kwargs):
            if isinstance(operator, str) and operator.startswith("torchvision::"):
                return lambda function: function
            return register(operator, *args, **kwargs)

        torch.library.register_fake = register_known
        with suppress(ImportError):
            importlib.import_module("torchvision")
        torch.library.register_fake = register


if __name__ == "__main__":
    main()
