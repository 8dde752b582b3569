"""The questions that every normalizer answers, asked of every entry of `restain.METHODS`. No method has code here."""

import functools
import itertools
import json
import pickle
import sys
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restain import METHODS, ColorHistogram, load
from restain.color.images import as_rgb8
from restain.describe import first_sentence
from restain.errors import EstimateWarning, FitError, InputError, NotFittedError
from restain.methods import base
from restain.methods.base import Appearance, Normalizer
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom

from .making import make

pytestmark = pytest.mark.parametrize("name", METHODS)
with_fixtures = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])

BACKGROUNDS = ("match", "keep", "white", "none")


def fit(name: str, reference: Phantom, **arguments) -> Normalizer:
    return make(name, **arguments).fit(reference.image)


def transform(normalizer: Normalizer, image, appearance: Appearance | None = None) -> np.ndarray:
    """`transform`, where an estimate may fall back as long as it says so, and nothing else may be warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", EstimateWarning)
        return normalizer.transform(image, appearance)


def estimate(normalizer: Normalizer, source) -> Appearance:
    """`estimate`, checking that it warns if and only if it fell back, and that every number is finite."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        appearance = normalizer.estimate(source)
    assert {warning.category for warning in caught} <= {EstimateWarning}
    assert bool(caught) == bool(appearance.fallback)
    for field in fields(appearance):
        value = getattr(appearance, field.name)
        if isinstance(value, np.ndarray | float):
            assert np.isfinite(value).all()
    return appearance


def measured_only(name: str) -> None:
    """Leave a question out for maps that are given beforehand: nothing of the slide but its glass is measured."""
    if METHODS[name].fixed:
        pytest.skip("the map is fixed: it does not depend on what is estimated")


def glass(white: tuple[float, float, float], height: int = 64, width: int = 64, *, noise: float = 1.0) -> np.ndarray:
    levels = np.random.default_rng(0).normal(white, noise, (height, width, 3))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@functools.cache
def statistics(name: str) -> tuple[Appearance, Appearance]:
    """Of a source and a reference."""
    source = make_phantom(128, 128, seed=8, scanner=Scanner(noise=1.0))
    reference = make_phantom(128, 128, seed=9, stain_matrix=STAINS_B, scanner=Scanner(noise=1.0))
    return make(name).estimate(source.image), make(name).estimate(reference.image)


# ---- shape, type, determinism -----------------------------------------------------------------------------------


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_result_is_an_image_of_the_same_size(
    name: str, background: str, phantom: Phantom, reference: Phantom
) -> None:
    result = fit(name, reference, background=background).transform(phantom.image)
    assert result.shape == phantom.image.shape
    assert result.dtype == np.uint8
    assert (result != phantom.image).any()
    assert len(np.unique(result.reshape(-1, 3), axis=0)) > 1000  # a picture, not a flat field


