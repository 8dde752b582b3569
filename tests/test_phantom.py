"""The phantom is other tests' truth, so here its own truth is checked against formulas written down independently."""

import numpy as np
import pytest

from restain.phantom import RBC, STAINS_A, STAINS_B, Phantom, Scanner, make_phantom, render

from .methods.oracles import angles_between

BLUISH = Scanner(white=(232.0, 236.0, 240.0))


def optical_density(image: np.ndarray, white: tuple[float, float, float]) -> np.ndarray:
    return -np.log((image.astype(np.float64) + 1) / (np.asarray(white) + 1))


def macenko(image: np.ndarray, white: tuple[float, float, float]) -> np.ndarray:
    """Macenko et al. 2009 as usually coded; pixels count as tissue when their three densities add up to 0.45."""
    density = np.maximum(optical_density(image, white).reshape(-1, 3), 0)
    density = density[density.sum(axis=1) > 0.45]
    plane = np.linalg.eigh(np.cov(density.T))[1][:, :0:-1]
    plane *= np.sign(plane[0])
    across, along = (density @ plane).T[::-1]
    angles = np.percentile(np.arctan2(across, along), [1, 99])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    return rows[np.argsort(-rows[:, 0])]


def same_tissue(one: Phantom, other: Phantom) -> bool:
    names = ("concentrations", "rbc", "nuclei", "blood", "lumen", "glass")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(384, 512, seed=1)


def test_shapes_and_types(phantom: Phantom) -> None:
    assert phantom.image.shape == (384, 512, 3)
    assert phantom.image.dtype == np.uint8
    assert phantom.concentrations.shape == (384, 512, 2)
    assert phantom.concentrations.dtype == phantom.rbc.dtype == np.float32
    assert phantom.stain_matrix.shape == (2, 3)
    for mask in (phantom.rbc, phantom.nuclei, phantom.blood, phantom.lumen, phantom.glass):
        assert mask.shape == (384, 512)
    for mask in (phantom.nuclei, phantom.blood, phantom.lumen, phantom.glass):
        assert mask.dtype == np.bool_
        assert mask.any()
    assert phantom.concentrations.min() == 0
    assert phantom.rbc.min() == 0


def test_stains_are_plausible_unit_vectors() -> None:
    for stains in (STAINS_A, STAINS_B):
        assert stains.shape == (2, 3)
        assert (stains >= 0).all()
        assert stains[0, 0] > stains[1, 0]
        np.testing.assert_allclose(np.linalg.norm(stains, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(RBC), 1)
    assert angles_between(STAINS_A, STAINS_B).min() > 5


def test_same_seed_same_bytes_other_seed_other_tissue() -> None:
    scanner = Scanner(noise=2.0, blur=0.5)
    one, again = (make_phantom(96, 128, seed=3, scanner=scanner) for _ in range(2))
    assert np.array_equal(one.image, again.image)
    assert same_tissue(one, again)
    assert not same_tissue(one, make_phantom(96, 128, seed=4, scanner=scanner))


def test_tissue_does_not_depend_on_stains_scanner_or_strength(phantom: Phantom) -> None:
    scanner = Scanner(white=(255.0, 240.0, 230.0), gamma=1.2, blur=1.0, noise=3.0)
    other = make_phantom(384, 512, seed=1, stain_matrix=STAINS_B, scanner=scanner)
    assert same_tissue(phantom, other)
    assert not np.array_equal(phantom.image, other.image)
    paler = make_phantom(384, 512, seed=1, strength=(0.5, 0.0))
    np.testing.assert_array_equal(paler.concentrations[..., 0], phantom.concentrations[..., 0] * np.float32(0.5))
    assert not paler.concentrations[..., 1].any()
    assert np.array_equal(paler.glass, phantom.glass)


def test_rendering_the_same_tissue_elsewhere_equals_drawing_it_there(phantom: Phantom) -> None:
    scanner = Scanner(white=BLUISH.white, noise=1.0)
    there = make_phantom(384, 512, seed=1, stain_matrix=STAINS_B, scanner=scanner)
    np.testing.assert_array_equal(render(phantom.concentrations, phantom.rbc, STAINS_B, scanner, seed=1), there.image)


def test_without_blood_the_same_vessels_are_empty(phantom: Phantom) -> None:
    bloodless = make_phantom(384, 512, seed=1, blood=False)
    assert not bloodless.rbc.any()
    assert not bloodless.blood.any()
    assert bloodless.lumen[phantom.blood].mean() > 0.8  # the rest lay over the nuclei of the wall
    untouched = phantom.rbc == 0
    np.testing.assert_array_equal(bloodless.concentrations[untouched], phantom.concentrations[untouched])


@pytest.mark.parametrize("white", [(243.0, 243.0, 243.0), (232.0, 236.0, 240.0), (255.0, 255.0, 255.0)])
def test_glass_is_the_white_point(white: tuple[float, float, float]) -> None:
    phantom = make_phantom(200, 160, seed=2, scanner=Scanner(white=white, gamma=1.3))
    assert (phantom.image[phantom.glass] == white).all()


def test_glass_is_exactly_where_nothing_is(phantom: Phantom) -> None:
    empty = (phantom.concentrations == 0).all(axis=-1) & (phantom.rbc == 0)
    np.testing.assert_array_equal(phantom.glass, empty)
    assert not (phantom.lumen & ~phantom.glass).any()
    assert not (phantom.glass & (phantom.nuclei | phantom.blood)).any()
    assert not (phantom.nuclei & phantom.blood).any()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.6, 1.0])
