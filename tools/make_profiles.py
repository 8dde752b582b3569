"""Make the shipped profiles anew from freely licensed tissue.

    python tools/make_profiles.py DATA [--output src/restain/profiles]

DATA is the folder of real images (its MANIFEST.md lists sources and licences). Only sources whose licence lets
derived numbers be published are read. A profile keeps the colours of the tissue and of the flat regions, binned to
5 bits a channel.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from restain.color.histogram import ColorHistogram
from restain.references import find_files, read_reference

PROFILES = {
    "he": {
        "title": "hematoxylin and eosin: Aperio CMU-1 (OpenSlide test data), 20x",
        "files": ["wsi/CMU-1-Small-Region.svs"],
        "licence": "CC0-1.0",
        "source": "OpenSlide test data, Carnegie Mellon University",
    },
    "pap": {
        "title": "Papanicolaou, liquid-based cytology: Leica ICC50 HD, 400x (Mendeley LBC)",
        "files": ["mendeley_lbc/NL/*.jpg"],
        "licence": "CC-BY-4.0",
        "source": "Hussain et al., Liquid based cytology pap smear images, Mendeley Data, doi:10.17632/zddtpgzv63",
    },
}


def make(name: str, data: Path) -> ColorHistogram:
    """Read, merge with equal weight, bin."""
    recipe = PROFILES[name]
    files = [file for pattern in recipe["files"] for file in find_files(data / pattern)]
    histogram = ColorHistogram.merged((read_reference(file) for file in files), equally=True).binned(5)
    facts = {key: recipe[key] for key in ("title", "licence", "source")}
    facts["images"] = [file.relative_to(data).as_posix() for file in files]
    return replace(histogram, provenance={"profile": name, **facts})


def main() -> None:
    """Write every profile and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("src/restain/profiles"))
    arguments = parser.parse_args()
    for name in PROFILES:
        path = arguments.output / f"{name}.safetensors"
        histogram = make(name, arguments.data)
        histogram.save(path)
        print(f"{path}: {len(histogram)} colours, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
