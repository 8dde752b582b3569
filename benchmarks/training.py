"""How many images a second a training gets through, beside a plain loop over the same networks.

    python benchmarks/training.py
    python benchmarks/training.py --system stst --blocks 6

The plain loop is what one writes first: images opened with Pillow and cropped when they are needed, tensors channels
first, float32, one update after the other. restain's decodes ahead or keeps what fits in memory, lays weights and
images out channels last, and multiplies bfloat16 where the hardware has it. Both run the same updates of the same
networks on the same tiles (phantoms, JPEG), in turns: the ratio is of the medians over turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import print_header, print_table
from PIL import Image

from restain.phantom import STAINS_A, STAINS_B, make_phantom
from restain.systems import SYSTEMS
from restain.systems.engine import PlainEngine
from restain.training.data import TrainingData
from restain.training.engine import AccelerateEngine, make_accelerator
from restain.training.settings import make_recipe
from restain.training.validation import to_floats

SIZES = {
    "staingan": {"channels": 24, "blocks": 4, "discriminator_channels": 32, "crop": 128, "batch_size": 1},
    "stst": {"channels": 32, "crop": 256, "batch_size": 1},
    "stainnet": {"crop": 256, "batch_size": 10},
}
TILES, SIDE = 24, 512


def write_tiles(folder: Path) -> None:
    """Phantom tiles of two labs as JPEG, files of one name showing the same tissue."""
    for role, stains in (("source", STAINS_A), ("target", STAINS_B)):
        (folder / role).mkdir()
        for seed in range(TILES):
            image = make_phantom(SIDE, SIDE, seed=seed, stain_matrix=stains).image
            Image.fromarray(image).save(folder / role / f"{seed:02d}.jpg", quality=92)


def plain_loop(name: str, folder: Path) -> Callable[[int], None]:
    """A function that runs so many updates the plain way."""
    torch.manual_seed(0)
    system = SYSTEMS[name](config=SIZES[name])
    system.optimizers = system.make_optimizers()
    random, crop, number = np.random.default_rng(0), system.config.crop, system.config.batch_size

    def batch() -> dict[str, torch.Tensor]:
        images = {}
        for role in system.domains:
            crops = []
            for index in random.integers(TILES, size=number):
                pixels = np.asarray(Image.open(folder / role / f"{index:02d}.jpg").convert("RGB"))
                x, y = random.integers(SIDE - crop + 1, size=2)
                part = pixels[y : y + crop, x : x + crop]
                crops.append(np.ascontiguousarray(part[:, ::-1] if random.random() < 0.5 else part))
            images[role] = torch.stack([torch.from_numpy(crop).permute(2, 0, 1).float() / 255 for crop in crops])
            images[role] = images[role].contiguous()
        return images

    def run(updates: int) -> None:
        for _ in range(updates):
            system.update(batch(), PlainEngine())

    return run


def our_loop(name: str, folder: Path, cached: bool) -> Callable[[int], None]:
    """A function that runs so many updates as `restain train` does."""
    roles = SYSTEMS[name].domains
    values = {
        "system": name,
        "config": SIZES[name],
        "data": {role: [str(folder / role)] for role in roles} | {"samples_per_epoch": 10**6},
    }
    if name == "stainnet":
        values["data"]["pairs"] = "names"
    if not cached:
        values["data"]["cache_bytes"] = 0
    recipe = make_recipe(values)
    accelerator = make_accelerator(recipe.training)
    torch.manual_seed(0)
    system = SYSTEMS[name](config=recipe.config)
    for network in system.networks().values():
        network.to(accelerator.device).to(memory_format=torch.channels_last)
    system.optimizers = {key: accelerator.prepare_optimizer(value) for key, value in system.make_optimizers().items()}
    engine = AccelerateEngine(accelerator)
    batches = TrainingData(recipe.data).batches(0)

    def run(updates: int) -> None:
        for _ in range(updates):
            system.update({role: to_floats(images) for role, images in next(batches).items()}, engine)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", choices=SIZES, help="only this one")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn, about")
    options = parser.parse_args()
    print_header(
        "Throughput of training", f"{TILES} phantom tiles of {SIDE}x{SIDE} of each of two labs, JPEG quality 92"
    )
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_tiles(folder)
        for name in [options.system] if options.system else SIZES:
            loops = {
                "plain": plain_loop(name, folder),
                "restain, tiles in memory": our_loop(name, folder, cached=True),
                "restain, decoded ahead": our_loop(name, folder, cached=False),
            }
            start = time.perf_counter()
            for loop in loops.values():
                loop(2)
            each = (time.perf_counter() - start) / (2 * len(loops))
            updates = max(1, round(options.seconds / each))
            times: dict[str, list[float]] = {label: [] for label in loops}
            for _ in range(options.turns):
                for label, loop in loops.items():
                    start = time.perf_counter()
                    loop(updates)
                    times[label].append((time.perf_counter() - start) / updates)
            usual = {label: statistics.median(values) for label, values in times.items()}
            number = SIZES[name]["batch_size"]
            for label, seconds in usual.items():
                ratio = f"{usual['plain'] / seconds:.2f}x"
                rows.append([name, label, f"{1000 * seconds:.0f} ms", f"{number / seconds:.2f}", ratio])
    print_table(["system", "loop", "update", "images/s", "to the plain loop"], rows)


if __name__ == "__main__":
    main()
