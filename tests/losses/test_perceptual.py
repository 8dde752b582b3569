"""Losses of content and style against their formulas in NumPy, loop by loop."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.losses.perceptual import content_loss, gram, style_loss  # noqa: E402

SHAPES = [(2, 3, 5, 4), (2, 6, 2, 3)]


def features(seed: int, *, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in SHAPES]


def gram_by_hand(maps: np.ndarray) -> np.ndarray:
    """One image's (C, H, W), as Gatys's (3), over N·M."""
    channels = len(maps)
    matrix = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            matrix[i, j] = (maps[i] * maps[j]).sum() / maps.size
    return matrix


def content_by_hand(made: Tensor, wanted: Tensor, form: str) -> float:
    pairs = zip(made.detach().numpy(), wanted.detach().numpy(), strict=True)
    return float(np.mean([((a - b) ** 2).sum() / ((b**2).sum() if form == "scale_free" else 1) for a, b in pairs]))


def style_by_hand(made: list[Tensor], wanted: list[Tensor], form: str) -> float:
    images = []
    for number in range(len(made[0])):
        total = 0.0
        for one, other in zip(made, wanted, strict=True):
            a, b = (gram_by_hand(maps[number].detach().numpy()) for maps in (one, other))
            total += ((a - b) ** 2).sum() / ((b**2).sum() if form == "scale_free" else 1)
        images.append(total)
    return float(np.mean(images))


def test_gram_matrices() -> None:
    maps = features(0)[0]
    matrices = gram(maps).detach().numpy()
    assert matrices.shape == (2, 3, 3)
    for matrix, image in zip(matrices, maps.detach().numpy(), strict=True):
        np.testing.assert_allclose(matrix, gram_by_hand(image), rtol=1e-12)
        np.testing.assert_allclose(matrix, matrix.T)


@pytest.mark.parametrize("form", ["scale_free", "paper"])
def test_they_are_the_formulas(form) -> None:
    made, wanted = features(0), features(1)
    found = content_loss(made[0], wanted[0], form)
    assert found.shape == ()
    assert found.item() == pytest.approx(content_by_hand(made[0], wanted[0], form), rel=1e-12)
    assert style_loss(made, wanted, form).item() == pytest.approx(style_by_hand(made, wanted, form), rel=1e-12)


@pytest.mark.parametrize("form", ["scale_free", "paper"])
def test_equal_images_are_at_no_distance(form) -> None:
    made = features(0)
    assert content_loss(made[0], made[0].clone(), form).item() == 0
    assert style_loss(made, [maps.clone() for maps in made], form).item() == 0


def test_style_is_of_no_place() -> None:
    """The same features elsewhere, or in an image four times as large, are the same style; the content is another."""
    made = features(0)[:1]
    moved = [maps.flip(2, 3).roll(1, dims=2) for maps in made]
    larger = [maps.tile(1, 1, 2, 2) for maps in made]
    for form in ("scale_free", "paper"):
        assert style_loss(made, moved, form).item() == pytest.approx(0, abs=1e-20)
        assert style_loss(larger, made, form).item() == pytest.approx(0, abs=1e-20)
        assert content_loss(made[0], moved[0], form).item() > 0.1


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_scale_free_is_free_of_the_scale(factor: float) -> None:
    """Of the features and, for content, of the size of the image; "paper" is of neither."""
    made, wanted = features(0), features(1)
    scaled = [[maps * factor for maps in some] for some in (made, wanted)]
    for form, power in (("scale_free", 0), ("paper", 2)):
        content = content_loss(scaled[0][0], scaled[1][0], form).item()
        assert content == pytest.approx(factor**power * content_loss(made[0], wanted[0], form).item(), rel=1e-9)
        style = style_loss(*scaled, form).item()
        assert style == pytest.approx(factor ** (2 * power) * style_loss(made, wanted, form).item(), rel=1e-9)
    tiled = [maps.tile(1, 1, 3, 3) for maps in (made[0], wanted[0])]
    for form, growth in (("scale_free", 1), ("paper", 9)):
        assert content_loss(*tiled, form).item() == pytest.approx(
            growth * content_loss(made[0], wanted[0], form).item(), rel=1e-9
        )


@pytest.mark.parametrize("form", ["scale_free", "paper"])
def test_gradients_are_the_derivatives(form) -> None:
    made, wanted = features(0), features(1)
    assert torch.autograd.gradcheck(lambda maps: content_loss(maps, wanted[0], form), made[0])
    assert torch.autograd.gradcheck(lambda *maps: style_loss(maps, wanted, form), made)


def test_gradients_reach_what_was_made_alone() -> None:
    made, wanted = features(0), features(1)
    (content_loss(made[0], wanted[0]) + style_loss(made, wanted)).backward()
    assert all(maps.grad is not None for maps in made)
    assert all(maps.grad is None for maps in wanted)


def test_half_precision_is_not_trusted() -> None:
    made, wanted = features(0, dtype=torch.bfloat16), features(1, dtype=torch.bfloat16)
    exact = [[maps.double() for maps in some] for some in (made, wanted)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        content, style = content_loss(made[0], wanted[0]), style_loss(made, wanted)
    assert content.dtype == style.dtype == torch.float32
    assert content.item() == pytest.approx(content_loss(exact[0][0], exact[1][0]).item(), rel=1e-5)
    assert style.item() == pytest.approx(style_loss(*exact).item(), rel=1e-5)


def test_features_that_are_all_zero_are_finite() -> None:
    nothing = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = content_loss(nothing, nothing.detach()) + style_loss([nothing], [nothing.detach()])
    loss.backward()
    assert loss.item() == 0
    assert nothing.grad is not None
    assert not nothing.grad.any()


def test_what_cannot_be_compared_is_refused() -> None:
    made = features(0)
    for one, other in ((made, made[:1]), (made[:1], made), ([], [])):
        with pytest.raises(InputError, match=f"got features of {len(one)} and {len(other)} layers"):
            style_loss(one, other)
    with pytest.raises(InputError, match="form='raw'; wanted one of scale_free, paper"):
        content_loss(made[0], made[0], "raw")  # type: ignore[arg-type]
