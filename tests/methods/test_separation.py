"""Stain separation against the closed form, scikit-image, and tissue whose stains are known."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.color import combine_stains, rgb2hed, separate_stains
from skimage.data import immunohistochemistry

from restain import ColorHistogram, Macenko, Reinhard, Ruifrok, Vahadane
from restain.color.glass import PRIOR_WHITE
from restain.color.images import as_rgb8
from restain.color.spaces import balance, lightness
from restain.errors import InputError
from restain.methods.ruifrok import STAIN_MATRICES
from restain.methods.separation import PERCENTILES, STAIN_NAMES, Separation, Separator, parse_stains, separate
from restain.phantom import STAINS_B, Phantom, Scanner, make_phantom

with_fixtures = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])

# As printed in the paper; hematoxylin, eosin, DAB.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# Dyes of a Papanicolaou stain, roughly: hematoxylin, light green, orange G.
PAP = np.array([[0.66, 0.70, 0.28], [0.95, 0.20, 0.25], [0.02, 0.35, 0.93]])
WHITE = (241.0, 236.5, 229.0)
EVERY = {"he": HED[:2], "hdab": HED[[0, 2]], "hed": HED, "he-warwick": STAIN_MATRICES["he-warwick"], "pap": PAP}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def completed(rows: np.ndarray) -> np.ndarray:
    rows = unit(rows)
    return rows if len(rows) == 3 else np.vstack([rows, unit([np.cross(rows[0], rows[1])])])


def stains_of(key: str):
    return EVERY[key].tolist() if key == "pap" else key


def noise(shape=(97, 61, 3), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rounded(levels: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


# ---- closed form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", EVERY)
def test_concentrations_and_renderings_are_the_closed_form(key: str) -> None:
    image, matrix = noise(), completed(EVERY[key])
    separation = separate(image, stains_of(key), white_point=WHITE)
    glass = np.array(WHITE) + 1
    density = -np.log((image + 1.0) / glass)
    amounts = np.linalg.solve(matrix.T, density.reshape(-1, 3).T).T.reshape(image.shape)
    np.testing.assert_allclose(separation.stain_matrix, matrix, rtol=0, atol=1e-15)
    assert separation.concentrations.dtype == np.float32
    np.testing.assert_allclose(separation.concentrations, amounts, rtol=1e-6, atol=1e-6)
    assert (amounts < -0.1).any()  # kept as they are
    for index, name in enumerate(separation.names):
        alone = amounts[..., index] if name == "residual" else np.maximum(amounts[..., index], 0)
        levels = glass * np.exp(-alone[..., None] * matrix[index]) - 1
        rendering = separation.render(name)
        assert rendering.dtype == np.uint8
        # Rounded once: nowhere farther from the exact value than half a level, and what float32 may cost.
        assert np.abs(rendering - np.clip(levels, 0, 255)).max() <= 0.5 + 1e-3
        np.testing.assert_array_equal(separation.render(index), rendering)
    assert list(separation.render_all()) == list(separation.names)


@pytest.mark.parametrize("key", EVERY)
def test_concentrations_are_those_of_scikit_image(key: str, phantom: Phantom) -> None:
    separation = separate(phantom.image, stains_of(key), white_point=255)
    # separate_stains divides by log(1e-6), so that its densities have their own unit, and sets negative ones to 0.
    theirs = separate_stains((phantom.image + 1.0) / 256, np.linalg.inv(completed(EVERY[key]))) * -np.log(1e-6)
    np.testing.assert_allclose(np.maximum(separation.concentrations, 0), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("key", EVERY)
def test_the_composed_image_is_that_of_scikit_image(key: str) -> None:
    separation = separate(noise(), stains_of(key), white_point=255)
    amounts = np.random.default_rng(1).uniform(0, 2, (30, 40, 3))
    theirs = combine_stains(amounts / -np.log(1e-6), completed(EVERY[key]))  # clipped to 0..1
    composed = separation.compose(amounts)
    inside = (theirs > 0) & (theirs < 1)
    assert inside.mean() > 0.5
    assert np.abs(composed - (theirs * 256 - 1))[inside].max() <= 0.5 + 1e-9


def test_the_percentiles_are_those_of_the_tissue_s_pixels(phantom: Phantom) -> None:
    separation = separate(phantom.image, "hdab", luminosity=0.85)
    tissue = lightness(balance(phantom.image, separation.white_point)) < 0.85
    assert separation.tissue_pixels == tissue.sum()
    for index, name in enumerate(separation.names):
        expected = np.percentile(separation.concentrations[tissue][:, index].astype(np.float64), PERCENTILES)
        np.testing.assert_allclose(list(separation.percentiles[name].values()), expected, rtol=0, atol=1e-6)
        assert tuple(separation.percentiles[name]) == PERCENTILES
    everything = separate(phantom.image, luminosity=None)
    assert everything.tissue_pixels == phantom.image[..., 0].size


# ---- planted stains ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [(255.0, 255.0, 255.0), (236.0, 231.0, 228.0)])
def test_planted_stains_are_recovered(white: tuple[float, float, float]) -> None:
    planted = make_phantom(256, 256, seed=4, scanner=Scanner(white=white), blood=False)
    separation = separate(planted.image, planted.stain_matrix)
    assert separation.white_origin == "glass"
    np.testing.assert_allclose(separation.white_point, white, rtol=0, atol=0.5)
    tissue = lightness(balance(planted.image, white)) < 0.9
    for stain in (0, 1):
        truth, found = planted.concentrations[..., stain], separation.concentrations[..., stain]
        assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > 0.999
        maximum = np.percentile(truth[tissue], 99)
        assert separation.percentiles[separation.names[stain]][99] == pytest.approx(maximum, rel=0.02)
    # Nothing is left to explain but rounding.
    assert np.abs(list(separation.percentiles["residual"].values())).max() < 0.1


def test_blood_is_what_two_stains_leave_unexplained(phantom: Phantom) -> None:
    residual = separate(phantom.image, phantom.stain_matrix).concentrations[..., 2]
    assert np.abs(residual[phantom.blood]).mean() > 10 * np.abs(residual[phantom.nuclei & ~phantom.blood]).mean()


def test_published_vectors_tell_nuclei_from_stroma(phantom: Phantom) -> None:
    separation = separate(phantom.image)
    tissue = ~phantom.glass & ~phantom.blood
    hematoxylin = separation.gray("hematoxylin").astype(float)
    assert hematoxylin[phantom.nuclei].mean() < hematoxylin[tissue & ~phantom.nuclei].mean() - 80
    for picture in separation.render_all().values():  # glass stays glass
        assert np.abs(picture[phantom.glass] - separation.white_point).mean() < 3


def test_three_dyes_of_ones_own_are_recovered() -> None:
    amounts = np.random.default_rng(2).uniform(0, 0.8, (64, 64, 3))
    image = rounded((np.array(WHITE) + 1) * np.exp(-amounts @ unit(PAP)) - 1)
    names = ("hematoxylin", "light green", "orange G")
    separation = separate(image, PAP, white_point=WHITE, names=names)
    assert separation.names == names
    assert not separation.has_residual
    # Half a level of rounding, at the darkest pixel, times what the inverse makes of it.
    gain = np.abs(np.linalg.inv(unit(PAP))).sum(axis=0).max()
    assert np.abs(separation.concentrations - amounts).max() < 0.5 / (image.min() + 0.5) * gain
    # A rendering shows one dye: separated again, it holds that one alone.
    for index, name in enumerate(names):
        again = separate(separation.render(name), PAP, white_point=WHITE).concentrations
        np.testing.assert_allclose(again[..., index], amounts[..., index], rtol=0, atol=0.05)
        assert np.abs(np.delete(again, index, axis=2)).max() < 0.05


@pytest.mark.parametrize(("stained", "stains"), [("he", "hed"), ("hdab", "hed"), ("hdab", "hdab")])
def test_a_stain_that_is_not_there_is_not_found(stained: str, stains: str) -> None:
    amounts = np.random.default_rng(3).uniform(0, 1, (40, 40, 2))
    image = rounded(256 * np.exp(-amounts @ unit(EVERY[stained])) - 1)
    separation = separate(image, stains, white_point=255)
    for index, name in enumerate(separation.names):
        found = separation.concentrations[..., index]
        if name in STAIN_NAMES[stained]:
            np.testing.assert_allclose(found, amounts[..., STAIN_NAMES[stained].index(name)], rtol=0, atol=0.06)
        else:
            assert np.abs(found).max() < 0.06


# ---- there and back ---------------------------------------------------------------------------------------------

independent = hnp.arrays(np.float64, (3, 3), elements=st.floats(0, 2)).filter(
    lambda rows: np.linalg.norm(rows, axis=1).min() > 0.1 and np.linalg.svd(unit(rows))[1][-1] > 0.011
)


@given(
    rows=independent,
    two=st.booleans(),
    white=st.tuples(*[st.floats(150, 255)] * 3),
    image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
)
def test_composed_again_it_is_the_image(rows: np.ndarray, two: bool, white: tuple, image: np.ndarray) -> None:
    if two and np.linalg.norm(np.cross(*unit(rows[:2]))) < 0.02:
        return
    separation = separate(image, rows[: 2 if two else 3], white_point=white)
    np.testing.assert_array_equal(separation.compose(), image)
    assert np.isfinite(separation.concentrations).all()
    for picture in separation.render_all().values():
        assert picture.shape == image.shape


@pytest.mark.parametrize("key", EVERY)
def test_every_gray_level_survives(key: str) -> None:
    image = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), axis=-1).reshape(52, -1, 3)
    for white in (255, 240, (255.0, 230.0, 200.5)):
        separation = separate(image, stains_of(key), white_point=white)
        np.testing.assert_array_equal(separation.compose(), image)


def test_stains_can_be_changed(phantom: Phantom) -> None:
    separation = separate(phantom.image, phantom.stain_matrix, names=STAIN_NAMES["he"])
    before = separation.concentrations.copy()
    paler = before * [1.0, 0.5, 1.0]
    expected = rounded((separation.white_point + 1) * np.exp(-paler @ separation.stain_matrix) - 1)
    assert np.abs(separation.compose(paler).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(separation.concentrations, before)
    alone = np.zeros_like(before)
    alone[..., 1] = np.maximum(before[..., 1], 0)
    np.testing.assert_array_equal(separation.compose(alone), separation.render("eosin"))
    assert separation.compose(np.full((2, 2, 3), -1e6)).min() >= 0  # brighter than any glass, not an overflow
    assert separation.compose(np.full((2, 2, 3), 10**6)).max() <= 255


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 2)), "x", np.full((2, 2, 3), np.inf), None])
def test_what_is_no_concentrations_is_refused(wrong, phantom: Phantom) -> None:
    separator = Separator.measure(ColorHistogram.from_image(phantom.image))
    with pytest.raises(InputError, match="concentrations"):
        separator.compose(wrong)


# ---- maps, tiles, gray ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", EVERY)
def test_the_map_of_a_stain_gives_its_rendering(key: str, phantom: Phantom) -> None:
    for image in (phantom.image, noise()):
        separation = separate(image, stains_of(key), white_point=WHITE)
        for name in separation.names:
            np.testing.assert_array_equal(separation.color_map(name)(image), separation.render(name))


def test_tiles_share_what_was_measured_once(phantom: Phantom) -> None:
    whole = separate(phantom.image, "hdab")
    separator = Separator.measure(ColorHistogram.from_image(phantom.image), "hdab")
    assert separator.facts() == whole.facts()
    tiles = [separator.separate(phantom.image[:, x : x + 64]) for x in range(0, 256, 64)]
    np.testing.assert_array_equal(np.hstack([tile.concentrations for tile in tiles]), whole.concentrations)
    for view in (Separation.render, Separation.gray):
        np.testing.assert_array_equal(np.hstack([view(tile, "dab") for tile in tiles]), view(whole, "dab"))


def test_large_images_are_worked_on_in_blocks() -> None:
    for shape in ((3, 150_000, 3), (5000, 61, 3)):
        image = noise(shape)
        separation = separate(image, white_point=255)
        density = -np.log((image[-1] + 1.0) / 256)
        np.testing.assert_allclose(
            separation.concentrations[-1], density @ np.linalg.inv(completed(HED[:2])), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(separation.compose(), image)


def test_gray_is_white_for_none_and_black_for_much(phantom: Phantom) -> None:
    separation = separate(phantom.image, phantom.stain_matrix, names=STAIN_NAMES["he"])
    amount = separation.concentrations[..., 0].astype(np.float64)
    for maximum in (None, 2.5):
        gray = separation.gray("hematoxylin", maximum=maximum)
        expected = 255 * (1 - np.clip(amount / (maximum or separation.percentiles["hematoxylin"][99]), 0, 1))
        assert gray.shape == amount.shape
        assert np.abs(gray - expected).max() <= 0.5 + 1e-3
    assert separation.gray(0)[phantom.glass].min() > 240
    # Of the residual, either direction is dark.
    residual = separation.concentrations[..., 2]
    gray = separation.gray("residual", maximum=0.2)
    assert np.abs(gray - 255 * (1 - np.clip(np.abs(residual) / 0.2, 0, 1))).max() <= 0.5 + 1e-3
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="maximum"):
            separation.gray(0, maximum=wrong)


def test_noise_of_an_absent_stain_is_no_picture() -> None:
    scanner = Scanner(noise=1.0)
    unstained = make_phantom(64, 64, strength=(0.0, 0.0), blood=False, scanner=scanner).image
    assert separate(unstained).gray("eosin").min() > 50


# ---- what may be handed over ------------------------------------------------------------------------------------


def test_every_form_of_a_picture_gives_the_same(phantom: Phantom) -> None:
    small = phantom.image[40:136, 60:180]
    expected = separate(small)
    read_only = small.copy()
    read_only.setflags(write=False)
    forms = {
        "rgba, opaque": np.dstack([small, np.full(small.shape[:2], 255, np.uint8)]),
        "floats to 1": small / 255.0,
        "floats to 255": small.astype(np.float64),
        "uint16": small.astype(np.uint16) * 257,
        "fortran": np.asfortranarray(small),
        "strided": np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)[::2, ::2],
        "negative strides": small[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
    }
    for form, image in forms.items():
        before = image.copy()
        separation = separate(image)
        np.testing.assert_array_equal(separation.concentrations, expected.concentrations, err_msg=form)
        np.testing.assert_array_equal(separation.render("eosin"), expected.render("eosin"), err_msg=form)
        assert separation.facts() == expected.facts(), form
        np.testing.assert_array_equal(image, before, err_msg=form)
    gray = small[..., 1]
    np.testing.assert_array_equal(separate(gray).concentrations, separate(as_rgb8(gray)).concentrations)


def test_padding_takes_no_part_and_stays(phantom: Phantom) -> None:
    image = phantom.image.copy()
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:, :48], alpha[:, 48:50] = 0, 128
    image[alpha < 255] = (90, 20, 200)  # what lies under transparency must not matter
    separation = separate(np.dstack([image, alpha]))
    opaque = alpha == 255
    assert separation.facts() == Separator.measure(ColorHistogram.from_image(image, mask=opaque)).facts()
    np.testing.assert_array_equal(np.isnan(separation.concentrations).any(axis=2), ~opaque)
    np.testing.assert_array_equal(separation.compose()[opaque], image[opaque])
    for picture in [*separation.render_all().values(), separation.compose(), separation.gray("eosin")]:
        assert (picture[~opaque] == 255).all()


@pytest.mark.parametrize("stains", ["he", "hed"])
@pytest.mark.parametrize("level", [0, 1, 128, 240, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (64, 64)])
def test_one_color_only(stains: str, level: int, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), level, np.uint8)
    separation = separate(image, stains)
    assert np.isfinite(separation.concentrations).all()
    np.testing.assert_array_equal(separation.compose(), image)
    assert all(np.isfinite(list(table.values())).all() for table in separation.percentiles.values())
    for name in separation.names:
        assert separation.render(name).shape == image.shape
        assert separation.gray(name).shape == shape
    if level >= 240 and shape == (64, 64):
        assert separation.tissue_pixels == 0
        assert set(separation.percentiles["eosin"].values()) == {0.0}
        np.testing.assert_array_equal(separation.white_point, [level] * 3)
        assert np.abs(separation.concentrations).max() < 1e-6


def test_nothing_but_padding() -> None:
    separation = separate(np.zeros((8, 8, 4), np.uint8))
    assert np.isnan(separation.concentrations).all()
    assert (separation.compose() == 255).all()
    assert (separation.render("eosin") == 255).all()
    assert separation.tissue_pixels == 0
    np.testing.assert_array_equal(separation.white_point, PRIOR_WHITE)


# ---- stains, names, white ---------------------------------------------------------------------------------------


def test_every_published_matrix_has_names(phantom: Phantom) -> None:
    assert STAIN_NAMES.keys() == STAIN_MATRICES.keys()
    for stains, matrix in STAIN_MATRICES.items():
        assert len(STAIN_NAMES[stains]) == len(matrix)
        separation = separate(phantom.image, stains)
        assert separation.has_residual == (len(matrix) == 2)
        assert separation.names == (*STAIN_NAMES[stains], "residual")[:3]


@pytest.mark.parametrize(
    ("stains", "names", "expected"),
    [
        (HED[:2], None, ("stain 1", "stain 2", "residual")),
        (HED, None, ("stain 1", "stain 2", "stain 3")),
        (HED[:2], ["a", "b"], ("a", "b", "residual")),
        ("hdab", ("blue", "brown", "rest"), ("blue", "brown", "rest")),
        ("hed", ["x", "y", "z"], ("x", "y", "z")),
    ],
)
def test_names(stains, names, expected, phantom: Phantom) -> None:
    separation = separate(phantom.image, stains, names=names)
    assert separation.names == expected
    assert list(separation.render_all()) == list(separation.percentiles) == list(expected)


@pytest.mark.parametrize(
    ("stains", "names"),
    [
        ("he", ["a"]),
        ("he", ["a", "a"]),
        ("he", ["a", "residual"]),
        ("he", ["a", ""]),
        ("he", ["a", "b\n"]),
        ("he", [1, 2]),
        ("he", "ab"),
        ("hed", ["a", "b"]),
        ("hed", ["a", "b", "c", "d"]),
    ],
)
def test_names_that_cannot_be_are_refused(stains: str, names, phantom: Phantom) -> None:
    with pytest.raises(InputError, match="names"):
        separate(phantom.image, stains, names=names)


@pytest.mark.parametrize("method", [Macenko, Vahadane, Ruifrok])
def test_vectors_of_an_appearance(method, phantom: Phantom) -> None:
    appearance = method().estimate(phantom.image)
    separation = separate(phantom.image, appearance)
    assert separation.names == ("hematoxylin", "eosin", "residual")
    np.testing.assert_allclose(separation.stain_matrix[:2], appearance.stain_matrix, atol=1e-12)
    np.testing.assert_array_equal(separation.white_point, appearance.white_point)
    assert separation.white_origin == appearance.white_origin
    given_white = separate(phantom.image, appearance, white_point=250)
    np.testing.assert_array_equal(given_white.white_point, [250] * 3)


def test_estimated_vectors_fit_better_than_published_ones() -> None:
    planted = make_phantom(200, 200, seed=6, stain_matrix=STAINS_B, blood=False)
    found, published = separate(planted.image, Macenko().estimate(planted.image)), separate(planted.image)
    assert np.abs(found.concentrations[..., 2]).mean() < 0.3 * np.abs(published.concentrations[..., 2]).mean()


def test_an_appearance_keeps_the_names_of_published_vectors(phantom: Phantom) -> None:
    for stains in ("hdab", "hed"):
        separation = separate(phantom.image, Ruifrok(stains=stains).estimate(phantom.image))
        assert separation.names == separate(phantom.image, stains).names
    separation = separate(phantom.image, Ruifrok(stains=PAP).estimate(phantom.image))
    assert separation.names == ("stain 1", "stain 2", "stain 3")


def test_an_appearance_without_vectors_is_refused(phantom: Phantom) -> None:
    with pytest.raises(InputError, match="has no stain vectors; use that of Macenko"):
        separate(phantom.image, Reinhard().estimate(phantom.image))


@pytest.mark.parametrize(
    "stains",
    [
        "hematoxylin",
        [[1, 0, 0]],
        [[0, 0, 0], [0, 1, 0]],
        [[1, 2, 3], [2, 4, 6]],
        [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
        [[float("nan"), 1, 0], [0, 1, 0]],
        [["a", "b", "c"], [0, 1, 0]],
        [[0.65, 0.70, 0.29], [0.65, 0.705, 0.29]],  # a third of a degree apart
        [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.361, 0.845, 0.2]],
        None,
    ],
    ids=str,
)
def test_vectors_that_cannot_be_are_refused(stains, phantom: Phantom) -> None:
    with pytest.raises(InputError) as caught:
        separate(phantom.image, stains)
    assert "\n" not in str(caught.value)


def test_a_white_point_is_measured_or_given(phantom: Phantom) -> None:
    measured = separate(phantom.image)
    assert measured.white_origin == "glass"
    np.testing.assert_allclose(measured.white_point, phantom.scanner.white, atol=1.5)
    for given_white, expected in ((255, [255] * 3), ([240], [240] * 3), ((241, 236.5, 229), [241, 236.5, 229])):
        separation = separate(phantom.image, white_point=given_white)
        np.testing.assert_array_equal(separation.white_point, expected)
        assert separation.white_origin == "given"


@pytest.mark.parametrize("wrong", [0, 256, -1, (255, 255), [1, 2, 3, 4], "white", float("nan"), (240, None, 240), {}])
def test_a_white_point_that_cannot_be_is_refused(wrong, phantom: Phantom) -> None:
    with pytest.raises(InputError, match="white_point"):
        separate(phantom.image, white_point=wrong)


@pytest.mark.parametrize("wrong", [0, 1.5, -1, float("nan")])
def test_a_luminosity_that_cannot_be_is_refused(wrong, phantom: Phantom) -> None:
    with pytest.raises(InputError, match="luminosity"):
        separate(phantom.image, luminosity=wrong)


@pytest.mark.parametrize("wrong", ["dab", 3, -1, True, None, 0.0])
def test_a_stain_that_is_not_there_is_refused(wrong, phantom: Phantom) -> None:
    separation = separate(phantom.image)
    for view in (separation.render, separation.gray, separation.color_map):
        with pytest.raises(InputError, match="there are hematoxylin, eosin, residual"):
            view(wrong)


# ---- the text form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAIN_MATRICES)
def test_names_are_read_as_names(name: str) -> None:
    assert parse_stains(name) == name


def test_vectors_are_read_as_rows() -> None:
    assert parse_stains("0.65,0.70,0.29;0.07,0.99,0.11") == [[0.65, 0.7, 0.29], [0.07, 0.99, 0.11]]
    assert parse_stains(" 1, 0, 0 ; 0, 1, 0 ; 0, 0, 1e0 ") == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 3), st.just(3)), elements=st.floats(-5, 5)))
def test_any_rows_are_read_back(rows: np.ndarray) -> None:
    text = ";".join(",".join(repr(float(value)) for value in row) for row in rows)
    np.testing.assert_array_equal(parse_stains(text), rows)


@pytest.mark.parametrize("text", ["", "HE", "1,2,3", "1,2;3,4", "1,2,3;4,5", "a,b,c;d,e,f", "1,2,3;4,5,6;7,8,9;1,1,1"])
def test_text_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"got stains {text!r}")):
        parse_stains(text)


@given(image=hnp.arrays(np.uint8, (4, 5, 4)), key=st.sampled_from(sorted(EVERY)))
@with_fixtures
def test_any_rgba_gives_whole_pictures(image: np.ndarray, key: str) -> None:
    separation = separate(image, stains_of(key))
    opaque = image[..., 3] == 255
    np.testing.assert_array_equal(separation.compose()[opaque], image[..., :3][opaque])
    assert np.isnan(separation.concentrations[~opaque]).all()


# ---- real tissue ------------------------------------------------------------------------------------------------


def test_brown_and_blue_of_real_immunohistochemistry_come_apart() -> None:
    image = immunohistochemistry()  # comes with scikit-image: hematoxylin and DAB, no eosin
    separation = separate(image, "hdab")
    assert separation.white_origin == "glass"
    brown = image[..., 0].astype(int) - image[..., 2] > 60
    blue = image[..., 2].astype(int) - image[..., 0] > 30
    hematoxylin, dab = separation.concentrations[..., 0], separation.concentrations[..., 1]
    assert dab[brown].mean() > 5 * dab[blue].mean()
    assert hematoxylin[blue].mean() > 5 * hematoxylin[brown].mean()
    theirs = rgb2hed(image)
    assert np.corrcoef(theirs[..., 2].ravel(), dab.ravel())[0, 1] > 0.99
    # Three stains say that one of them is not there.
    three = separate(image, "hed")
    assert three.percentiles["eosin"][99] < 0.05 < three.percentiles["hematoxylin"][99]
    for each in (separation, three):
        np.testing.assert_array_equal(each.compose(), image)
