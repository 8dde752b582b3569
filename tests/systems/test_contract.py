"""The questions that every normalizer answers, asked of every system; weights are random, the verbs are real."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain import ColorHistogram, load  # noqa: E402  (after the skip)
from restain.color.images import as_rgb8  # noqa: E402
from restain.errors import FitError, InputError, NotFittedError  # noqa: E402
from restain.methods.base import Appearance  # noqa: E402
from restain.methods.macenko import Macenko  # noqa: E402
from restain.methods.windows import WindowMap, apply_windows  # noqa: E402
from restain.phantom import Phantom, Scanner, make_phantom  # noqa: E402
from restain.systems import SYSTEMS  # noqa: E402
from restain.systems.base import NetworkAppearance  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402

from .small import FACTS, STATISTICS, WHITE, batch, make, noise, trained  # noqa: E402

pytestmark = pytest.mark.parametrize("name", SYSTEMS)

BACKGROUNDS = ("match", "keep", "white", "none")
OWN = {name: "image" if statistics == "slide" else statistics for name, statistics in STATISTICS.items()}
"""Whose they are where none of a slide are frozen."""


def glass(height: int, width: int, white: tuple[float, float, float]) -> np.ndarray:
    levels = np.random.default_rng(0).normal(white, 1.0, (height, width, 3))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """Larger than every system's window, in both directions."""
    return make_phantom(520, 540, seed=5, scanner=Scanner(noise=1.0)).image


# ---- before training, and after ----------------------------------------------------------------------------------


def test_it_is_not_fitted_but_trained(name: str, reference: Phantom) -> None:
    with pytest.raises(FitError, match=f"restain train {name} .*--target FOLDER -o RUN") as caught:
        trained(name).fit(reference.image)
    for domain in SYSTEMS[name].domains:
        assert f"--{domain} FOLDER" in str(caught.value)


def test_what_is_not_trained_says_how_to_train_it(name: str, phantom: Phantom, tmp_path) -> None:
    system = make(name)
    appearance = system.estimate(phantom.image)
    for attempt in (
        lambda: system.transform(phantom.image),
        lambda: system.transform(phantom.image, appearance),
        lambda: system.pixel_map(appearance),
        lambda: system.glass_rule(appearance),
        lambda: system.save(tmp_path / "none.safetensors"),
    ):
        with pytest.raises(NotFittedError, match=f"restain train {name}"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_finishing_makes_it_a_normalizer(name: str) -> None:
    system = make(name)
    white = np.array(WHITE)
    assert system.finish(white, "glass", FACTS) is system
    assert isinstance(system.reference_, NetworkAppearance)
    np.testing.assert_array_equal(system.reference_.white_point, WHITE)
    assert system.reference_.white_origin == "glass"
    assert system.provenance_ == FACTS
    white[:] = 0
    np.testing.assert_array_equal(system.reference_.white_point, WHITE)
    bare = make(name, background="none").finish(WHITE, "glass", FACTS)
    np.testing.assert_array_equal(bare.reference_.white_point, [255, 255, 255])
    assert bare.reference_.white_origin == "assumed"


@pytest.mark.parametrize("white", [(1, 2), 240.0, (-1, 240, 240), (240, 240, 256), (240, np.nan, 240), [[240] * 3]])
def test_a_white_point_that_is_none(name: str, white) -> None:
    with pytest.raises(InputError, match=r"white point .*; wanted three levels in 0..255"):
        make(name).finish(white, "glass", FACTS)


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_settings_are_plain_and_rebuild_an_equal_system(name: str, background: str) -> None:
    system = make(name, background=background, learning_rate=0.003)
    settings = json.loads(json.dumps(system.settings()))
    assert settings == system.settings()
    assert settings == system.settings(brief=True)
    assert settings["config"]["learning_rate"] == 0.003
    torch.manual_seed(0)
    assert SYSTEMS[name](**settings) == system


def test_impossible_settings_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="background='mirror'"):
        SYSTEMS[name](background="mirror")
    with pytest.raises(InputError, match=f"the settings of {name}: there is no setting chanels; there are epochs"):
        SYSTEMS[name](config={"chanels": 3})
    with pytest.raises(InputError, match=f"got a config of list; wanted {SYSTEMS[name].config_type.__name__}"):
        SYSTEMS[name](config=[1])
    other = next(system for key, system in SYSTEMS.items() if key != name)
    with pytest.raises(InputError, match="got a config of"):
        SYSTEMS[name](config=other.config_type())


