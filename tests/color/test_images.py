"""`as_rgb8`: what each accepted form means, what is refused, and that nothing of the caller's is changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from restain.color.images import as_rgb8, opaque
from restain.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
GRAY = RGB[..., 0]

sides = st.integers(1, 12)
images = st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3)))


def composite(rgb: np.ndarray, share: np.ndarray) -> np.ndarray:
    """On white; `share` (H, W) in 0..1 is how much of the colour is seen."""
    return np.rint(255 + (rgb.astype(float) - 255) * share[..., None])


# ---- accepted ---------------------------------------------------------------------------------------------------


def test_rgb8_comes_back_as_the_same_memory() -> None:
    assert as_rgb8(RGB) is RGB


@pytest.mark.parametrize(
    "view", [RGB[::-1], RGB[:, ::-2], RGB[..., ::-1], np.asfortranarray(RGB), RGB.transpose(1, 0, 2)]
)
def test_views_are_not_copied(view: np.ndarray) -> None:
    assert as_rgb8(view) is view


@given(images)
def test_every_rgb8_image_is_itself(image: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb8(image), image)


@pytest.mark.parametrize("gray", [GRAY, GRAY[..., None]])
def test_gray_is_repeated(gray: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb8(gray), np.stack([GRAY, GRAY, GRAY], axis=-1))


def test_opaque_alpha_is_dropped() -> None:
    rgba = np.dstack([RGB, np.full(GRAY.shape, 255, np.uint8)])
    np.testing.assert_array_equal(as_rgb8(rgba), RGB)


@given(st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(np.uint8, (*size, 4))))
def test_transparency_is_composited_on_white(rgba: np.ndarray) -> None:
    expected = composite(rgba[..., :3], rgba[..., 3] / 255)
    assert np.abs(as_rgb8(rgba) - expected).max() <= 1  # a tie may round either way
    clear, full = rgba[..., 3] == 0, rgba[..., 3] == 255
    assert (as_rgb8(rgba)[clear] == 255).all()
    np.testing.assert_array_equal(as_rgb8(rgba)[full], rgba[..., :3][full])


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_uint16_is_the_full_range_rounded(order: str) -> None:
    values = np.arange(65536, dtype=np.uint16).astype(order).reshape(256, 256)
    expected = np.floor(values.astype(np.float64) * 255 / 65535 + 0.5)  # no value lies halfway
    np.testing.assert_array_equal(as_rgb8(values)[..., 0], expected)


@given(images)
def test_uint16_of_an_8_bit_image_gives_it_back(image: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb8(image.astype(np.uint16) * 257), image)


def test_uint16_alpha() -> None:
    rgba = np.dstack([RGB, np.where(GRAY > 127, 255, 0).astype(np.uint8)])
    np.testing.assert_array_equal(as_rgb8(rgba.astype(np.uint16) * 257), as_rgb8(rgba))


def test_bool_is_black_and_white() -> None:
    mask = GRAY > 127
    np.testing.assert_array_equal(as_rgb8(mask), np.where(mask, 255, 0)[..., None].repeat(3, axis=2))
    np.testing.assert_array_equal(as_rgb8(RGB > 127), np.where(RGB > 127, 255, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
@given(image=images)
def test_floats_up_to_one_are_shares_of_255(dtype, image: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb8((image / 255.0).astype(dtype)), image)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
@given(image=images.filter(lambda image: image.max() > 1))
def test_floats_above_one_are_levels(dtype, image: np.ndarray) -> None:
    np.testing.assert_array_equal(as_rgb8(image.astype(dtype)), image)


def test_floats_are_rounded_to_nearest() -> None:
    assert as_rgb8(np.array([[[0.4, 0.6, 254.7]]])).tolist() == [[[0, 1, 255]]]
    assert as_rgb8(np.array([[[0.499, 0.5011, 1.0]]])).tolist() == [[[127, 128, 255]]]


def test_float_black_and_white_take_the_full_range() -> None:
    assert as_rgb8(np.zeros((2, 2, 3))).max() == 0
    assert as_rgb8(np.ones((2, 2, 3))).min() == 255
    assert as_rgb8(np.full((2, 2, 3), 255.0)).min() == 255


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(), (1,), (3,), (4,)]))
def test_any_size_comes_out_as_height_width_3(height: int, width: int, channels: tuple[int, ...]) -> None:
    result = as_rgb8(np.zeros((height, width, *channels), np.uint8))
    assert result.shape == (height, width, 3)
    assert result.dtype == np.uint8


# ---- PIL --------------------------------------------------------------------------------------------------------


def test_pil_rgb_and_gray() -> None:
    np.testing.assert_array_equal(as_rgb8(Image.fromarray(RGB)), RGB)
    np.testing.assert_array_equal(as_rgb8(Image.fromarray(GRAY)), as_rgb8(GRAY))


def test_pil_palette() -> None:
    picture = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(as_rgb8(picture), np.asarray(picture.convert("RGB")))


def test_pil_cmyk() -> None:
    picture = Image.new("CMYK", (3, 2), (255, 0, 0, 0))
    assert as_rgb8(picture)[0, 0].tolist() == [0, 255, 255]


def test_pil_bilevel() -> None:
    np.testing.assert_array_equal(as_rgb8(Image.fromarray(GRAY > 127)), as_rgb8(GRAY > 127))


def pil_with_hole(mode: str) -> Image.Image:
    """All (10, 10, 10), but for a transparent pixel in the top left corner."""
    picture = Image.new("LA", (16, 16), (10, 255))
    picture.putpixel((0, 0), (10, 0))
    if mode == "P":  # a palette with one transparent entry, as GIF and PNG have it
        palette = Image.new("P", (16, 16), 1)
        palette.putpalette([200, 0, 0, 10, 10, 10])
        palette.putpixel((0, 0), 0)
        palette.info["transparency"] = 0
        return palette
    return picture if mode == "LA" else picture.convert("RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGBa", "P"])
def test_pil_transparency_is_composited_on_white(mode: str) -> None:
    result = as_rgb8(pil_with_hole(mode))
    assert result[0, 0].tolist() == [255, 255, 255]
    assert (result.reshape(-1, 3)[1:] == 10).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_pil_16_bits_is_the_full_range(mode: str) -> None:
    values = np.linspace(0, 65535, 35).astype(np.uint16).reshape(7, 5)
    picture = Image.frombytes(mode, (5, 7), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    np.testing.assert_array_equal(as_rgb8(picture), as_rgb8(values))


@pytest.mark.parametrize("values", [GRAY.astype(np.int32) * 257, (GRAY / 255).astype(np.float32)])
def test_pil_modes_without_a_fixed_range_are_never_clipped_silently(values: np.ndarray) -> None:
    try:
        result = as_rgb8(Image.fromarray(values))
    except InputError:
        return
    np.testing.assert_array_equal(result, as_rgb8(GRAY))


# ---- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\); wanted \(H, W, 3\)"),
        (np.zeros((4, 4, 5), np.uint8), r"shape \(4, 4, 5\)"),
        (np.zeros(12, np.uint8), r"shape \(12,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "one image"),
        (np.uint8(3), r"shape \(\)"),
        (np.zeros((3, 8, 8), np.uint8), "move the channel axis last"),
        (np.zeros((0, 8, 3), np.uint8), "empty image"),
        (np.zeros((8, 0), np.uint8), "empty image"),
        (np.zeros((4, 4, 3), np.int64), "got int64 values; wanted uint8, uint16"),
        (np.zeros((4, 4, 3), np.int8), "got int8"),
        (np.zeros((4, 4, 3), np.uint32), "got uint32"),
        (np.zeros((4, 4, 3), np.complex128), "got complex128"),
        (np.full((4, 4, 3), "a"), "got <U1"),
        (np.full((4, 4, 3), np.nan), "NaN or infinite"),
        (np.full((4, 4, 3), np.inf), "NaN or infinite"),
        (np.full((4, 4, 3), -0.01), r"floats in -0.01..-0.01; wanted 0..1 or 0..255"),
        (np.full((4, 4, 3), 255.5), "floats in 255.5..255.5"),
        (None, "shape"),
        ("tile.png", "shape"),
        ([[1, 2], [3]], "shape|sequence"),
    ],
)
def test_what_is_refused_and_what_it_says(image, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_rgb8(image)


def test_one_bad_value_is_enough() -> None:
    floats = RGB / 255.0
    floats[3, 2, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        as_rgb8(floats)


# ---- the caller's array -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        GRAY,
        np.dstack([RGB, GRAY]),
        RGB.astype(np.uint16) * 257,
        RGB > 127,
        RGB / 255.0,
        RGB.astype(np.float32),
        np.dstack([RGB, GRAY]) / 255.0,
    ],
    ids=["rgb", "gray", "rgba", "uint16", "bool", "float01", "float255", "rgba float"],
)
def test_the_callers_array_is_never_changed_and_may_be_read_only(image: np.ndarray) -> None:
    image = image.copy()
    before = image.copy()
    image.setflags(write=False)
    as_rgb8(image)
    opaque(image)
    np.testing.assert_array_equal(image, before)


# ---- opaque -----------------------------------------------------------------------------------------------------


def test_opaque_is_none_without_alpha_and_where_all_is_opaque() -> None:
    assert opaque(RGB) is None
    assert opaque(GRAY) is None
    assert opaque(np.dstack([RGB, np.full(GRAY.shape, 255, np.uint8)])) is None


def test_opaque_is_where_alpha_is_full() -> None:
    alpha = np.where(GRAY > 127, 255, GRAY).astype(np.uint8)
    rgba = np.dstack([RGB, alpha])
    for image in (rgba, rgba.astype(np.uint16) * 257, rgba / 255.0, rgba.astype(np.float64), Image.fromarray(rgba)):
        np.testing.assert_array_equal(opaque(image), alpha == 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGBa", "P"])
def test_opaque_knows_the_transparency_of_pil_images(mode: str) -> None:
    mask = opaque(pil_with_hole(mode))
    assert mask is not None
    assert not mask[0, 0]
    assert mask.sum() == mask.size - 1
