"""How much memory DSTGAN's training takes, with and without checkpointing, beside StainGAN's; and seconds for updates.

    python benchmarks/memory.py                       # on the GPU where there is one
    python benchmarks/memory.py --only dstgan --updates 10

Networks of the papers' sizes, two tiles of 256 × 256 of either domain (random numbers: nothing depends on them),
float32. Each training runs in a process of its own, where one update comes before those that are timed: the optimizers
then hold their state. On a CPU the peak is that of the process, and what it had reached before the networks were made
is printed and taken off. On a GPU it is that of PyTorch's allocator. DSTGAN's goal is 8 GiB: then common cards will do.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from common import CORES, print_goal, print_header, print_table

# PyTorch is imported where it is needed: a process's peak counts what its parent held when it was started.

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dstgan": ("dstgan", {}),
    "dstgan, nothing computed twice": ("dstgan", {"checkpoint": False}),
    "staingan": ("staingan", {"crop": 256, "batch_size": 2}),
}
GIB = 2**30
GOAL = 8.0


def peak(device: str) -> int:
    """Bytes held at most until now."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(label: str, updates: int, device: str) -> None:
    """Train for so many updates and one before them; print bytes before, bytes at most, and seconds, as JSON."""
    import torch

    from restain.systems import SYSTEMS
    from restain.systems.engine import PlainEngine

    name, config = CASES[label]
    torch.manual_seed(0)
    torch.empty(1, device=device)
    before = peak(device)
    system = SYSTEMS[name](config=config)
    for network in system.networks().values():
        network.to(device, memory_format=torch.channels_last)
    system.optimizers = system.make_optimizers()
    size = (system.config.batch_size, 3, 256, 256)
    batch = {
        domain: torch.rand(size, device=device).contiguous(memory_format=torch.channels_last)
        for domain in system.domains
    }
    engine = PlainEngine()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    system.update(batch, engine)
    wait()
    begin = time.perf_counter()
    for _ in range(updates):
        system.update(batch, engine)
    wait()
    print(json.dumps([before, peak(device), time.perf_counter() - begin]))


def apart(label: str, updates: int, device: str) -> tuple[int, int, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", label, "--updates", str(updates), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    before, most, seconds = json.loads(done.stdout.splitlines()[-1])
    return before, most, seconds


def has_gpu() -> bool:
    """Whether PyTorch sees one; asked in another process."""
    question = "import torch; print(torch.cuda.is_available())"
    asked = subprocess.run([sys.executable, "-c", question], stdout=subprocess.PIPE, text=True, check=True)
    return asked.stdout.strip() == "True"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=1, help="how many are timed; seconds are scaled to 10")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where; the GPU if there is one")
    parser.add_argument("--only", choices=CASES, help="this training alone")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.updates < 1:
        parser.error("--updates must be 1 or more")
    device = options.device or ("cuda" if has_gpu() else "cpu")
    if options.measure:
        measure(options.measure, options.updates, device)
        return
    where = "GPU" if device == "cuda" else f"{CORES} threads"
    print_header(f"Memory of training, 2 tiles of 256 x 256 of either domain, float32; {where}", "random numbers")
    rows, goals = [], []
    for label in [options.only] if options.only else CASES:
        before, most, seconds = apart(label, options.updates, device)
        own = (most - before) / GIB
        pace = f"{10 * seconds / options.updates:.1f}"
        rows.append([label, f"{before / GIB:.2f}", f"{most / GIB:.2f}", f"{own:.2f}", pace])
        if label == "dstgan":
            goals.append(own)
    print_table(["training", "GiB before", "GiB at most", "GiB of its own", "s for 10 updates"], rows)
    for own in goals:
        print_goal("DSTGAN's memory", own, GOAL, unit=" GiB")


if __name__ == "__main__":
    main()