def test_equality_is_of_settings_target_and_weights(name: str) -> None:
    system = trained(name)
    assert system == trained(name)
    assert system != trained(name, seed=1)
    assert system != trained(name, background="keep")
    assert system != trained(name, batch_size=7)
    assert system != trained(name).finish((240, 240, 240), "glass", FACTS)
    assert system != make(name)
    changed = trained(name)
    with torch.no_grad():
        next(changed.generator.parameters()).view(-1)[0] += 1e-6
    assert system != changed
    for stranger in (3, None, "text", Macenko()):
        assert system != stranger
        assert not system == stranger  # noqa: SIM201  (the other operator)
    with pytest.raises(TypeError, match="unhashable"):
        hash(system)


def test_only_what_normalizes_is_made_when_nothing_is_to_be_trained(name: str) -> None:
    assert set(make(name, trainable=False).networks()) == {"generator"}
    for key, network in make(name).networks().items():
        assert getattr(make(name), key) is not None
        assert isinstance(network, torch.nn.Module)


def test_the_same_seed_the_same_first_weights(name: str) -> None:
    assert make(name, seed=4) == make(name, seed=4)
    assert make(name, seed=4) != make(name, seed=5)


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_is_loaded_makes_the_same_pixels(name: str, background: str, phantom: Phantom, tmp_path) -> None:
    system = trained(name, background=background)
    path = tmp_path / "system.safetensors"
    system.save(path)
    state = torch.get_rng_state()
    loaded = load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is SYSTEMS[name]
    assert loaded == system
    assert loaded.provenance_ == FACTS
    assert loaded.settings() == system.settings()
    assert not any(tensor.is_meta for tensor in (*loaded.generator.parameters(), *loaded.generator.buffers()))
    image = phantom.image[:70, :90]
    np.testing.assert_array_equal(loaded.transform(image), system.transform(image))
    loaded.save(path)
    assert load(path) == system


def test_a_trained_systems_file_holds_what_normalizes_alone(name: str, tmp_path) -> None:
    path = tmp_path / "system.safetensors"
    make(name).finish(WHITE, "glass", FACTS).save(path)
    weights = make(name).generator.state_dict().values()
    # Each has a name and a place in the header.
    assert path.stat().st_size < 4 * sum(weight.numel() for weight in weights) + 200 * len(weights) + 20_000


def test_pickles_and_copies_are_equal(name: str, phantom: Phantom) -> None:
    system = trained(name)
    image = phantom.image[:40, :40]
    for twin in (pickle.loads(pickle.dumps(system)), copy.deepcopy(system)):
        assert twin == system
        np.testing.assert_array_equal(twin.transform(image), system.transform(image))


# ---- estimates ---------------------------------------------------------------------------------------------------


def test_an_estimate_is_of_the_glass(name: str, phantom: Phantom) -> None:
    system = make(name)  # needs no training
    appearance = system.estimate(phantom.image)
    assert isinstance(appearance, NetworkAppearance)
    np.testing.assert_allclose(appearance.white_point, phantom.scanner.white, atol=1.5)
    assert appearance.white_origin == "glass"
    assert appearance.statistics == OWN[name]
    assert appearance.norm_statistics is None
    assert appearance == system.estimate(ColorHistogram.from_image(phantom.image))
    assert appearance == system.estimate(phantom.image, tiles=[])


def test_tiles_give_the_statistics_of_a_slide(name: str, phantom: Phantom) -> None:
    system = trained(name)
    tiles = [phantom.image[:64, :64], phantom.image[64:128, :64]]
    appearance = system.estimate(phantom.image, tiles=tiles)
    assert appearance.statistics == STATISTICS[name]
    assert (appearance.norm_statistics is None) == (STATISTICS[name] != "slide")
    assert appearance == system.estimate(phantom.image, tiles=np.stack(tiles))  # one array is as good
    plain = system.estimate(phantom.image)
    np.testing.assert_array_equal(appearance.white_point, plain.white_point)
    if STATISTICS[name] == "slide":
        assert appearance != plain
        assert appearance != system.estimate(phantom.image, tiles=tiles[:1])
        with pytest.raises(InputError, match=r"tiles of different sizes \(\[\(32, 64\), \(64, 64\)\]\)"):
            system.estimate(phantom.image, tiles=[tiles[0], tiles[1][:32]])


