"""Whether each adversarial system can learn four tiles by heart: its reconstruction error must fall at least fivefold.

    python benchmarks/overfit.py
    python benchmarks/overfit.py --system stst --updates 600

What cannot fit four tiles has a mistake in its losses, its updates or its networks. StainGAN is judged by its cycle
(source → target → source, mean absolute error on −1..1), the others by the target's own colours, taken away and found
again; NST has no such error. CHEN is in its stage 1, and DSTGAN has the weight of its preset for few data. The networks
are narrow, the tiles are phantoms of two labs; at every look the error is printed beside what it was before the first
update.
"""

import argparse
import time

import numpy as np
import torch
from common import print_header, print_table

from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.systems import SYSTEMS
from restain.systems.engine import PlainEngine

CASES = {
    "staingan": (
        {"channels": 24, "blocks": 3, "discriminator_channels": 16, "discriminator_layers": 2, "crop": 64},
        {"learning_rate": 1e-3, "batch_size": 4},
        ("cycle", "cycle_back"),
        400,
    ),
    "stst": ({"channels": 16}, {"learning_rate": 1e-3, "batch_size": 4}, ("l1",), 150),
    "chen": (
        {"channels": 8, "discriminator_channels": 4, "crop": 128},
        {"learning_rate": 3e-3, "batch_size": 4},
        ("l1",),
        100,
    ),
    "dstgan": (
        {
            "channels": 12,
            "merges": 3,
            "attention_window": 4,
            "heads": (1, 2, 4),
            "discriminator_channels": 8,
            "crop": 32,
        },
        {"learning_rate": 3e-3, "batch_size": 4, "lambda_sup": 100.0, "hist_bins": 16, "hist_size": 32},
        ("supervised",),
        200,
    ),
}
"""By system: sizes, settings, the losses that must fall, and updates."""


def tiles(side: int) -> dict[str, torch.Tensor]:
    """Four tiles of each lab, (4, 3, side, side) in 0..1."""
    looks = {"source": (STAINS_A, Scanner(noise=1.0)), "target": (STAINS_B, Scanner(white=(236.0, 231.0, 228.0)))}
    return {
        role: torch.from_numpy(
            np.stack(
                [
                    make_phantom(side, side, seed=10 * seed + len(role), stain_matrix=stains, scanner=scanner).image
                    for seed in range(4)
                ]
            )
        )
        .permute(0, 3, 1, 2)
        .float()
        / 255
        for role, (stains, scanner) in looks.items()
    }


def overfit(name: str, updates: int | None) -> list[list[str]]:
    """Train on the four tiles; a row at every doubling of the updates."""
    sizes, settings, watched, usual = CASES[name]
    torch.manual_seed(0)
    system = SYSTEMS[name](config={**sizes, **settings})
    for network in system.networks().values():
        network.to(memory_format=torch.channels_last)
    system.optimizers = system.make_optimizers()
    batch = tiles(system.config.crop)
    engine, rows, first, start = PlainEngine(), [], None, time.perf_counter()
    total = updates or usual
    looks = {1, total, *(2**k for k in range(4, 20) if 2**k < total)}
    for update in range(1, total + 1):
        losses = system.update(batch, engine)
        error = float(sum(losses[key] for key in watched)) / len(watched)
        first = error if first is None else first
        if update in looks:
            seconds = time.perf_counter() - start
            rows.append([name, f"{update}", f"{error:.4f}", f"{first / error:.1f}x", f"{seconds:.0f} s"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", choices=CASES, help="only this one")
    parser.add_argument("--updates", type=int)
    options = parser.parse_args()
    print_header("Four tiles learned by heart", "4 phantom tiles of each of two labs")
    names = [options.system] if options.system else list(CASES)
    rows = [row for name in names for row in overfit(name, options.updates)]
    print_table(["system", "updates", "reconstruction L1", "fallen by", "time"], rows)


if __name__ == "__main__":
    main()