def test_same_input_same_bytes(name: str, phantom: Phantom, reference: Phantom) -> None:
    once, again = (fit(name, reference).transform(phantom.image.copy()) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_the_verbs_agree(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    whole = normalizer.transform(phantom.image)
    np.testing.assert_array_equal(normalizer.transform(phantom.image, appearance), whole)
    np.testing.assert_array_equal(normalizer.color_map(appearance, lazy=True)(phantom.image), whole)
    values = normalizer.map_colors(phantom.image.reshape(-1, 3), appearance)
    np.testing.assert_array_equal(np.rint(np.clip(values, 0, 255)).reshape(whole.shape), whole)


def test_a_color_is_mapped_the_same_whatever_its_neighbours(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    colors = phantom.image.reshape(-1, 3)[:2001]
    together = normalizer.map_colors(colors, appearance)
    for part in (np.s_[:1], np.s_[1:4], np.s_[7:19], np.s_[1000:], np.s_[::-1]):
        np.testing.assert_array_equal(normalizer.map_colors(colors[part], appearance), together[part])


def test_nothing_of_the_callers_is_changed(name: str, phantom: Phantom, reference: Phantom) -> None:
    source, target = phantom.image.copy(), reference.image.copy()
    for image in (source, target):
        image.setflags(write=False)
    normalizer = make(name).fit(target)
    appearance = normalizer.estimate(source)
    normalizer.transform(source, appearance)
    np.testing.assert_array_equal(source, phantom.image)
    np.testing.assert_array_equal(target, reference.image)


def test_an_estimate_leaves_the_normalizer_as_it_was(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    normalizer.transform(phantom.image)
    transform(normalizer, glass((243.0, 243.0, 243.0)))
    assert normalizer == fit(name, reference)


# ---- what may be handed over ------------------------------------------------------------------------------------


def image_forms(image: np.ndarray) -> dict[str, np.ndarray]:
    """The same picture in every form that means the same."""
    read_only = image.copy()
    read_only.setflags(write=False)
    return {
        "list of rows": np.array(image.tolist(), np.uint8),
        "rgba, opaque": np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
        "floats to 1": image / 255.0,
        "float32 to 1": (image / 255.0).astype(np.float32),
        "floats to 255": image.astype(np.float64),
        "uint16": image.astype(np.uint16) * 257,
        "fortran": np.asfortranarray(image),
        "strided": np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)[::2, ::2],
        "negative strides": image[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
    }


def test_every_form_of_a_picture_gives_the_same_bytes(name: str, phantom: Phantom, reference: Phantom) -> None:
    small = phantom.image[40:136, 60:180]
    normalizer = fit(name, reference)
    expected = normalizer.transform(small)
    for form, image in image_forms(small).items():
        before = image.copy()
        np.testing.assert_array_equal(normalizer.transform(image), expected, err_msg=form)
        np.testing.assert_array_equal(image, before, err_msg=form)
    for form, image in image_forms(reference.image).items():
        assert make(name).fit(image) == normalizer, form


def test_forms_with_one_channel(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    gray = phantom.image[..., 1]
    for image in (gray, gray[..., None], gray > 128):
        np.testing.assert_array_equal(transform(normalizer, image), transform(normalizer, as_rgb8(image)))


def test_transparent_pixels_take_no_part(name: str, phantom: Phantom, reference: Phantom) -> None:
    image = phantom.image.copy()
    seen = np.zeros(image.shape[:2], bool)
    seen[:, 48:] = True
    image[~seen] = (90, 20, 200)  # what lies under transparency must not matter
    rgba = np.dstack([image, np.where(seen, 255, 0).astype(np.uint8)])
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(rgba)
    assert appearance == normalizer.estimate(ColorHistogram.from_image(image, mask=seen))
    result = normalizer.transform(rgba)
    assert result.shape == image.shape
    np.testing.assert_array_equal(result[seen], normalizer.transform(image, appearance)[seen])


def test_transparent_pixels_are_not_mapped(name: str, phantom: Phantom, reference: Phantom) -> None:
    """They are padding, known by position: white in an image without alpha, whatever the reference's glass."""
    alpha = np.full(phantom.image.shape[:2], 255, np.uint8)
    alpha[:50] = 0
    result = fit(name, reference).transform(np.dstack([phantom.image, alpha]))
    assert (result[:50] == 255).all()


REFUSED = {
    "NaN": np.full((16, 16, 3), np.nan),
    "infinite": np.full((16, 16, 3), np.inf),
    "negative": np.full((16, 16, 3), -1.0),
    "above 255": np.full((16, 16, 3), 300.0),
    "int64": np.full((16, 16, 3), 100),
    "two channels": np.zeros((16, 16, 2), np.uint8),
    "channels first": np.zeros((3, 16, 16), np.uint8),
    "a batch": np.zeros((2, 16, 16, 3), np.uint8),
    "a row": np.zeros((16,), np.uint8),
    "empty": np.zeros((0, 16, 3), np.uint8),
    "complex": np.zeros((16, 16, 3), complex),
    "nothing": None,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_is_refused(name: str, what: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    for attempt in (normalizer.fit, normalizer.estimate, normalizer.transform):
        with pytest.raises(InputError):
            attempt(REFUSED[what])
    with pytest.raises(InputError):
        normalizer.transform(REFUSED[what], appearance)
    assert normalizer == fit(name, reference)


def test_an_appearance_of_another_kind_is_refused(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    white = np.full(3, 240.0)
    for other in (Appearance(white, "glass", 1.0), white, None, "appearance"):
        with pytest.raises(InputError, match="wanted the"):
            normalizer.color_map(other)


# ---- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"background": "keep", "luminosity": 0.75}, {"luminosity": None}])
def test_settings_are_plain_and_rebuild_an_equal_normalizer(name: str, arguments: dict) -> None:
    normalizer = make(name, **arguments)
    plain = json.loads(json.dumps(normalizer.settings()))
    assert plain == normalizer.settings()
    assert make(name, **plain) == normalizer
    assert normalizer.settings().items() >= arguments.items()
    assert normalizer.name == name


@pytest.mark.parametrize("number", [np.float32(0.75), np.float64(0.75), np.float16(0.75)])
def test_settings_may_be_numpy_numbers(name: str, number) -> None:
    normalizer = make(name, luminosity=number)
    assert json.loads(json.dumps(normalizer.settings()))["luminosity"] == 0.75
    assert normalizer == make(name, luminosity=0.75)


@pytest.mark.parametrize(
    "arguments",
    [
        {"background": "mirror"},
        {"background": None},
        {"luminosity": 0},
        {"luminosity": -0.5},
        {"luminosity": 1.5},
        {"luminosity": float("nan")},
    ],
)
def test_impossible_settings_are_refused(name: str, arguments: dict) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        make(name, **arguments)


def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="brightness"):
        make(name, brightness=3)
    with pytest.raises(TypeError):
        METHODS[name]("match")  # settings have names


def test_the_module_says_in_a_short_sentence_what_the_method_is(name: str) -> None:
    """`restain methods` shows it on one line of a wide terminal, behind the name."""
    assert 20 < len(first_sentence(sys.modules[METHODS[name].__module__].__doc__)) < 115


def test_settings_are_compared_by_digests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained classifier has millions of labels, which as lists would take seconds."""
    asked, settings_of = [], Normalizer.settings

    def note(self: Normalizer, *, brief: bool = False) -> dict:
        asked.append(brief)
        return settings_of(self, brief=brief)

    monkeypatch.setattr(Normalizer, "settings", note)
    assert make(name) == make(name)
    assert asked == [True, True]


def test_equality(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    assert normalizer == fit(name, reference)
    assert make(name) == make(name)
    assert normalizer != make(name)
    assert normalizer != fit(name, phantom)
    assert normalizer != fit(name, reference, background="keep")
    assert normalizer != name
    with pytest.raises(TypeError):
        hash(normalizer)


# ---- fitting ----------------------------------------------------------------------------------------------------


def test_all_ways_to_name_a_reference_agree(name: str, reference: Phantom, tmp_path) -> None:
    from PIL import Image

    expected = fit(name, reference)
    histogram = ColorHistogram.from_image(reference.image)
    histogram.save(tmp_path / "colors.safetensors")
    (tmp_path / "images").mkdir()
    Image.fromarray(reference.image).save(tmp_path / "images" / "reference.png")
    references = [
        histogram,
        [reference.image],
        (reference.image,),
        tmp_path / "colors.safetensors",
        str(tmp_path / "images" / "reference.png"),
        tmp_path / "images",
        str(tmp_path / "images" / "*.png"),
        [tmp_path / "images" / "reference.png"],
        [tmp_path / "images", ColorHistogram.from_image(reference.image, mask=np.zeros((256, 192), bool))],
    ]
    for each in references:
        assert make(name).fit(each) == expected, each


def test_several_reference_images_count_together(name: str, phantom: Phantom, reference: Phantom) -> None:
    together = make(name).fit([phantom.image, reference.image])
    merged = ColorHistogram.from_images([reference.image, phantom.image])
    assert together == make(name).fit(merged)


@pytest.mark.parametrize("weight", [0.37, 3])
def test_the_same_weight_for_every_colour_changes_nothing_visible(
    name: str, weight: float, phantom: Phantom, reference: Phantom
) -> None:
    source, target = ColorHistogram.from_image(phantom.image), ColorHistogram.from_image(reference.image)
    plain, weighted = make(name).fit(target), make(name).fit(target * weight)
    colors = phantom.image.reshape(-1, 3)
    expected = plain.map_colors(colors, plain.estimate(source))
    np.testing.assert_allclose(weighted.map_colors(colors, weighted.estimate(source * weight)), expected, atol=1)


def test_fit_returns_itself_and_may_be_repeated(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = make(name)
    assert normalizer.fit(phantom.image) is normalizer
    assert normalizer.fit(reference.image) == fit(name, reference)


def test_not_fitted(name: str, phantom: Phantom, reference: Phantom, tmp_path) -> None:
    measured_only(name)
    normalizer = make(name)
    appearance = normalizer.estimate(phantom.image)
    assert appearance == fit(name, reference).estimate(phantom.image)
    for attempt in (
        lambda: normalizer.transform(phantom.image),
        lambda: normalizer.transform(phantom.image, appearance),
        lambda: normalizer.color_map(appearance),
        lambda: normalizer.map_colors(np.zeros((1, 3), np.uint8), appearance),
        lambda: normalizer.save(tmp_path / "a.safetensors"),
    ):
        with pytest.raises(NotFittedError, match="call fit"):
            attempt()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("color", [(255, 255, 255), (240, 238, 241), (0, 0, 0), (180, 90, 160)])
def test_a_blank_reference_is_an_error_and_the_earlier_fit_stays(
    name: str, color: tuple[int, int, int], reference: Phantom
) -> None:
    measured_only(name)
    normalizer = fit(name, reference)
    with pytest.raises(FitError, match=f"cannot fit {name}"):
        normalizer.fit(np.full((64, 64, 3), color, np.uint8))
    assert normalizer == fit(name, reference)


def test_a_reference_without_any_pixels_is_an_error(name: str) -> None:
    with pytest.raises(FitError):
        make(name).fit(np.zeros((16, 16, 4), np.uint8))  # all transparent
    with pytest.raises((FitError, InputError)):
        make(name).fit([])


# ---- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_loaded_normalizer_is_the_saved_one(
    name: str, background: str, phantom: Phantom, reference: Phantom, tmp_path
) -> None:
    counted = ColorHistogram.from_image(reference.image)
    histogram = replace(counted, icc_profile=b"any bytes", provenance={"slide": "ref.svs"})
    normalizer = make(name, background=background).fit(histogram)
    normalizer.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert type(loaded) is METHODS[name]
    assert loaded == normalizer
    assert loaded.provenance_ == {"slide": "ref.svs"}
    assert loaded.reference_.icc_profile == b"any bytes"
    np.testing.assert_array_equal(loaded.transform(phantom.image), normalizer.transform(phantom.image))
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_other_processes_may_be_handed_a_normalizer(name: str, phantom: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    there, its_appearance = pickle.loads(pickle.dumps((normalizer, appearance)))
    assert there == normalizer
    assert its_appearance == appearance
    np.testing.assert_array_equal(there.transform(phantom.image, its_appearance), normalizer.transform(phantom.image))


# ---- maps that are given beforehand -----------------------------------------------------------------------------


def test_a_fixed_map_needs_no_fit_and_learns_the_glass_alone(name: str, phantom: Phantom, reference: Phantom) -> None:
    if not METHODS[name].fixed:
        pytest.skip("the map depends on what is estimated")
    normalizer = make(name)
    assert (normalizer.transform(phantom.image) != phantom.image).any()
    blank = glass((236.0, 238.0, 240.0))
    assert estimate(normalizer, blank).fallback == ""
    np.testing.assert_allclose(transform(normalizer, blank).mean((0, 1)), normalizer.reference_.white_point, atol=1.5)
    normalizer.fit(blank)
    assert normalizer.reference_.white_origin == "glass"
    np.testing.assert_allclose(transform(normalizer, blank).mean((0, 1)), (236.0, 238.0, 240.0), atol=1.5)
    bare = make(name, background="none")
    first, second = (bare.estimate(image) for image in (phantom.image, reference.image))
    assert bare.color_map(first) == bare.color_map(second)


# ---- tiles ------------------------------------------------------------------------------------------------------


@with_fixtures
@given(data=st.data())
def test_tiles_equal_the_whole(name: str, phantom: Phantom, reference: Phantom, data: st.DataObject) -> None:
    """Same picture, however you cut it."""
    height, width = phantom.image.shape[:2]
    cuts = st.lists(st.integers(0, 10_000), max_size=4)
    rows = sorted({0, height, *(cut % height for cut in data.draw(cuts, "rows"))})
    columns = sorted({0, width, *(cut % width for cut in data.draw(cuts, "columns"))})
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    joined = np.zeros_like(phantom.image)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            tile = phantom.image[top:bottom, left:right]
            joined[top:bottom, left:right] = normalizer.transform(tile, appearance)
    np.testing.assert_array_equal(joined, normalizer.transform(phantom.image, appearance))


def test_the_order_of_pixels_does_not_matter(name: str, phantom: Phantom) -> None:
    pixels = phantom.image.reshape(-1, 3)
    shuffled = np.random.default_rng(0).permutation(pixels)
    estimates = [make(name).estimate(ColorHistogram.from_colors(each)) for each in (pixels, shuffled)]
    assert estimates[0] == estimates[1]


def test_counting_in_parts_does_not_matter(name: str, phantom: Phantom) -> None:
    rows = [ColorHistogram.from_image(phantom.image[top : top + 32]) for top in range(0, 192, 32)]
    whole = make(name).estimate(phantom.image)
    assert make(name).estimate(ColorHistogram.merged(rows)) == whole
    assert make(name).estimate(ColorHistogram.merged(rows[::-1])) == whole


def test_very_many_colours_are_measured_as_few_are(
    name: str, reference: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than 100,000 colours are merged before they are measured; the picture must not show it."""
    image = make_phantom(640, 640, seed=1, scanner=Scanner(noise=4.0)).image
    histogram = ColorHistogram.from_image(image)
    assert len(histogram) > base.MOST_COLORS
    normalizer = fit(name, reference)
    merged = normalizer.estimate(histogram)
    monkeypatch.setattr(base, "MOST_COLORS", 1 << 24)
    exact = normalizer.estimate(histogram)
    assert merged.white_point.tolist() == exact.white_point.tolist()
    assert merged.tissue_pixels == pytest.approx(exact.tissue_pixels, rel=0.01)
    colors = histogram.colors[::20]
    ours, theirs = (np.clip(normalizer.map_colors(colors, each), 0, 255) for each in (merged, exact))
    assert np.abs(ours - theirs).mean() <= 0.5


def test_a_white_tile_harms_no_other(name: str, phantom: Phantom, reference: Phantom) -> None:
    tiles = [phantom.image[:96, :128], np.full((96, 128, 3), 255, np.uint8), phantom.image[96:, 128:]]
    normalizer = fit(name, reference)
    together = [transform(normalizer, tile) for tile in tiles]
    for index in (0, 2):
        np.testing.assert_array_equal(together[index], fit(name, reference).transform(tiles[index]))


def test_tiles_of_bare_glass_do_not_change_what_tissue_looks_like(name: str) -> None:
    tissue = make_phantom(128, 128, seed=5).image  # without noise: its glass is exactly (243, 243, 243)
    blank = np.full((512, 512, 3), 243, np.uint8)
    normalizer = make(name)
    assert normalizer.estimate([tissue, blank]) == normalizer.estimate(tissue)


# ---- tiles that hold nothing, or nearly ---------------------------------------------------------------------------


def odd_images() -> dict[str, np.ndarray]:
    phantom = make_phantom(200, 350, seed=6, scanner=Scanner(noise=1.0)).image
    speck = np.full((64, 64, 3), 255, np.uint8)
    speck[30, 30] = 0
    half = np.full((64, 64, 3), 243, np.uint8)
    half[:32] = (150, 80, 160)
    return {
        "white": np.full((64, 64, 3), 255, np.uint8),
        "black": np.zeros((64, 64, 3), np.uint8),
        "gray": np.full((64, 64, 3), 128, np.uint8),
        "glass": np.full((64, 64, 3), 240, np.uint8),
        "pink": np.full((64, 64, 3), (230, 150, 190), np.uint8),
        "pure red": np.full((64, 64, 3), (255, 0, 0), np.uint8),
        "two colours": half,
        "a speck": speck,
        "noisy glass": glass((241.0, 239.0, 243.0)),
        "noise": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
        "gray noise": np.repeat(np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8), 3, axis=2),
        "dark noise": np.random.default_rng(0).integers(0, 3, (64, 64, 3), dtype=np.uint8),
        "one channel": np.dstack([np.arange(256, dtype=np.uint8)[None].repeat(8, 0), np.zeros((8, 256, 2), np.uint8)]),
        "one pixel": phantom[100:101, 100:101],
        "one white pixel": np.full((1, 1, 3), 255, np.uint8),
        "one row": phantom.reshape(1, -1, 3),
        "one column": phantom.reshape(-1, 1, 3),
        "three pixels": phantom[100, 100:103][None],
    }


ODD = odd_images()
EVERY_KIND = np.random.default_rng(1).integers(0, 256, (3000, 3), dtype=np.uint8)


@pytest.mark.parametrize("background", ["match", "none"])
@pytest.mark.parametrize("what", ODD)
def test_odd_images_give_images(name: str, what: str, background: str, reference: Phantom) -> None:
    image = ODD[what]
    normalizer = fit(name, reference, background=background)
    appearance = estimate(normalizer, image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalizer.transform(image, appearance)
        values = normalizer.map_colors(EVERY_KIND, appearance)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert not np.isnan(values).any()
    np.testing.assert_array_equal(transform(normalizer, image), result)


def any_histogram(draw: st.DrawFn) -> ColorHistogram:
    """Few or many colours, anywhere in the cube, all alike or all different."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    number, spread = draw(st.integers(1, 400)), draw(st.integers(1, 256))
    low = draw(st.lists(st.integers(0, 255), min_size=3, max_size=3))
    colors = np.minimum(np.array(low) + generator.integers(0, spread, (number, 3)), 255)
    return ColorHistogram.from_colors(colors, generator.integers(1, 1000, number))


histograms = st.composite(any_histogram)()


@settings(max_examples=60)
@given(source=histograms, target=histograms, background=st.sampled_from(["match", "none"]))
def test_any_colours_at_all(name: str, source: ColorHistogram, target: ColorHistogram, background: str) -> None:
    """Whatever histograms hold: an estimate, a map without NaN, and no warning of NumPy's; or a `FitError`."""
    normalizer = make(name, background=background)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", EstimateWarning)
        try:
            normalizer.fit(target)
        except FitError:
            normalizer.reference_ = statistics(name)[1]
        appearance = normalizer.estimate(source)
        values = normalizer.map_colors(EVERY_KIND, appearance)
    assert not np.isnan(values).any()


def test_blank_glass_falls_back_and_goes_to_the_references_glass(name: str, reference: Phantom) -> None:
    measured_only(name)
    blank = glass((236.0, 238.0, 240.0))
    normalizer = fit(name, reference)
    with pytest.warns(EstimateWarning, match=f"{name}: .*the reference's statistics stand in"):
        appearance = normalizer.estimate(blank)
    assert "stand in" in appearance.fallback
    assert appearance.white_origin == "glass"
    assert appearance.tissue_pixels == 0
    result = normalizer.transform(blank, appearance)
    np.testing.assert_allclose(result.mean(axis=(0, 1)), normalizer.reference_.white_point, atol=1.5)
    np.testing.assert_allclose(result.mean(axis=(0, 1)), reference.scanner.white, atol=1.5)


def test_a_fallback_matches_the_glass_alone(name: str, phantom: Phantom, reference: Phantom) -> None:
    """Every colour is scaled from one white point to the other."""
    measured_only(name)
    normalizer = fit(name, reference)
    with pytest.warns(EstimateWarning):
        appearance = normalizer.estimate(glass((230.0, 235.0, 240.0)))
    colors = phantom.image.reshape(-1, 3)[::7].astype(float)
    colors = colors[(colors <= appearance.white_point).all(axis=1)]
    expected = (colors + 1) / (appearance.white_point + 1) * (normalizer.reference_.white_point + 1) - 1
    np.testing.assert_allclose(normalizer.map_colors(colors, appearance), expected, rtol=0, atol=1)


def test_a_fallback_of_the_bare_method_changes_nothing(name: str, reference: Phantom) -> None:
    measured_only(name)
    normalizer = fit(name, reference, background="none")
    for what in ("white", "black", "pink", "pure red", "one pixel"):
        with pytest.warns(EstimateWarning):
            result = normalizer.transform(ODD[what])
        np.testing.assert_array_equal(result, ODD[what])


def test_without_a_fit_a_blank_image_has_published_statistics_or_says_what_to_do(name: str) -> None:
    measured_only(name)
    normalizer, blank = make(name), glass((236.0, 238.0, 240.0))
    if normalizer._default_statistics() is None:
        with pytest.raises(NotFittedError, match="call fit"):
            normalizer.estimate(blank)
    else:
        with pytest.warns(EstimateWarning, match="published statistics stand in"):
            appearance = normalizer.estimate(blank)
        assert "published statistics" in appearance.fallback
        assert appearance.tissue_pixels == 0


# ---- glass ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["clean", "noisy"])
def bluish(request: pytest.FixtureRequest) -> Phantom:
    return make_phantom(
        192, 192, seed=7, stain_matrix=STAINS_A, scanner=Scanner(white=(232.0, 232.0, 234.0), noise=request.param)
    )


def test_glass_becomes_the_references_glass(name: str, bluish: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference)
    result = normalizer.transform(bluish.image)[bluish.glass].mean(axis=0)
    np.testing.assert_allclose(result, normalizer.reference_.white_point, atol=1.5)
    np.testing.assert_allclose(result, reference.scanner.white, atol=1.5)


def test_glass_is_kept(name: str, bluish: Phantom, reference: Phantom) -> None:
    result = fit(name, reference, background="keep").transform(bluish.image)[bluish.glass].mean(axis=0)
    np.testing.assert_allclose(result, bluish.image[bluish.glass].mean(axis=0), atol=1)


def test_glass_becomes_white(name: str, bluish: Phantom, reference: Phantom) -> None:
    result = fit(name, reference, background="white").transform(bluish.image)[bluish.glass]
    np.testing.assert_allclose(result.mean(axis=0), 255, atol=1.5)
    if bluish.scanner.noise == 0:
        assert (result == 255).all()


def test_the_bare_method_assumes_255(name: str, bluish: Phantom, reference: Phantom) -> None:
    normalizer = fit(name, reference, background="none")
    for appearance in (normalizer.reference_, normalizer.estimate(bluish.image)):
        assert appearance.white_point.tolist() == [255, 255, 255]
        assert appearance.white_origin == "assumed"


# The scanners that were measured lie between 229 and 255.
levels = st.lists(st.floats(200, 255), min_size=3, max_size=3)


@given(white=levels, wanted=levels, background=st.sampled_from(["match", "keep", "white"]))
def test_colours_near_glass_are_not_tinted(name: str, white: list[float], wanted: list[float], background: str) -> None:
    """White ± 3 levels in any channel keeps its distance from white, whatever the two scanners."""
    source, reference = statistics(name)
    normalizer = make(name, background=background)
    normalizer.reference_ = replace(reference, white_point=np.array(wanted))
    near = np.rint(white) + np.indices((7, 7, 7)).reshape(3, -1).T - 3
    result = normalizer.map_colors(near, replace(source, white_point=np.array(white)))
    goal = {"match": wanted, "keep": white, "white": [255.0] * 3}[background]
    np.testing.assert_allclose(result - goal, near - white, rtol=0, atol=1)


def test_no_edge_between_glass_and_tissue(name: str, phantom: Phantom, reference: Phantom) -> None:
    """Along a wash of stain from glass into tissue the picture changes little by little, as the source does."""
    normalizer = fit(name, reference)
    appearance = normalizer.estimate(phantom.image)
    for stain in (*phantom.stain_matrix, phantom.stain_matrix.mean(axis=0)):
        amounts = np.linspace(0, 1.0, 1000)[:, None]
        wash = (appearance.white_point + 1) * np.exp(-amounts * stain) - 1
        mapped = normalizer.map_colors(wash, appearance)
        steps, source_steps = (np.abs(np.diff(colors, axis=0)).max() for colors in (mapped, wash))
        assert steps <= 3 * source_steps
