"""restain beside torchstain, tiatoolbox, torch-staintools and StainTools: agreement, unusual input, seams, speed.

    python benchmarks/peers.py --setup FOLDER                       # once: an environment of its own for each of them
    python benchmarks/peers.py --environments FOLDER
    python benchmarks/peers.py --environments FOLDER --only seams --picture per-tile.png

The packages do not run in one environment, so each has a process in its own, which gets arrays as files; times are
those inside the packages' calls. RESTAIN_PEERS may name the folder in place of `--environments`. What there is no
environment for is left out. The parts, one file a question, are in `benchmarks/peers/`.
"""

import argparse
import os
from pathlib import Path

from common import he_slide, print_goal, print_header
from peers import agreement, bad_input, per_tile, pictures, speed  # the folder, which comes before this file
from peers.environments import Worker, run_setup, start

QUESTIONS = ("agreement", "input", "seams", "speed")


def main() -> None:
    arguments = parse_arguments()
    if arguments.setup:
        run_setup(arguments.setup)
        return
    folder = Path(arguments.environments) if arguments.environments else None
    workers = start(folder)
    try:
        data = f"{he_slide()[1]}; fitted to {pictures.target()[1]}"
        print_header(f"restain beside {versions(workers)}", data)
        if workers:
            for question in arguments.only:
                answer(question, workers, arguments)
    finally:
        for worker in workers.values():
            worker.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", metavar="FOLDER", help="make the packages' environments there, and end")
    parser.add_argument("--environments", metavar="FOLDER", default=os.environ.get("RESTAIN_PEERS"), help="made before")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, help="the questions to ask")
    parser.add_argument("--rounds", type=int, default=5, help="how often to time (default: 5)")
    parser.add_argument("--picture", metavar="FILE", help="write the slide tile by tile, with `seams`")
    return parser.parse_args()


def versions(workers: dict[str, Worker]) -> str:
    """The packages that run, with their versions."""
    return ", ".join(f"{name} {worker.facts['version']}" for name, worker in workers.items()) or "no other package"


def answer(question: str, workers: dict[str, Worker], arguments: argparse.Namespace) -> None:
    """Print one question's tables and goals."""
    target, slide = pictures.target()[0], he_slide()[0]
    if question == "agreement":
        for flavour, mean in agreement.measure(workers, target, dict(pictures.lab_tiles())).items():
            print_goal(f"{flavour}, mean difference", mean, 1, unit=" levels")
    elif question == "input":
        ours = bad_input.measure(workers, target, pictures.tissue_tiles(slide, 1)[0])
        print_goal("restain, inputs refused or silently wrong", ours, 0)
    elif question == "seams" and "torchstain" in workers:
        ours = per_tile.measure(workers["torchstain"], target, slide, arguments.picture)
        print_goal("seam score of restain, over the source's", ours, 1.05)
    elif question == "speed":
        large, small = pictures.darkest_crop(slide, 2048), pictures.tissue_tiles(slide)
        for what, (mapped, estimated) in speed.measure(workers, target, large, small, arguments.rounds).items():
            print_goal(f"{what}: fastest package over restain, mapped", mapped, 100, least=True, unit="x")
            print_goal(f"{what}: fastest package over restain, estimated once", estimated, 5, least=True, unit="x")
    print()


if __name__ == "__main__":
    main()
