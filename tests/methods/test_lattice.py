"""Lattices as a method: other programs' files, exactness, and glass that is not tinted."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.interpolate import RegularGridInterpolator

import restain
from restain import ColorHistogram, Lattice
from restain.color.glass import PRIOR_WHITE
from restain.errors import FormatError, InputError
from restain.phantom import Phantom

from .making import lattice_table, make


def random_table(size: int) -> dict[str, np.ndarray]:
    """Levels by chance, some beyond black and white."""
    return {"levels": np.random.default_rng(size).uniform(-60, 320, (size, size, size, 3))}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """The .cube file of a map to the profile "he"."""
    path = tmp_path_factory.mktemp("cube") / "he.cube"
    normalizer = restain.Macenko().fit("he")
    normalizer.color_map(normalizer.estimate(phantom.image)).save_cube(path, 17)
    return path


# ---- the map ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 33, 65])
def test_the_bare_map_is_trilinear(size: int, phantom: Phantom) -> None:
    table = random_table(size)
    axis = np.linspace(0, 255, size)
    colors = np.random.default_rng(0).uniform(0, 255, (20_000, 3))
    expected = np.clip(RegularGridInterpolator((axis, axis, axis), table["levels"])(colors), 0, 255)
    bare = Lattice(table=table, background="none")
    np.testing.assert_allclose(bare.evaluate(colors), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(bare.map_colors(colors, bare.reference_), expected, rtol=0, atol=1e-9)
    assert bare.evaluate(colors).min() == 0
    assert bare.evaluate(colors).max() == 255


def test_colours_do_not_depend_on_the_number_of_threads() -> None:
    bare = Lattice(table=random_table(33), background="none")
    image = np.random.default_rng(2).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    one, many = (bare.color_map(bare.reference_, lazy=True, workers=workers)(image) for workers in (1, 5))
    np.testing.assert_array_equal(one, many)


def test_tissue_is_what_the_lattice_gives(phantom: Phantom) -> None:
    """The glass that is wanted changes nothing far from glass."""
    normalizer = make("lattice")
    dark = phantom.image.reshape(-1, 3)[(phantom.image.reshape(-1, 3) < 150).all(axis=1)]
    assert len(dark) > 100
    appearance = normalizer.estimate(phantom.image)
    expected = np.minimum(normalizer.evaluate(dark), normalizer.reference_.white_point)
    np.testing.assert_allclose(normalizer.map_colors(dark, appearance), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("background", ["match", "none"])
def test_the_wanted_glass_is_as_bright_as_the_lattice_makes_it(background: str) -> None:
    """Computed without the kernels, when the normalizer is made."""
    normalizer = make("lattice", background=background)
    level = 255.0 if background == "none" else normalizer.evaluate(np.array([PRIOR_WHITE])).max()
    np.testing.assert_allclose(normalizer.reference_.white_point, level, rtol=0, atol=1e-9)


def test_a_fitted_lattice_does_what_its_teacher_does(phantom: Phantom, reference: Phantom) -> None:
    from restain.color.regression import PairedColors, fit_lattice

    teacher = restain.Macenko().fit(reference.image)
    appearance = teacher.estimate(phantom.image)
    pairs = PairedColors.from_images(phantom.image, teacher.transform(phantom.image, appearance))
    student = Lattice(table={"levels": fit_lattice(pairs).levels}).fit(reference.image)
    wanted, made = (each.transform(phantom.image).astype(int) for each in (teacher, student))
    assert (np.abs(wanted - made) <= 1).mean() > 0.98
    assert np.abs(wanted - phantom.image).mean() > 10


# ---- files ------------------------------------------------------------------------------------------------------


def test_a_cube_file_is_applied_as_other_programs_do(file: Path, phantom: Phantom) -> None:
    rows = [line.split() for line in file.read_text().splitlines() if line[0].isdigit()]
    by_pillow = ImageFilter.Color3DLUT(17, np.array(rows, np.float32).ravel())
    expected = np.asarray(Image.fromarray(phantom.image).filter(by_pillow)).astype(int)
    ours = Lattice.from_cube(file, background="none").transform(phantom.image)
    assert np.abs(ours - expected).max() <= 1  # Pillow interpolates in fixed point
    assert (ours == expected).mean() > 0.9


def test_where_the_table_comes_from_is_kept(file: Path, phantom: Phantom, tmp_path: Path) -> None:
    """Whatever reference is fitted, before or after the normalizer was saved."""
    facts = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    reference = replace(ColorHistogram.from_image(phantom.image), provenance={"slide": "an id"})
    bare, fitted = Lattice.from_cube(file), Lattice.from_cube(file, reference)
    assert bare.provenance_ == {"table": facts}
    assert fitted.provenance_ == {"slide": "an id", "table": facts}
    assert fitted.reference_.white_origin == "glass"
    fitted.save(tmp_path / "l.safetensors")
    loaded = restain.load(tmp_path / "l.safetensors")
    assert loaded == fitted
    assert loaded.fit(phantom.image).provenance_ == {"table": facts}
    learned = make("lattice")
    learned.provenance_ = {"distilled": {"teacher": "macenko"}}
    assert learned.fit(reference).provenance_ == {"slide": "an id", "distilled": {"teacher": "macenko"}}


def test_a_cube_file_larger_than_a_lattice_may_be(tmp_path: Path) -> None:
    restain.ColorMap.identity().save_cube(tmp_path / "large.cube", 66)
    with pytest.raises(FormatError, match=r"large\.cube has 66 points along a side; wanted at most 65"):
        Lattice.from_cube(tmp_path / "large.cube")


def test_the_largest_lattice_is_saved_and_read(tmp_path: Path) -> None:
    lattice = Lattice(table=random_table(65))
    lattice.save(tmp_path / "l.safetensors")
    assert restain.load(tmp_path / "l.safetensors") == lattice


def test_a_lattice_is_read_without_numba_and_torch(tmp_path: Path) -> None:
    make("lattice").save(tmp_path / "l.safetensors")
    code = f"import sys, restain; restain.load({str(tmp_path / 'l.safetensors')!r}); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(restain.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"numba", "torch", "scipy.sparse"} & set(done.stdout.split())


@pytest.mark.parametrize("change", ["another type", "NaN", "another shape", "another name"])
def test_damaged_files(change: str, tmp_path: Path) -> None:
    from restain import files

    make("lattice").save(tmp_path / "l.safetensors")
    kind, arrays, facts = files.load_arrays(tmp_path / "l.safetensors")
    levels = arrays.pop("settings.table.levels")
    damaged = {
        "another type": {"settings.table.levels": levels.astype(np.float32)},
        "NaN": {"settings.table.levels": np.where(levels > 250, np.nan, levels)},
        "another shape": {"settings.table.levels": levels[1:]},
        "another name": {"settings.table.colors": levels},
    }[change]
    files.save_arrays(tmp_path / "d.safetensors", kind, arrays | damaged, facts)
    with pytest.raises(FormatError, match=r"d\.safetensors is a damaged normalizer"):
        restain.load(tmp_path / "d.safetensors")


# ---- tables -----------------------------------------------------------------------------------------------------


def test_the_callers_arrays_may_change_afterwards() -> None:
    given = {"levels": lattice_table()["levels"].copy()}
    normalizer = Lattice(table=given)
    given["levels"][:] = 0
    assert normalizer == make("lattice")


def test_another_level_is_another_lattice() -> None:
    changed = lattice_table()["levels"].copy()
    changed[3, 4, 5, 1] += 1e-9
    assert Lattice(table={"levels": changed}) != make("lattice")


LEVELS = lattice_table()["levels"]
IMPOSSIBLE = {
    "none": (None, "needs a table"),
    "an array": (LEVELS, "of type ndarray"),
    "nothing": ({}, "levels alone"),
    "another name": ({"colors": LEVELS}, "names colors; wanted a mapping with levels alone"),
    "more": ({"levels": LEVELS, "domain": LEVELS}, "levels alone"),
    "a number": ({"levels": 3.0}, r"of shape \(\)"),
    "flat": ({"levels": LEVELS.reshape(-1, 3)}, r"wanted \(n, n, n, 3\)"),
    "sides that differ": ({"levels": LEVELS[:, :8]}, r"wanted \(n, n, n, 3\)"),
    "four channels": ({"levels": np.zeros((3, 3, 3, 4))}, r"wanted \(n, n, n, 3\)"),
    "one point": ({"levels": np.zeros((1, 1, 1, 3))}, r"n in 2\.\.65"),
    "too many points": ({"levels": np.zeros((66, 66, 66, 3))}, r"n in 2\.\.65"),
    "no points": ({"levels": np.zeros((0, 0, 0, 3))}, r"n in 2\.\.65"),
    "NaN": ({"levels": np.full((2, 2, 2, 3), np.nan)}, "not finite"),
    "infinite": ({"levels": np.full((2, 2, 2, 3), np.inf)}, "not finite"),
    "huge": ({"levels": np.full((2, 2, 2, 3), 1e7)}, "beyond"),
    "words": ({"levels": [["a"]]}, "of the wrong type"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_tables(what: str) -> None:
    table, message = IMPOSSIBLE[what]
    with pytest.raises(InputError, match=message):
        Lattice(table=table)
