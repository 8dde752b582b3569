"""What may name a reference: paths, folders, patterns, lists, arrays, saved histograms, profiles."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain import references
from restain.color.histogram import ColorHistogram
from restain.errors import FormatError, InputError, SlideError, SlideWarning
from restain.methods.macenko import Macenko
from restain.phantom import Phantom
from restain.profiles import load_profile
from restain.references import find_files, read_reference
from restain.slides.icc import srgb_profile, to_srgb
from restain.slides.reader import OnError
from restain.slides.sample import sample_slide
from restain.slides.writer import write_array

from .icc_profiles import matrix_profile


@pytest.fixture
def folder(phantom: Phantom, reference: Phantom, tmp_path: Path) -> Path:
    """Two images, one of them in a subfolder, and hidden files that are nobody's reference."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    Image.fromarray(phantom.image).save(tmp_path / "a.png")
    Image.fromarray(reference.image).save(tmp_path / "sub" / "b.png")
    (tmp_path / ".DS_Store").write_text("not an image")
    (tmp_path / "sub" / "._b.png").write_text("not an image either")
    (tmp_path / ".hidden" / "c.png").write_text("nor this")
    return tmp_path


def counted(*phantoms: Phantom) -> ColorHistogram:
    return ColorHistogram.from_images([phantom.image for phantom in phantoms])


def same_colors(one: ColorHistogram, other: ColorHistogram) -> bool:
    return np.array_equal(one.codes, other.codes) and np.array_equal(one.counts, other.counts)


# ---- paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [True, False])
def test_an_image(as_text: bool, folder: Path, phantom: Phantom) -> None:
    path = folder / "a.png"
    histogram = read_reference(str(path) if as_text else path)
    assert histogram == counted(phantom)
    # Not its name, which may be a patient's: provenance travels with every output.
    assert histogram.provenance == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_the_profile_of_an_image_comes_along(folder: Path, phantom: Phantom) -> None:
    Image.fromarray(phantom.image).save(folder / "icc.png", icc_profile=srgb_profile())
    assert read_reference(folder / "icc.png").icc_profile == srgb_profile()
    assert read_reference(folder / "a.png").icc_profile is None


def test_transparent_pixels_are_not_counted(tmp_path: Path, phantom: Phantom) -> None:
    rgba = np.dstack([phantom.image, np.full(phantom.image.shape[:2], 255, np.uint8)])
    rgba[:90] = (0, 255, 0, 0)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_reference(tmp_path / "a.png").pixels == (192 - 90) * 256


def test_a_slide(tmp_path: Path, phantom: Phantom) -> None:
    write_array(tmp_path / "slide.tif", phantom.image)
    histogram = read_reference(tmp_path / "slide.tif")
    assert histogram == sample_slide(tmp_path / "slide.tif")
    digest = hashlib.sha256((tmp_path / "slide.tif").read_bytes()).hexdigest()
    assert histogram.provenance == sample_slide(tmp_path / "slide.tif").provenance | {"sha256": digest}


def test_a_large_image_is_sampled(folder: Path, phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "SLIDE_PIXELS", phantom.image[..., 0].size - 1)
    assert "tissue_tiles" in read_reference(folder / "a.png").provenance


def test_the_container_of_the_pixels_does_not_matter(folder: Path, phantom: Phantom) -> None:
    tifffile.imwrite(folder / "strips.tif", phantom.image, photometric="rgb")
    tifffile.imwrite(folder / "tiles.tif", phantom.image, photometric="rgb", tile=(64, 64), compression="zstd")
    wanted = read_reference(folder / "a.png")
    assert read_reference(folder / "strips.tif") == wanted
    assert read_reference(folder / "tiles.tif") == wanted


def test_a_folder_is_searched_through(folder: Path, phantom: Phantom, reference: Phantom) -> None:
    histogram = read_reference(folder)
    assert same_colors(histogram, counted(phantom, reference))
    assert histogram.provenance["parts"] == 2
    assert histogram.provenance == read_reference([folder / "a.png", folder / "sub" / "b.png"]).provenance
    assert histogram.provenance != read_reference([folder / "a.png", folder / "a.png"]).provenance