def test_glass_fraction_is_the_share_outside_the_tissue(fraction: float) -> None:
    phantom = make_phantom(150, 200, glass_fraction=fraction)
    assert (phantom.glass & ~phantom.lumen).mean() == pytest.approx(fraction, abs=1e-3)


@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B])
def test_planted_density_comes_back_up_to_rounding(stains: np.ndarray) -> None:
    phantom = make_phantom(256, 256, seed=5, stain_matrix=stains, scanner=BLUISH)
    planted = phantom.concentrations.astype(np.float64) @ stains + phantom.rbc[..., None].astype(np.float64) * RBC
    # Half a grey level, seen through the logarithm.
    level = (np.asarray(BLUISH.white) + 1) * np.exp(-planted) - 1
    assert np.abs(phantom.image - level).max() <= 0.5 + 1e-9
    tolerance = np.log((level + 1) / (level + 0.5)) + 1e-9
    assert (np.abs(optical_density(phantom.image, BLUISH.white) - planted) <= tolerance).all()


def test_render_formula_with_gamma_and_clipping() -> None:
    concentrations = np.array([[[0.0, 0.0], [0.3, 0.2], [30.0, 0.0]]])
    rbc = np.array([[0.0, 0.1, 0.0]])
    scanner = Scanner(white=(200.0, 243.5, 255.0), gamma=0.8)
    transmittance = np.exp(-(concentrations @ STAINS_A + rbc[..., None] * RBC))
    level = (np.array([201.0, 244.5, 256.0])) * transmittance**0.8 - 1
    expected = np.clip(np.rint(level), 0, 255)
    np.testing.assert_array_equal(render(concentrations, rbc, STAINS_A, scanner), expected)
    assert expected[0, 0, 1] == 244  # 243.5 goes to the even neighbour
    assert (expected[0, 2] == 0).all()


def test_blur_mixes_light_and_keeps_flat_glass(phantom: Phantom) -> None:
    blurred = render(phantom.concentrations, phantom.rbc, STAINS_A, Scanner(blur=2.0))
    assert blurred.mean() == pytest.approx(phantom.image.mean(), abs=0.5)
    assert np.diff(blurred.astype(float), axis=1).std() < np.diff(phantom.image.astype(float), axis=1).std()
    empty = render(np.zeros((9, 7, 2)), np.zeros((9, 7)), STAINS_A, Scanner(blur=2.0))
    assert (empty == 243).all()