def test_estimates_leave_the_system_as_it_was(name: str, phantom: Phantom) -> None:
    """Its weights, its running statistics, and the mode it is in: a training may be going on."""
    system = make(name).finish(WHITE, "glass", FACTS)
    for network in system.networks().values():
        network.train()
    state = copy.deepcopy(system.generator.state_dict())
    rng = torch.get_rng_state()
    appearance = system.estimate(phantom.image, tiles=[phantom.image[:64, :64]])
    system.transform(phantom.image[:64, :64], appearance)
    system.transform(phantom.image[:64, :64])
    assert all(module.training for network in system.networks().values() for module in network.modules())
    assert all(torch.equal(value, state[key]) for key, value in system.generator.state_dict().items())
    assert all(weight.requires_grad for weight in system.generator.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_an_image_of_one_window_has_its_own_statistics_a_larger_one_frozen_ones(name: str, large: np.ndarray) -> None:
    system = trained(name)
    side = system.window
    assert system.estimate_image(large[:side, :side]).statistics == OWN[name]
    assert system.estimate_image(large[: side + 1, :side]).statistics == STATISTICS[name]
    assert system.estimate_image(large).statistics == STATISTICS[name]
    np.testing.assert_array_equal(system.transform(large), system.transform(large, system.estimate_image(large)))


def test_large_glass_has_no_statistics(name: str) -> None:
    """Norms amplify the noise of blank tiles; there is nothing to freeze."""
    system = trained(name)
    blank = glass(300, system.window + 8, (243, 243, 243))
    assert system.estimate_image(blank).statistics == OWN[name]


def test_an_appearance_of_another_kind_is_refused(name: str, phantom: Phantom) -> None:
    system, white = trained(name), np.full(3, 240.0)
    for other in (Appearance(white, "glass", 1.0), white, "appearance"):
        with pytest.raises(InputError, match="wanted the NetworkAppearance"):
            system.transform(phantom.image, other)
    assumed = trained(name, background="none").estimate(phantom.image)
    with pytest.raises(InputError, match="other settings"):
        system.transform(phantom.image, assumed)


def test_norm_statistics_of_another_network_are_refused(name: str) -> None:
    appearance = NetworkAppearance(np.full(3, 240.0), "glass", 1.0, statistics="slide", norm_statistics=np.ones((2, 5)))
    if STATISTICS[name] == "training":  # its own go before any
        np.testing.assert_array_equal(
            trained(name).transform(noise(16, 16), appearance),
            trained(name).transform(noise(16, 16), replace(appearance, norm_statistics=None)),
        )
        return
    with pytest.raises(InputError, match=r"norm statistics of shape \(2, 5\)"):
        trained(name).transform(noise(16, 16), appearance)


# ---- no map of colours -------------------------------------------------------------------------------------------


def test_there_is_no_map_of_colours(name: str, phantom: Phantom) -> None:
    system = trained(name)
    appearance = system.estimate(phantom.image)
    assert system.neighbourhood
    for attempt in (
        lambda: system.color_map(appearance),
        lambda: system.map_colors(np.zeros((1, 3)), appearance),
    ):
        with pytest.raises(InputError, match=f"{name} looks at the pixels around each pixel.*distill"):
            attempt()


def test_there_is_a_map_of_windows(name: str, phantom: Phantom) -> None:
    system = trained(name)
    windows = system.pixel_map(system.estimate(phantom.image), lazy=True, workers=1)
    assert isinstance(windows, WindowMap)
    assert windows.side % system.multiple == 0
    assert windows.overlap >= 64  # PAPERS §9
    assert windows.batch >= 1
    image = noise(windows.side, windows.side)
    out = windows(np.stack([image, image[::-1]]))
    assert out.dtype == np.float32
    assert out.shape == (2, windows.side, windows.side, 3)
    alone = windows(image[None])
    np.testing.assert_allclose(out[0], alone[0], atol=1e-2)


# ---- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 7), (3, 500), (500, 3), (17, 33), (64, 64)])
def test_images_of_any_size(name: str, shape: tuple[int, int], background: str) -> None:
    image = noise(*shape)
    result = trained(name, background=background).transform(image)
    assert result.shape == image.shape
    assert result.dtype == np.uint8


def test_a_picture_comes_out(name: str, phantom: Phantom) -> None:
    result = trained(name).transform(phantom.image)
    assert len(np.unique(result.reshape(-1, 3), axis=0)) > 300
    assert (result != phantom.image).mean() > 0.5


def test_same_input_same_bytes_and_nothing_is_changed(name: str, phantom: Phantom, large: np.ndarray) -> None:
    for source in (phantom.image, large):
        image = source.copy()
        image.setflags(write=False)
        system = trained(name)
        appearance = system.estimate_image(image)
        once = system.transform(image, appearance)
        np.testing.assert_array_equal(trained(name).transform(image), once)
        np.testing.assert_array_equal(image, source)
        assert not np.shares_memory(once, image)


def test_threads_do_not_disturb_each_other(name: str, phantom: Phantom) -> None:
    system = trained(name)
    images = [phantom.image[y : y + 48, :64] for y in range(0, 144, 16)]
    wanted = [system.transform(image) for image in images]
    with ThreadPoolExecutor(3) as pool:
        for result, expected in zip(pool.map(system.transform, images), wanted, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_a_gray_image_is_one_of_three_channels(name: str, phantom: Phantom) -> None:
    system, gray = trained(name), phantom.image[:60, :60, 1]
    for image in (gray, gray[..., None], gray > 128):
        np.testing.assert_array_equal(system.transform(image), system.transform(as_rgb8(image)))


def test_padding_stays_padding(name: str, phantom: Phantom) -> None:
    image = phantom.image[:80, :80].copy()
    seen = np.ones((80, 80), bool)
    seen[:30] = False
    image[~seen] = (90, 20, 200)  # what lies under transparency must not matter
    alpha = np.where(seen, 255, 0).astype(np.uint8)
    system = trained(name)
    result = system.transform(np.dstack([image, alpha]))
    assert result.shape == (80, 80, 3)
    assert (result[:30] == 255).all()
    image[~seen] = (10, 240, 10)
    np.testing.assert_array_equal(system.transform(np.dstack([image, alpha])), result)
    assert (result[30:] != 255).any()


@pytest.mark.parametrize("what", [None, np.zeros((4, 4, 2), np.uint8), np.full((4, 4, 3), np.nan), np.zeros((0, 4, 3))])
def test_what_is_no_image_is_refused(name: str, what) -> None:
    with pytest.raises(InputError):
        trained(name).transform(what)


def test_weights_that_overflow_are_told(name: str) -> None:
    """They are finite, so the file was believed; the picture would be black."""
    system = trained(name)
    with torch.no_grad():
        for weight in system.generator.parameters():
            weight.fill_(3e38)
        for weight in list(system.generator.parameters())[::2]:
            weight.view(-1)[::2] = -3e38
    for image in (noise(16, 16), noise(530, 64)):
        with pytest.raises(InputError, match=r"no numbers; its weights are damaged|norm statistics are damaged"):
            system.transform(image)


# ---- glass (promise 3) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [(243, 243, 243), (255, 255, 255), (232, 236, 240), (236, 231, 228)])
@pytest.mark.parametrize("background", ["match", "keep", "white"])
def test_glass_goes_where_it_belongs(name: str, background: str, white: tuple[float, float, float]) -> None:
    system = trained(name, background=background)
    goal = {"match": WHITE, "keep": white, "white": (255, 255, 255)}[background]
    for image in (glass(64, 64, white), glass(70, system.window + 9, white)):
        result = system.transform(image)
        np.testing.assert_allclose(result.mean(axis=(0, 1)), np.minimum(goal, 255), atol=1.5)
        offsets = image.astype(float) - image.mean(axis=(0, 1)) + np.array(goal)  # the noise stays noise
        assert np.abs(result - np.clip(offsets, 0, 255)).max() <= 2


def test_glass_beside_tissue(name: str, phantom: Phantom) -> None:
    """Whatever the network makes of it: no glass is tinted, and no more than the glass."""
    result = trained(name).transform(phantom.image)
    density = -np.log((phantom.image + 1.0) / (np.array(phantom.scanner.white) + 1)).min(axis=-1)
    np.testing.assert_allclose(
        result[density < 0.025], np.broadcast_to(WHITE, (int((density < 0.025).sum()), 3)), atol=8
    )
    np.testing.assert_allclose(np.median(result[density < 0.025], axis=0), WHITE, atol=1.5)


def test_tissue_is_the_networks_scaled_from_one_glass_to_another(name: str, phantom: Phantom) -> None:
    """Beyond the fade, "match" leaves what the network made, "white" and "keep" scale it by their glass."""
    dark = phantom.image.min(axis=-1) < 150  # no glass in them
    assert dark.mean() > 0.05
    made = trained(name, background="match").transform(phantom.image)[dark].astype(float)
    bare = trained(name, background="none").transform(phantom.image)[dark].astype(float)
    np.testing.assert_allclose(made, np.minimum(bare, WHITE), atol=0.6)
    white = trained(name, background="white").transform(phantom.image)[dark].astype(float)
    np.testing.assert_allclose(white, np.minimum((bare + 1) * 256 / (np.array(WHITE) + 1) - 1, 255), atol=1.2)


def test_none_is_the_bare_network(name: str) -> None:
    """Each image in a batch of its own, in the training's own mode, dropout aside; glass, too. CHEN's and NST's is that
    of evaluation."""
    system, image = trained(name, background="none"), noise(256, 256)
    image[:100] = glass(100, 256, (243, 243, 243))
    network = copy.deepcopy(system.generator).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    colors = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    gray = (colors * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    if name == "stst":
        colors = gray.repeat(1, 3, 1, 1)
    if name == "dstgan":
        colors = gray
    if name == "chen":
        red = torch.from_numpy(image[..., 0] > image[..., 1:].max(axis=-1))
        colors = torch.cat([gray, red[None, None].float()], dim=1)
        network.eval()  # statistics of training
    if name == "nst":  # works in 0..1, and is given 16 pixels more on each side
        bare = network.eval()
        colors = torch.from_numpy(np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="reflect")).permute(2, 0, 1)[None]
        network = lambda padded: 2 * bare(padded.float() / 255)[..., 16:-16, 16:-16] - 1  # noqa: E731
    with torch.no_grad():
        wanted = ((network(colors)[0].permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
    assert np.abs(system.transform(image) - wanted).max() <= 0.51


# ---- larger than a window ----------------------------------------------------------------------------------------


def test_windows_make_a_large_picture(name: str, large: np.ndarray) -> None:
    system = trained(name)
    appearance = system.estimate_image(large)
    result = system.transform(large, appearance)
    np.testing.assert_array_equal(result, apply_windows(large, system.pixel_map(appearance)))


# ---- updates -----------------------------------------------------------------------------------------------------


def test_updates_are_determined_by_seed_and_batch(name: str) -> None:
    systems = []
    for _ in range(2):
        system = make(name)
        system.optimizers = system.make_optimizers()
        torch.manual_seed(3)
        losses = system.update(batch(system, dtype=torch.float32), PlainEngine())
        assert losses
        assert all(loss.shape == () and torch.isfinite(loss) and not loss.requires_grad for loss in losses.values())
        systems.append(system)
    assert systems[0] == systems[1]
    assert systems[0] != make(name)


def test_optimizers_hold_every_weight_once(name: str) -> None:
    system = make(name)
    held = [id(w) for o in system.make_optimizers().values() for group in o.param_groups for w in group["params"]]
    weights = [id(weight) for network in system.networks().values() for weight in network.parameters()]
    assert sorted(held) == sorted(weights)
    rates = {group["lr"] for o in system.make_optimizers().values() for group in o.param_groups}
    rate = system.config.learning_rate
    assert rates == {rate, getattr(system.config, "discriminator_learning_rate", rate)}