def test_notes_and_tables_in_a_folder_are_passed_over(folder: Path, phantom: Phantom, reference: Phantom) -> None:
    """As `restain normalize` does with the same folder."""
    (folder / "README.txt").write_text("these are images of lab A")
    (folder / "stain.csv").write_text("image,stain\na.png,HE\n")
    assert same_colors(read_reference(folder), counted(phantom, reference))


@pytest.mark.parametrize("pattern", ["*.png", "**/*.png", "sub/?.png", "[a-z].png"])
def test_patterns(pattern: str, folder: Path, phantom: Phantom, reference: Phantom) -> None:
    wanted = {
        "*.png": counted(phantom),
        "**/*.png": counted(phantom, reference),
        "sub/?.png": counted(reference),
        "[a-z].png": counted(phantom),
    }
    assert same_colors(read_reference(str(folder / pattern)), wanted[pattern])


def test_a_list_of_anything(folder: Path, phantom: Phantom, reference: Phantom) -> None:
    mixed = [str(folder / "a.png"), folder / "sub", phantom.image, counted(reference)]
    assert same_colors(read_reference(mixed), counted(phantom, reference, phantom, reference))
    assert same_colors(read_reference(tuple(mixed)), read_reference(mixed))


def test_no_name_of_a_file_is_kept(folder: Path) -> None:
    (folder / "sub" / "b.png").rename(folder / "Jane Doe.png")
    for reference in (folder, folder / "Jane Doe.png", [folder / "Jane Doe.png", "he"]):
        assert "Jane" not in json.dumps(dict(read_reference(reference).provenance))


def test_a_saved_histogram(tmp_path: Path, phantom: Phantom) -> None:
    counted(phantom).save(tmp_path / "h.safetensors")
    assert read_reference(tmp_path / "h.safetensors") == counted(phantom)


def test_a_folder_of_saved_histograms(tmp_path: Path, phantom: Phantom, reference: Phantom) -> None:
    """As they come from several machines."""
    counted(phantom).save(tmp_path / "one.safetensors")
    counted(reference).save(tmp_path / "two.safetensors")
    assert same_colors(read_reference(tmp_path), counted(phantom, reference))


def test_what_is_in_memory(phantom: Phantom) -> None:
    histogram = counted(phantom)
    assert read_reference(histogram) is histogram
    assert read_reference(phantom.image) == histogram
    assert read_reference(Image.fromarray(phantom.image)) == histogram


# ---- profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["he", "pap"])
def test_a_profile_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    histogram = read_reference(name)
    assert histogram == load_profile(name)
    assert histogram.provenance["profile"] == name


