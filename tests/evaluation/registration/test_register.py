"""Planted shifts and warps are found, true pairs are accepted and false ones are not, and nothing odd crashes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restain import Scanner, make_phantom
from restain.errors import InputError, MissingExtraError
from restain.evaluation.registration import Registration, RegistrationSettings, register

from . import planting

SHIFTS = [(0.0, 0.0), (3.37, -2.81), (-17.25, 30.6)]
BENT = {"shift": (4.3, -3.6), "bend": 3.0, "turn": 0.4}


def real_tiles(data: Path) -> list[Any]:
    """Tiles of three scanners, larger than the pairs that are cut from them."""
    names = ["glas/img/train_1.png", "glas/img/train_11.png"]
    found = [data / name for name in names] + sorted((data / "monuseg").rglob("*.png"))[:1]
    paths = [path for path in found if path.is_file()]
    if not paths:
        pytest.skip(f"{data} has neither glas nor monuseg")
    return [planting.read(path) for path in paths]


# ---- planted truth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_planted_shifts_are_found_in_phantom_tissue(seed: int, shift: tuple[float, float]) -> None:
    source, target, positions = planting.planted(planting.phantom_picture(seed), seed, shift=shift)
    result = register(source, target)
    assert result.accepted, result.reason
    assert planting.errors(result, positions).mean() <= 0.1


@pytest.mark.parametrize("shift", SHIFTS)
def test_planted_shifts_are_found_in_real_tissue(data: Path, shift: tuple[float, float]) -> None:
    for seed, tile in enumerate(real_tiles(data)):
        source, target, positions = planting.planted(tile, seed, shift=shift)
        found = planting.errors(register(source, target), positions)
        assert found.mean() <= 0.1
        assert np.percentile(found, 95) <= 0.15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_warps_are_found_in_phantom_tissue(seed: int) -> None:
    source, target, positions = planting.planted(planting.phantom_picture(seed), seed, **BENT)
    result = register(source, target)
    found = planting.errors(result, positions)
    assert result.accepted, result.reason
    assert found.mean() <= 0.15
    assert np.percentile(found, 95) <= 0.5  # in lumens there is nothing to follow


def test_planted_warps_are_found_in_real_tissue(data: Path) -> None:
    for seed, tile in enumerate(real_tiles(data)):
        source, target, positions = planting.planted(tile, seed, **BENT)
        found = planting.errors(register(source, target), positions)
        assert found.mean() <= 0.1
        assert np.percentile(found, 99) <= 0.5


def test_the_planting_is_sound() -> None:
    source, target, positions = planting.planted(planting.phantom_picture(1), 1, shift=(5.0, -3.0))
    assert np.allclose(positions[10, 20], (25.0, 7.0))
    moved = target[:-3, 5:].astype(float).mean(axis=2)
    still = source[3:, :-5].astype(float).mean(axis=2)
    assert np.corrcoef(moved.ravel(), still.ravel())[0, 1] > 0.95


def test_flow_finds_what_an_affine_map_cannot() -> None:
    source, target, positions = planting.planted(planting.phantom_picture(2), 2, **BENT)
    affine = register(source, target, RegistrationSettings(flow_rounds=0))
    dense = register(source, target)
    assert not affine.flow.any()
    assert planting.errors(dense, positions).mean() < 0.3 * planting.errors(affine, positions).mean()
    assert dense.quality.ssim_after > affine.quality.ssim_after > affine.quality.ssim_before


@pytest.mark.parametrize("seed", [1, 2])
def test_glass_is_moved_with_the_tissue_beside_it(seed: int) -> None:
    """Sixty per cent of the picture is glass, on which flow would follow noise."""
    picture = make_phantom(400, 400, seed=seed, glass_fraction=0.6, scanner=Scanner(noise=1.0, blur=0.6)).image
    source, target, positions = planting.planted(picture, seed, shift=(3.4, -2.3))
    result = register(source, target)
    found = planting.errors(result, positions)
    assert result.accepted, result.reason
    assert found.mean() <= 0.1
    assert found.max() <= 1.0


def test_a_known_shift_is_used() -> None:
    # Further than half the side, where phase correlation takes 150 for -106.
    picture = planting.phantom_picture(4, 700)
    source, target = (
        picture[100:356, 250:506],
        planting.other_scanner(picture[100:356, 100:356], np.random.default_rng(0)),
    )
    settings = RegistrationSettings(least_covered=0.1)
    assert register(source, target, settings, shift=(150.0, 0.0)).accepted
    assert not register(source, target, settings).accepted


# ---- sizes ------------------------------------------------------------------------------------------------------


def test_a_target_of_another_crop_is_found() -> None:
    picture = planting.phantom_picture(5, 420)
    source, target = picture[60:316, 80:336], planting.other_scanner(picture[40:390, 50:350], np.random.default_rng(0))
    result = register(source, target)
    assert result.accepted, result.reason
    assert np.allclose(result.positions()[128, 128], (158, 148), atol=0.2)
    assert result.warp(target).shape == source.shape


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_one_field_in_another_pixel_size_is_found(factor: float) -> None:
    from PIL import Image

    picture = planting.phantom_picture(6, 300)
    side = round(300 * factor)
    target = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
    result = register(picture, target)
    assert result.accepted, result.reason
    middle = (150 + 0.5) * factor - 0.5
    assert np.allclose(result.positions()[150, 150], (middle, middle), atol=0.1)
    apart = np.abs(result.warp(target).astype(int) - picture)[result.mask]
    assert np.median(apart) <= 4


# ---- what is rejected, and what is odd ---------------------------------------------------------------------------


def test_other_tissue_is_rejected() -> None:
    for seed in (1, 2, 3):
        result = register(planting.phantom_picture(seed, 256), planting.phantom_picture(seed + 10, 256))
        assert not result.accepted
        assert result.reason


def blank(level: int, *shape: int) -> Any:
    return np.full(shape, level, np.uint8)


TISSUE = make_phantom(96, 96, seed=3).image
ODD = {
    "one pixel": (blank(9, 1, 1, 3), TISSUE, "source is 1x1"),
    "small target": (TISSUE, TISSUE[:20], "target is 96x20"),
    "white source": (blank(255, 96, 96, 3), TISSUE, "source is blank"),
    "black target": (TISSUE, blank(0, 96, 96, 3), "target is blank"),
    "both blank": (blank(7, 96, 96), blank(7, 96, 96), "source is blank"),
    "transparent": (np.dstack([TISSUE, blank(0, 96, 96)]), TISSUE, "source is blank"),
    "noise": (np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8), TISSUE, "correlates"),
}


@pytest.mark.parametrize(("source", "target", "reason"), ODD.values(), ids=ODD)
def test_odd_pairs_are_rejected_with_a_reason_and_finite_numbers(source: Any, target: Any, reason: str) -> None:
    result = register(source, target)
    assert not result.accepted
    assert reason in result.reason
    assert np.isfinite(result.positions()).all()
    assert np.isfinite(list(vars(result.quality).values())).all()
    assert result.warp(target).shape[:2] == np.shape(source)[:2]


def test_gray_rgba_and_floats_are_pictures_too() -> None:
    gray = TISSUE.mean(axis=2).astype(np.uint8)
    opaque = np.dstack([TISSUE, blank(255, 96, 96)])
    for source, target in ((gray, TISSUE), (opaque, TISSUE), (TISSUE, TISSUE / 255.0)):
        result = register(source, target)
        assert result.accepted, result.reason
        assert np.abs(result.positions()[48, 48] - 48).max() < 0.1


def test_transparent_pixels_are_masked_with_a_margin() -> None:
    alpha = blank(255, 96, 96)
    alpha[:30] = 0
    for pair in ((np.dstack([TISSUE, alpha]), TISSUE), (TISSUE, np.dstack([TISSUE, alpha]))):
        result = register(*pair)
        assert not result.mask[: 30 + 16].any()
        assert result.mask[60:70, 40:50].all()


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 7), np.uint8), np.full((9, 9), np.nan), np.zeros((0, 3, 3))])
def test_what_is_no_picture_is_an_error(wrong: Any) -> None:
    with pytest.raises(InputError):
        register(TISSUE, wrong)


def test_a_picture_that_is_too_long_is_an_error() -> None:
    with pytest.raises(InputError, match="register tiles of it"):
        register(np.zeros((1, 40_000, 3), np.uint8), TISSUE)


@pytest.mark.parametrize(
    "wrong", [{"flow_rounds": -1}, {"border": -1}, {"contrast_radius": 0.0}, {"most_inconsistent": 1.5}]
)
def test_settings_out_of_range_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RegistrationSettings(**wrong)


def test_without_opencv_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'restain\[evaluation\]'") as error:
        register(TISSUE, TISSUE)
    assert isinstance(error.value, ImportError)


# ---- promises ---------------------------------------------------------------------------------------------------


def test_the_same_pair_gives_the_same_bytes_whatever_the_threads() -> None:
    import cv2

    source, target, _ = planting.planted(planting.phantom_picture(1), 1, **BENT)
    before = source.copy(), target.copy()
    threads = cv2.getNumThreads()
    results = []
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            results.append(register(source, target))
    finally:
        cv2.setNumThreads(threads)
    one, four = results
    assert one.positions().tobytes() == four.positions().tobytes()
    assert one.mask.tobytes() == four.mask.tobytes()
    assert one.quality == four.quality
    assert np.array_equal(source, before[0])
    assert np.array_equal(target, before[1])


def test_figures_are_those_of_the_mask() -> None:
    from skimage.metrics import structural_similarity

    source, target, _ = planting.planted(planting.phantom_picture(3), 3, shift=(4.0, 2.0))
    result = register(source, target)
    _, values = structural_similarity(
        source, result.warp(target), channel_axis=-1, gaussian_weights=True, sigma=1.5, win_size=11, data_range=255,
        full=True,
    )  # fmt: skip
    assert result.quality.ssim_after == pytest.approx(values[result.mask].mean(), abs=1e-9)
    assert result.quality.covered == pytest.approx(result.mask.mean())
    assert not result.mask[:16].any()
    assert not result.mask[:, -16:].any()


# ---- real pairs of two scanners ----------------------------------------------------------------------------------


def scanner_pair(data: Path, tile: str) -> tuple[Any, Any]:
    folder = data / "mitos_pairs"
    if not folder.is_dir():
        pytest.skip(f"{data} has no mitos_pairs")
    aperio, hamamatsu = (planting.read(folder / scanner / f"{tile}.png") for scanner in ("aperio", "hamamatsu"))
    return aperio, hamamatsu


@pytest.mark.parametrize("tile", ["030_0", "041_2", "052_4", "070_3"])
def test_real_pairs_of_two_scanners_are_registered(data: Path, tile: str) -> None:
    result: Registration = register(*scanner_pair(data, tile))
    assert result.accepted, result.reason
    assert result.quality.ssim_after > result.quality.ssim_before
    assert result.quality.correlation_after > result.quality.correlation_before


def test_pairs_of_other_tiles_are_rejected(data: Path) -> None:
    for source, target in (("030_0", "031_4"), ("052_4", "070_3"), ("041_2", "043_1")):
        assert not register(scanner_pair(data, source)[0], scanner_pair(data, target)[1]).accepted
