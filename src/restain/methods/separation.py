"""Stain separation: how much of each stain is in every pixel, and the picture as if only one stain were there.

Ruifrok & Johnston 2001: optical densities mix linearly, OD (n, 3) = C (n, 3) · M (3, 3) with unit rows, so the
concentrations are C = OD·M⁻¹. Densities are OD = −ln((I+1)/(W+1)) against the white point W, as everywhere in restain,
but keep their sign: a pixel brighter than glass has a density below 0, so that nothing is lost and `compose` gives
the image back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.colormap import ColorMap
from restain.color.glass import WhitePoint, find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import InputError
from restain.methods.base import Appearance, Floats
from restain.methods.ruifrok import STAIN_MATRICES, completed, stain_rows
from restain.methods.stain_vectors import LEAST_CONCENTRATION
from restain.methods.statistics import weighted_percentile

STAIN_NAMES: dict[str, tuple[str, ...]] = {
    "he": ("hematoxylin", "eosin"),
    "he-warwick": ("hematoxylin", "eosin"),
    "hdab": ("hematoxylin", "dab"),
    "hed": ("hematoxylin", "eosin", "dab"),
}
"""What the rows of `STAIN_MATRICES` are called."""

RESIDUAL = "residual"
"""What two stains leave unexplained: the amount along the vector at right angles to both."""

PERCENTILES = (1, 50, 95, 99)
"""Of each stain's concentration over tissue. 50 is its usual, 95 or 99 its robust maximum; a first percentile far
below 0 says that the vectors do not fit."""

LEAST_INDEPENDENCE = 0.01
"""Smallest singular value of the three unit rows. One over it is how far noise is blown up: at 0.01 (two vectors one
degree apart), one grey level of noise becomes a concentration of 1, as much as strong stain."""

_BLOCK = 1 << 17  # pixels worked on at a time: their float64 intermediates stay at some megabytes

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Separator:
    """Three stains measured on a slide or image, to separate any part of it: measure once, then apply to each tile.

    Attributes:
        names: of the three stains, in the order of the rows.
        stain_matrix: (3, 3), unit rows of optical density. With two stains, the third row is their cross product.
        has_residual: whether the third is that residual. It is no stain and is signed: below 0 it absorbs what its
            vector lets through.
        white_point: (3,) level of glass, 0..255, that densities are measured against.
        white_origin: "glass" (measured), "prior" (no glass seen), "given", or "assumed" (an appearance's 255).
        percentiles: for each name, the `PERCENTILES` of its concentration over tissue; 0 where there is no tissue.
        tissue_pixels: pixels (weights) that they come from.
    """

    names: tuple[str, str, str]
    stain_matrix: Floats
    has_residual: bool
    white_point: Floats
    white_origin: str
    percentiles: Mapping[str, Mapping[int, float]]
    tissue_pixels: float

    @staticmethod
    def measure(
        histogram: ColorHistogram,
        stains: Any = "he",
        *,
        white_point: Any = None,
        names: Sequence[str] | None = None,
        luminosity: float | None = 0.9,
    ) -> "Separator":
        """Measure the white point and the percentiles of each stain; arguments as `separate`."""
        if luminosity is not None and not 0 < luminosity <= 1:
            raise InputError(f"got luminosity={luminosity}; wanted a share above 0 and up to 1, or None")
        rows, usual = _rows_and_names(stains)
        matrix = completed(rows)
        independence = float(np.linalg.svd(matrix, compute_uv=False)[-1])
        if independence < LEAST_INDEPENDENCE:
            raise InputError(
                f"the stain vectors are nearly dependent (least singular value {independence:.1g}); they cannot be "
                "told apart: leave one out, or correct it"
            )
        checked = _checked_names(usual if names is None else names, len(rows))
        white = _white_point(white_point, stains, histogram)
        tissue = histogram if luminosity is None else histogram.tissue(white.level, luminosity)
        amounts = _concentrations(tissue.colors[:, None], matrix, white.level)[:, 0].astype(np.float64)
        percentiles = {
            name: dict.fromkeys(PERCENTILES, 0.0)
            if not len(tissue)
            else dict(zip(PERCENTILES, weighted_percentile(amount, tissue.counts, PERCENTILES).tolist(), strict=True))
            for name, amount in zip(checked, amounts.T, strict=True)
        }
        return Separator(
            names=checked,
            stain_matrix=matrix,
            has_residual=len(rows) == 2,
            white_point=white.level,
            white_origin=white.origin,
            percentiles=percentiles,
            tissue_pixels=tissue.pixels,
        )

    def separate(self, image: Any) -> "Separation":
        """Separate one image, or one tile of what was measured; `image` as `restain.separate` takes it."""
        amounts = _concentrations(as_rgb8(image), self.stain_matrix, self.white_point)
        known = opaque(image)
        if known is not None:
            amounts[~known] = np.nan
        measured = {item.name: getattr(self, item.name) for item in fields(Separator)}
        return Separation(concentrations=amounts, **measured)

    def color_map(self, stain: str | int, *, lazy: bool = True, workers: int | None = None) -> ColorMap:
        """The map from each colour to what `Separation.render` makes of it; see `ColorMap.from_function`."""
        index = self.index(stain)

        def rendered(colors: RGB8) -> Floats:
            amounts = _concentrations(colors[:, None], self.stain_matrix, self.white_point)
            return self._light(amounts[..., index], index)[:, 0]

        return ColorMap.from_function(rendered, lazy=lazy, workers=workers)

    def compose(self, concentrations: Any) -> RGB8:
        """The image that concentrations make, on the glass of this one; the inverse of `separate`.

        Args:
            concentrations: (H, W, 3), finite; a pixel with NaN is padding.

        Returns:
            (H, W, 3) uint8; padding is white (255).
        """
        amounts = np.asarray(concentrations)
        if amounts.ndim != 3 or amounts.shape[2] != 3 or amounts.dtype.kind not in "iuf":
            raise InputError(f"got concentrations of {amounts.dtype} {amounts.shape}; wanted numbers, (H, W, 3)")
        if np.isinf(amounts).any():
            raise InputError("got infinite concentrations; wanted finite ones, or NaN for padding")
        out = np.empty(amounts.shape, np.uint8)
        for rows in _row_blocks(amounts.shape):
            first, second, third = (amounts[rows, :, stain].astype(np.float64) for stain in range(3))
            for channel, (a, b, c) in enumerate(self.stain_matrix.T):
                level = _level(first * a + second * b + third * c, self.white_point[channel])
                out[rows, :, channel] = _rounded(level)
        return out

    def index(self, stain: str | int) -> int:
        """The row of a stain, from its name or its number (0, 1, 2)."""
        if isinstance(stain, str) and stain in self.names:
            return self.names.index(stain)
        if isinstance(stain, (int, np.integer)) and not isinstance(stain, bool) and 0 <= stain < 3:
            return int(stain)
        raise InputError(f"there is no stain {stain!r}; there are {', '.join(self.names)}, or 0, 1, 2")

    def facts(self) -> dict[str, Any]:
        """Everything that was measured, as plain values, for files and summaries."""
        return {
            "names": list(self.names),
            "stain_matrix": np.round(self.stain_matrix, 6).tolist(),
            "has_residual": self.has_residual,
            "white_point": np.round(self.white_point, 6).tolist(),
            "white_origin": self.white_origin,
            "percentiles": {
                name: {str(percentile): round(value, 6) for percentile, value in table.items()}
                for name, table in self.percentiles.items()
            },
            "tissue_pixels": self.tissue_pixels,
        }

    def _light(self, amount: Float32, index: int) -> Floats:
        """Amounts (...,) of one stain alone as levels (..., 3), neither clipped to 255 nor rounded."""
        signed = self.has_residual and index == 2
        amounts = amount.astype(np.float64) if signed else np.maximum(amount, 0.0, dtype=np.float64)
        row = self.stain_matrix[index]
        return np.stack([_level(amounts * row[c], self.white_point[c]) for c in range(3)], axis=-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Separation(Separator):
    """One image separated into its stains; what `separate` returns.

    Attributes:
        concentrations: (H, W, 3) float32, the amount of each stain, in natural optical density along its unit vector.
            Values below 0 are kept: apart from noise near 0 they say that the vectors do not fit there. NaN where the
            image is not opaque: nothing is known of padding.
    """

    concentrations: Float32

    def render(self, stain: str | int) -> RGB8:
        """The image as if only this stain were present, on the slide's own glass.

        (W+1)·e^(−max(c, 0)·m) − 1, rounded once. The residual is rendered with its sign, −c·m, because it is no stain
        of which there could be less than none.

        Args:
            stain: its name, or 0, 1, 2.

        Returns:
            (H, W, 3) uint8; padding is white (255).
        """
        index = self.index(stain)
        out = np.empty(self.concentrations.shape, np.uint8)
        for rows in _row_blocks(out.shape):
            out[rows] = _rounded(self._light(self.concentrations[rows, :, index], index))
        return out

    def render_all(self) -> dict[str, RGB8]:
        """`render` of every stain, by name."""
        return {name: self.render(name) for name in self.names}

    def gray(self, stain: str | int, *, maximum: float | None = None) -> NDArray[np.uint8]:
        """One stain's concentration as a gray picture: white (255) for none, black (0) from `maximum` on.

        Args:
            stain: its name, or 0, 1, 2. Of the residual the size counts, not the sign.
            maximum: concentration that becomes black; give one to compare images. By default the 99th percentile over
                tissue, but at least 0.05, so that the noise of an absent stain does not become a picture.

        Returns:
            (H, W) uint8; padding is white.
        """
        index = self.index(stain)
        signed = self.has_residual and index == 2
        if maximum is None:
            table = self.percentiles[self.names[index]]
            maximum = max(table[99], -table[1] if signed else 0.0, LEAST_CONCENTRATION)
        if not 0 < maximum < float("inf"):
            raise InputError(f"got maximum={maximum}; wanted a concentration above 0")
        amount = self.concentrations[..., index]
        share = np.clip((np.abs(amount) if signed else amount) / np.float32(maximum), 0, 1)
        return _rounded(255.0 * (1.0 - share))

    def compose(self, concentrations: Any = None) -> RGB8:
        """Rebuild the image from concentrations (H, W, 3), changed at will; None for its own.

        Its own give the image back exactly, where it is opaque.
        """
        return super().compose(self.concentrations if concentrations is None else concentrations)


def separate(
    image: Any,
    stains: Any = "he",
    *,
    white_point: Any = None,
    names: Sequence[str] | None = None,
    luminosity: float | None = 0.9,
) -> Separation:
    """Separate an image into its stains by colour deconvolution (Ruifrok & Johnston 2001).

    For the tiles of one slide, measure the slide once with `Separator.measure` and call its `separate` for each tile;
    or give the same `white_point` for all.

    Args:
        image: (H, W, 3) uint8 or another form that `restain.color.images.as_rgb8` accepts; never changed.
        stains: "he", "he-warwick", "hdab" or "hed"; two or three rows of R, G, B optical densities of any length (Pap
            dyes, say); or an appearance with stain vectors, from `Macenko().estimate(image)` and the like, whose
            white point is used too. Two stains are completed by their residual.
        white_point: level of empty glass, one number or (R, G, B), 0..255; None to estimate it from the image.
        names: of the two or three stains (a third name for two stains names their residual).
        luminosity: colours below this share of the white point's CIELAB lightness count as tissue, of which the
            percentiles are taken; None for all colours.

    Returns:
        Concentrations, and what renders them.

    Raises:
        InputError: the image, a name or the white point is not what was wanted, or the vectors are dependent.

    Example:
        >>> import numpy as np
        >>> from restain.methods.separation import separate
        >>> image = np.full((1, 2, 3), 255, np.uint8)
        >>> image[0, 0] = 69, 62, 142  # a nucleus
        >>> separation = separate(image, "he", white_point=255)
        >>> separation.names
        ('hematoxylin', 'eosin', 'residual')
        >>> separation.concentrations.round(1).tolist()
        [[[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
        >>> separation.render("eosin")[0].tolist()
        [[255, 254, 255], [255, 255, 255]]
    """
    histogram = ColorHistogram.from_image(image)
    separator = Separator.measure(histogram, stains, white_point=white_point, names=names, luminosity=luminosity)
    return separator.separate(image)


def parse_stains(text: str) -> str | list[list[float]]:
    """Stains as the command line has them: a name, or rows "0.65,0.70,0.29;0.07,0.99,0.11".

    Raises:
        InputError: neither a name in `STAIN_MATRICES` nor two or three rows of three numbers.
    """
    if text in STAIN_MATRICES:
        return text
    try:
        rows = [[float(value) for value in row.split(",")] for row in text.split(";")]
    except ValueError:
        rows = []
    if len(rows) not in (2, 3) or any(len(row) != 3 for row in rows):
        raise InputError(
            f"got stains {text!r}; wanted {', '.join(STAIN_MATRICES)}, or two or three rows of R, G, B densities "
            "as in 0.65,0.70,0.29;0.07,0.99,0.11"
        )
    return rows


def _checked_names(names: Sequence[str], stains: int) -> tuple[str, str, str]:
    """Three different names for two or three stains; raises `InputError` where they are not."""
    given = () if isinstance(names, str) else tuple(names)
    full = (*given, RESIDUAL) if stains == len(given) == 2 else given
    clean = all(isinstance(name, str) and name.strip() and name.isprintable() for name in full)
    if len(full) != 3 or not clean or len(set(full)) != 3:
        raise InputError(f"got names={names!r} for {stains} stains; wanted as many different names")
    return full[0], full[1], full[2]


def _rows_and_names(stains: Any) -> tuple[Floats, tuple[str, ...]]:
    """(k, 3) unit rows and what they are called."""
    if isinstance(stains, Appearance):
        if not hasattr(stains, "stain_matrix"):
            raise InputError(f"{type(stains).__name__} has no stain vectors; use that of Macenko, Vahadane or Ruifrok")
        rows = stain_rows(stains.stain_matrix)
        for name, known in STAIN_MATRICES.items():
            if known.shape == rows.shape and np.allclose(stain_rows(known), rows, rtol=0, atol=1e-9):
                return rows, STAIN_NAMES[name]
        # Vectors that were found in a pair are hematoxylin's and eosin's, in this order.
        return rows, STAIN_NAMES["he"] if len(rows) == 2 else _numbered(3)
    rows = stain_rows(stains)
    return rows, STAIN_NAMES[stains] if isinstance(stains, str) else _numbered(len(rows))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"stain {number}" for number in range(1, count + 1))


def _white_point(given: Any, stains: Any, histogram: ColorHistogram) -> WhitePoint:
    if given is None:
        if isinstance(stains, Appearance):
            return WhitePoint(stains.white_point, stains.white_origin)
        return find_white_point(histogram)
    try:
        level = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        level = np.zeros(0)
    if level.shape not in ((), (1,), (3,)) or not ((level > 0) & (level <= 255)).all():  # NaN fails too
        raise InputError(f"got white_point={given!r}; wanted one level or three (R, G, B), above 0 and up to 255")
    return WhitePoint(np.broadcast_to(level, 3).copy(), "given")


def _concentrations(pixels: RGB8, matrix: Floats, white: Floats) -> Float32:
    """C = OD·M⁻¹ for pixels (H, W, 3): (H, W, 3)."""
    # Column by column, not by a BLAS product, so that a colour's result never depends on its neighbours.
    inverse = np.linalg.inv(matrix)
    density = np.log(white + 1.0) - np.log(np.arange(256.0) + 1.0)[:, None]
    out = np.empty(pixels.shape, np.float32)
    for rows in _row_blocks(pixels.shape):
        red, green, blue = (density[:, channel].copy().take(pixels[rows, :, channel]) for channel in range(3))
        for stain, (r, g, b) in enumerate(inverse.T):
            out[rows, :, stain] = red * r + green * g + blue * b
    return out


def _level(density: Floats, white: float) -> Floats:
    """(W+1)·e^−OD − 1; densities are bounded below, where the level is far above 255 anyway, so that it is finite."""
    level: Floats = (white + 1.0) * np.exp(-np.maximum(density, -6.0)) - 1.0
    return level


def _rounded(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """To 8 bits; NaN, which is padding, to white."""
    whole: NDArray[np.uint8] = np.rint(np.nan_to_num(np.clip(levels, 0.0, 255.0), nan=255.0)).astype(np.uint8)
    return whole


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _BLOCK // max(shape[1], 1))
    for top in range(0, shape[0], step):
        yield slice(top, top + step)