def test_a_profile_in_a_list(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert same_colors(read_reference(["he", phantom.image]), load_profile("he") + counted(phantom))


def test_a_file_of_that_name_is_meant(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(phantom.image).save(tmp_path / "he", format="PNG")
    assert read_reference("he") == counted(phantom)
    assert read_reference(["he"]) == counted(phantom)


def test_a_folder_of_that_name_is_meant(folder: Path, reference: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "sub").rename(folder / "pap")
    assert read_reference("pap") == counted(reference)


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nosuch", "nosuch.png", "no/such/*.png", "HE"])
def test_nothing_of_that_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"names no file.*he, pap"):
        read_reference(name)
    with pytest.raises(InputError, match="names no file"):
        read_reference(["he", name])


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no file"):
        read_reference(tmp_path)


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list(empty: object) -> None:
    with pytest.raises(InputError, match="at least one"):
        read_reference(empty)


def test_files_that_hold_something_else(tmp_path: Path, phantom: Phantom) -> None:
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(SlideError, match=r"a\.png"):
        read_reference(tmp_path / "a.png")
    (tmp_path / "h.safetensors").write_text("words")
    with pytest.raises(FormatError, match=r"h\.safetensors"):
        read_reference(tmp_path / "h.safetensors")
    Macenko().fit(phantom.image).save(tmp_path / "n.safetensors")
    with pytest.raises(FormatError, match="holds a normalizer; wanted a colour histogram"):
        read_reference(tmp_path / "n.safetensors")


# ---- finding files ----------------------------------------------------------------------------------------------


def test_files_come_sorted_and_without_hidden_ones(folder: Path) -> None:
    assert find_files(folder) == [folder / "a.png", folder / "sub" / "b.png"]
    assert find_files(str(folder / "**" / "*.png")) == [folder / "a.png", folder / "sub" / "b.png"]


def test_a_file_named_by_its_path_may_be_hidden(folder: Path) -> None:
    assert find_files(folder / ".DS_Store") == [folder / ".DS_Store"]
    assert find_files(folder / ".hidden") == [folder / ".hidden" / "c.png"]


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    for name in ("slide [1].png", "a*b.png", "what?.png"):
        (tmp_path / name).touch()
        assert find_files(tmp_path / name) == [tmp_path / name]


def test_folders_are_no_files(folder: Path) -> None:
    assert find_files(str(folder / "*")) == [folder / "a.png"]


def test_the_outputs_of_a_cohort_are_a_reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Beside them lies what they were normalized by, which is no histogram."""
    before = read_reference(folder)
    Macenko().fit("he").save(folder / "normalizer.safetensors")
    assert read_reference(folder) == before


# ---- damage and profiles ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(phantom: Phantom, tmp_path: Path) -> Path:
    """A slide of 3 by 4 tiles, the second of the first row damaged."""
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, phantom.image, photometric="rgb", tile=(64, 64), compression="lzw")
    with tifffile.TiffFile(path) as handle:
        offset, count = handle.pages.first.dataoffsets[1], handle.pages.first.databytecounts[1]
    with path.open("r+b") as stream:
        stream.seek(offset + 16)
        stream.write(bytes(count - 16))
    return path


@pytest.mark.parametrize("on_error", ["skip", "fill"])
@pytest.mark.parametrize("named", ["file", "folder", "list"])
def test_damaged_tiles_are_not_counted_where_that_is_wanted(
    named: str, on_error: OnError, broken: Path, phantom: Phantom
) -> None:
    reference = {"file": broken, "folder": broken.parent, "list": [str(broken)]}[named]
    with pytest.raises(SlideError, match=r"broken\.tif is damaged in the tile at \(64, 0\)"):
        read_reference(reference)
    kept = np.ones(phantom.image.shape[:2], np.bool_)
    kept[:64, 64:128] = False
    wanted = ColorHistogram.from_image(phantom.image, mask=kept)
    with pytest.warns(SlideWarning, match=r"1 of level 0 at \(64, 0\)"):
        assert same_colors(read_reference(reference, on_error=on_error), wanted)
    with pytest.raises(SlideError, match=r"\(64, 0\)"):
        Macenko().fit(reference)
    with pytest.warns(SlideWarning, match=r"\(64, 0\)"):
        fitted = Macenko().fit(reference, on_error=on_error)
    with pytest.warns(SlideWarning, match=r"\(64, 0\)"):
        appearance = fitted.estimate(reference, on_error=on_error)
    assert appearance == fitted.reference_
    assert fitted.reference_ == Macenko().fit(wanted).reference_


def test_a_reference_of_which_nothing_can_be_read_is_an_error(broken: Path) -> None:
    data = bytearray(broken.read_bytes())
    with tifffile.TiffFile(broken) as handle:
        page = handle.pages.first
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            data[offset : offset + count] = bytes(count)
    broken.write_bytes(data)
    with pytest.raises(SlideError, match=r"nothing of broken\.tif could be read"):
        Macenko().fit(broken, on_error="skip")


def test_fit_and_estimate_convert_by_profile(tmp_path: Path, phantom: Phantom) -> None:
    wide = matrix_profile()
    Image.fromarray(phantom.image).save(tmp_path / "wide.png", icc_profile=wide)
    kept = read_reference(tmp_path / "wide.png")
    converted = ColorHistogram.from_image(to_srgb(wide)(phantom.image))
    wanted = Macenko().fit(converted).reference_
    for source in (tmp_path / "wide.png", [tmp_path / "wide.png"], kept):  # also what is in memory, and has a profile
        fitted = Macenko().fit(source, icc="srgb")
        assert fitted.reference_ == wanted
        assert fitted.estimate(source, icc="srgb") == wanted
        assert fitted.estimate(source) != wanted


@pytest.mark.parametrize("options", [{"icc": "adobe"}, {"on_error": "ignore"}])
def test_unknown_choices_are_input_errors(options: dict[str, Any], phantom: Phantom, tmp_path: Path) -> None:
    fitted = Macenko().fit(phantom.image)
    for call in (fitted.fit, fitted.estimate, read_reference):
        with pytest.raises(InputError, match=next(iter(options.values()))):
            call(phantom.image, **options)  # type: ignore[operator]