def test_noise_has_the_asked_size_and_its_own_seed() -> None:
    grey = np.full((200, 200, 2), 0.4), np.zeros((200, 200)), STAINS_A
    clean = render(*grey, Scanner()).astype(float)
    noisy = render(*grey, Scanner(noise=3.0), seed=1).astype(float)
    assert (noisy - clean).std() == pytest.approx(3, rel=0.03)
    assert not np.array_equal(noisy, render(*grey, Scanner(noise=3.0), seed=2))


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_macenko_finds_the_planted_stains(seed: int, stains: np.ndarray, noise: float) -> None:
    scanner = Scanner(noise=noise)
    phantom = make_phantom(512, 512, seed=seed, stain_matrix=stains, scanner=scanner, blood=False)
    assert angles_between(macenko(phantom.image, scanner.white), stains).max() <= 2


@pytest.mark.parametrize("stains", [STAINS_A, STAINS_B])
def test_colours_are_those_of_the_stains(stains: np.ndarray) -> None:
    phantom = make_phantom(384, 384, seed=7, stain_matrix=stains)
    red, green, blue = phantom.image[phantom.nuclei].mean(axis=0)
    assert blue > red > green  # violet-blue
    red, green, blue = phantom.image[phantom.blood].mean(axis=0)
    assert red > blue + 60  # red, not pink
    assert red > green + 60
    stroma = ~(phantom.glass | phantom.nuclei | phantom.blood)
    red, green, blue = phantom.image[stroma].mean(axis=0)
    assert red > blue > green  # pink
    assert phantom.image[phantom.nuclei].mean() < phantom.image[stroma].mean()


@pytest.mark.parametrize("seed", range(8))
def test_a_small_picture_holds_everything(seed: int) -> None:
    phantom = make_phantom(256, 256, seed=seed)
    for mask in (phantom.nuclei, phantom.blood, phantom.lumen, phantom.glass):
        assert mask.mean() > 0.001


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 5), (17, 16), (40, 9)])
def test_any_size_works(size: tuple[int, int]) -> None:
    phantom = make_phantom(*size, seed=1, scanner=Scanner(blur=1.5, noise=1.0))
    assert phantom.image.shape == (*size, 3)
    assert np.isfinite(phantom.concentrations).all()
    assert (phantom.concentrations >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"white": (243.0, 0.0, 243.0)}, r"white came as .*wanted three levels.*\(0, 255\]"),
        ({"white": (256.0, 243.0, 243.0)}, "white came as"),
        ({"white": (243.0, 243.0)}, "white came as"),
        ({"white": (243.0, float("nan"), 243.0)}, "white came as"),
        ({"gamma": 0.0}, "gamma came as 0.0; wanted .* > 0"),
        ({"gamma": float("nan")}, "gamma came as nan"),
        ({"blur": -1.0}, "blur came as -1.0; wanted .* >= 0"),
        ({"noise": -0.1}, "noise came as -0.1; wanted .* >= 0"),
        ({"noise": float("inf")}, "noise came as inf"),
    ],
)
def test_impossible_scanners_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scanner(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "size came as 0 x 8; wanted .* >= 1"),
        ({"width": -2}, "size came as 8 x -2"),
        ({"strength": (1.0, -1.0)}, "strength came as"),
        ({"strength": (1.0,)}, "strength came as"),
        ({"glass_fraction": 1.5}, r"glass_fraction came as 1.5; wanted a number in 0..1"),
        ({"glass_fraction": float("nan")}, "glass_fraction came as nan"),
        ({"stain_matrix": np.eye(3)}, r"stain_matrix came with shape \(3, 3\).*wanted a finite \(2, 3\)"),
        ({"stain_matrix": np.full((2, 3), np.nan)}, "stain_matrix came with"),
        ({"seed": -1}, "non-negative"),
    ],
)
def test_impossible_phantoms_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_phantom(**{"height": 8, "width": 8} | arguments)


def test_render_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"concentrations came with shape \(4, 5, 3\); wanted \(H, W, 2\)"):
        render(np.zeros((4, 5, 3)), np.zeros((4, 5)), STAINS_A, Scanner())
    with pytest.raises(ValueError, match=r"concentrations came with shape \(0, 5, 2\)"):
        render(np.zeros((0, 5, 2)), np.zeros((0, 5)), STAINS_A, Scanner())
    with pytest.raises(ValueError, match=r"rbc came with shape \(5, 4\); wanted \(4, 5\)"):
        render(np.zeros((4, 5, 2)), np.zeros((5, 4)), STAINS_A, Scanner())
