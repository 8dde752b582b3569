"""Every tile folder and slide of the data folder, normalized by every method: failures, and what becomes of glass.

    python benchmarks/tissue.py [--sheets FOLDER] [--most 12] [--free]

For each folder and method: files normalized, estimates that fell back, and the largest distance (grey levels, any
channel, any file) of the mean of visible glass from the reference's white point, with `background="match"`, and from
itself with "keep". Glass: the pixels of flat 8×8 blocks within 6 levels of the file's own white point, where one
was seen. Methods that need weights are left out. Folders whose licence keeps figures from being published are marked
with a star, and left out with `--free`.
Cytology is normalized to the profile "pap", everything else to "he". `--sheets` writes before/after sheets to look at.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from common import data_folder, print_header
from PIL import Image

import restain
from restain.color import counting
from restain.color.histogram import FLAT_BLOCK, FLAT_DEVIATION
from restain.slides.batch import is_image
from restain.slides.reader import open_slide

CYTOLOGY = ("mendeley_lbc", "cric_cells", "cytology_pair_stainnet", "scanners4_cytology")
FREE = ("crc_val_he_7k", "osteosarcoma", "wsi", "artefacts", "mendeley_lbc", "cric_cells", "scanners4_cytology")
"""CC0, CC BY, MIT, Apache: their figures may be published."""
FOLDERS = (
    "mitos_pairs/aperio", "mitos_pairs/hamamatsu", "glas/img", "breakhis_400x", "crc_val_he_7k", "lc25000",
    "osteosarcoma", "monuseg/img", "classic", "artefacts", "wsi", *CYTOLOGY,
)  # fmt: skip


def pixels_of(path: Path) -> np.ndarray:
    """Level 0, or the largest level that fits into 30 megapixels."""
    with open_slide(path) as slide:
        return slide.thumbnail(5500)[0]


def check(image: np.ndarray, normalizer: restain.Normalizer, keep: restain.Normalizer) -> tuple[np.ndarray, dict]:
    """Normalize one image; returns it and what was measured."""
    appearance = normalizer.estimate(image)
    out = normalizer.transform(image, appearance)
    facts = {"fallback": bool(appearance.fallback), "match": np.nan, "keep": np.nan}
    if appearance.white_origin == "glass":
        near = np.zeros(image.shape[:2], np.bool_)
        everywhere = np.zeros((0, 0), np.bool_)
        counting.flat_blocks(np.ascontiguousarray(image), everywhere, FLAT_BLOCK, FLAT_DEVIATION, near)
        near &= (np.abs(image - appearance.white_point) <= 6).all(axis=2)
        if near.sum() >= 128:
            facts["match"] = np.abs(out[near].mean(axis=0) - normalizer.reference_.white_point).max()
            kept = keep.transform(image, appearance)
            facts["keep"] = np.abs(kept[near].mean(axis=0) - image[near].mean(axis=0)).max()
    return out, facts


def sheet(rows: list[list[np.ndarray]], path: Path, side: int = 220) -> None:
    """Crops of up to 600 pixels, one row an image: raw, then each method."""
    canvas = Image.new("RGB", (side * len(rows[0]), side * len(rows)), "gray")
    for y, row in enumerate(rows):
        for x, pixels in enumerate(row):
            image = Image.fromarray(pixels)
            edge = min(600, *image.size)
            left, top = (image.width - edge) // 2, (image.height - edge) // 2
            crop = image.crop((left, top, left + edge, top + edge)).resize((side - 4, side - 4), Image.LANCZOS)
            canvas.paste(crop, (x * side, y * side))
    canvas.save(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--free", action="store_true", help="only folders whose figures may be published")
    parser.add_argument("--most", type=int, default=12, help="files a folder, evenly chosen")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    data = data_folder()
    if data is None:
        print("no data folder: set RESTAIN_DATA")
        return
    folders = FREE if arguments.free else FOLDERS
    print_header("Every method on real tissue", f"{len(folders)} folders, at most {arguments.most} files each")
    fitted = {
        profile: {
            name: (method().fit(profile), method(background="keep").fit(profile))
            for name, method in restain.METHODS.items()
            if not method.fixed
        }
        for profile in ("he", "pap")
    }
    print(f"{'folder':24}{'files':>6}  " + "".join(f"{name:>26}" for name in fitted["he"]))
    print(f"{'':32}" + "".join(f"{'fallback match keep':>26}" for _ in fitted["he"]))
    worst = 0.0
    for folder in folders:
        files = sorted(p for p in (data / folder).rglob("*") if is_image(p))
        files = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, arguments.most).astype(int))]
        methods = fitted["pap" if folder.startswith(CYTOLOGY) else "he"]
        images = [pixels_of(file) for file in files]
        rows, cells = [[image] for image in images], []
        for normalizer, keep in methods.values():
            facts = []
            for row in rows:
                out, fact = check(row[0], normalizer, keep)
                row.append(out)
                facts.append(fact)
            match, kept = (np.nanmax([f[k] for f in facts] + [-1.0]) for k in ("match", "keep"))
            worst = max(worst, match)
            fell = sum(f["fallback"] for f in facts)
            cells.append(f"{fell:>12} {match:>6.2f} {kept:>6.2f}")
        name = folder if folder in FREE else f"{folder} *"
        print(f"{name:24}{len(files):>6}  " + "".join(cells), flush=True)
        if arguments.sheets:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            sheet(rows[:8], arguments.sheets / f"{folder.replace('/', '_')}.png")
    print(f"largest distance of glass from the reference's white point: {worst:.2f} grey levels")


if __name__ == "__main__":
    main()
