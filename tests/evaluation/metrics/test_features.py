"""LPIPS and its kin, FID: never without weights; right with weights that are made up."""

from pathlib import Path

import numpy as np
import pytest

from restain.errors import FormatError, InputError, MetricWarning, WeightsUnavailable
from restain.evaluation.metrics import fid as fids
from restain.evaluation.metrics.fid import FeatureStatistics, fid, frechet_distance
from restain.evaluation.metrics.perceptual import lpips, random_feature_distance, squeeze_feature_distance

torch = pytest.importorskip("torch")

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path):
    """An empty cache of weights, whatever this machine has."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of random weights: good enough to compare two computations, and for nothing else."""
    from restain.networks.backbones.alexnet import AlexNet
    from restain.networks.backbones.squeezenet import SqueezeNet
    from restain.networks.backbones.vgg import VGG
    from restain.networks.perceptual import randomised

    folder = tmp_path_factory.mktemp("weights")
    networks = {"alex": AlexNet(0), "vgg": VGG(16, 0), "squeeze": SqueezeNet("1.1", 0)}
    networks["squeeze1_0"] = SqueezeNet("1.0", 0)
    for name, network in networks.items():
        torch.save(randomised(network).state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in networks}


# ---- never on random weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "file"),
    [(lpips, "alexnet-owt-7be5be79.pth"), (squeeze_feature_distance, "squeezenet1_0-b66bff10.pth")],
)
def test_without_weights_there_is_no_number(pair: Pair, metric, file: str, cache: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        metric(*pair)
    for part in (file, "weights=", str(cache), "random"):
        assert part in str(caught.value)


def test_fid_without_weights(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="pt_inception-2015-12-05"):
        fid([pair[0]] * 2, [pair[1]] * 2)
    with pytest.raises(WeightsUnavailable, match="no file"):
        fid([pair[0]] * 2, [pair[1]] * 2, weights=tmp_path / "inception.pth")


def test_lpips_without_heads(pair: Pair, made_up: dict[str, Path], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"heads=.*restain\[evaluation\]"):
        lpips(*pair, network="vgg", weights=made_up["vgg"])
    with pytest.raises(WeightsUnavailable, match="no file"):
        lpips(*pair, weights=made_up["alex"], heads=tmp_path / "alex.pth")


def test_weights_of_another_network_are_refused(pair: Pair, made_up: dict[str, Path]) -> None:
    with pytest.raises(FormatError, match="AlexNet"):
        lpips(*pair, weights=made_up["vgg"])
    with pytest.raises(FormatError, match="SqueezeNet"):
        squeeze_feature_distance(*pair, weights=made_up["squeeze"])


def test_without_torch_the_install_line_is_given(pair: Pair, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    for call in (lambda: lpips(*pair), lambda: random_feature_distance(*pair), lambda: fid([pair[0]], [pair[1]])):
        with pytest.raises(ImportError, match=r"pip install 'restain\[evaluation\]'"):
            call()


# ---- LPIPS ------------------------------------------------------------------------------------------------------

NETWORKS = {
    "alex": ((1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": ((3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "squeeze": ((1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_lpips_by_formula(pair: Pair, made_up: dict[str, Path], tmp_path: Path, name: str) -> None:
    from restain.networks.backbones.alexnet import AlexNet
    from restain.networks.backbones.squeezenet import SqueezeNet
    from restain.networks.backbones.vgg import VGG

    taps, channels = NETWORKS[name]
    heads = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(channels)}
    torch.save(heads, tmp_path / "heads.pth")
    network = {"alex": lambda: AlexNet(0), "vgg": lambda: VGG(16, 0), "squeeze": lambda: SqueezeNet("1.1", 0)}[name]()
    network.load_state_dict(torch.load(made_up[name], weights_only=True))
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    images = [image[:96, :80] for image in pair]
    maps = [(torch.from_numpy(i).permute(2, 0, 1)[None].float() / 127.5 - 1 - shift) / scale for i in images]
    expected = 0.0
    with torch.inference_mode():
        for index, module in enumerate(network.features):
            maps = [module(each) for each in maps]
            if index in taps:
                a, b = (each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in maps)
                weighted = (a - b) ** 2 * heads[f"lin{taps.index(index)}.model.1.weight"]
                expected += float(weighted.sum(1).mean())
    result = lpips(*images, network=name, weights=made_up[name], heads=tmp_path / "heads.pth")
    assert result == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_heads_come_with_torchmetrics(pair: Pair, made_up: dict[str, Path], name: str) -> None:
    pytest.importorskip("torchmetrics")
    first, second = (image[:80, :96] for image in pair)
    assert lpips(first, first, network=name, weights=made_up[name]) == 0
    assert lpips(first, second, network=name, weights=made_up[name]) > 0


def test_the_heads_among_the_data_are_torchmetrics(pair: Pair, made_up: dict[str, Path], data: Path) -> None:
    pytest.importorskip("torchmetrics")
    heads = data / "weights" / "lpips_v0.1_lin" / "alex.pth"
    if not heads.exists():
        pytest.skip("no LPIPS heads among the data")
    assert lpips(*pair, weights=made_up["alex"], heads=heads) == lpips(*pair, weights=made_up["alex"])


@pytest.mark.parametrize("metric", [lpips, squeeze_feature_distance, random_feature_distance])
def test_wrong_input_is_refused_before_weights_are_looked_for(pair: Pair, metric) -> None:
    for images in ((pair[0], pair[1][1:]), (pair[0] / 255, pair[1] / 255), (pair[0][:63], pair[1][:63])):
        with pytest.raises(InputError, match="wanted"):
            metric(*images)


def test_an_unknown_network_is_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="alex, vgg, squeeze"):
        lpips(*pair, network="resnet")


# ---- by other names ---------------------------------------------------------------------------------------------


def test_random_features_are_reproducible(pair: Pair) -> None:
    first = random_feature_distance(*pair)
    assert 0 < first < 2
    assert random_feature_distance(*pair) == first
    assert random_feature_distance(*pair, seed=1) != first
    mask = np.ones(pair[0].shape[:2], bool)
    assert random_feature_distance(*pair, mask) == pytest.approx(first)


def test_squeeze_with_torchvisions_weights(pair: Pair, made_up: dict[str, Path]) -> None:
    distance = squeeze_feature_distance(*pair, weights=made_up["squeeze1_0"])
    assert 0 < distance < 2
    assert squeeze_feature_distance(pair[0], pair[0], weights=made_up["squeeze1_0"]) == 0


def test_squeeze_on_real_tissue(data: Path) -> None:
    """The same tissue on two scanners is nearer than other tissue on one, though not a pixel is the same."""
    from PIL import Image

    weights = data / "weights" / "squeezenet_v1.0" / "squeezenet_v1.0_decoded.npz"
    folder = data / "mitos_pairs"
    if not weights.exists() or not (folder / "aperio" / "030_1.png").exists():
        pytest.skip("no weights or no tiles among the data")
    here, there = (
        np.asarray(Image.open(folder / scanner / "030_1.png").convert("RGB")) for scanner in ("aperio", "hamamatsu")
    )
    other = np.asarray(Image.open(folder / "aperio" / "030_2.png").convert("RGB"))
    same = squeeze_feature_distance(here, there, weights=weights)
    assert 0 < same < squeeze_feature_distance(here, other, weights=weights)


# ---- FID --------------------------------------------------------------------------------------------------------


class Moments(torch.nn.Module):
    """Seven features of an image that a person can check: means, and means of squares, of R, G, B, and of R·G."""

    num_features = 7

    def forward(self, images):
        means, squares = images.mean(dim=(2, 3)), (images**2).mean(dim=(2, 3))
        return torch.cat([means, squares, (images[:, 0] * images[:, 1]).mean(dim=(1, 2))[:, None]], 1)


@pytest.fixture(scope="module")
def cohorts() -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(0)
    first = [generator.integers(0, generator.integers(100, 256), (32, 32, 3), dtype=np.uint8) for _ in range(20)]
    second = [generator.integers(40, generator.integers(120, 256), (32, 32, 3), dtype=np.uint8) for _ in range(20)]
    return first, second


def test_of_gaussians_in_closed_form() -> None:
    """With diagonal covariances: Σ (μ₁ − μ₂)² + Σ (σ₁ − σ₂)²."""
    one = FeatureStatistics.of([[1, 0], [-1, 0], [0, 2], [0, -2]])
    two = FeatureStatistics.of([[4, 0], [2, 0], [3, 1], [3, -1]])
    np.testing.assert_allclose(one.covariance, np.diag([2 / 3, 8 / 3]))
    deviations = (np.sqrt(8 / 3) - np.sqrt(2 / 3)) ** 2
    assert frechet_distance(one, two) == pytest.approx(9 + deviations)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_as_scipys_matrix_root() -> None:
    from scipy.linalg import sqrtm

    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(50, 6)), generator.normal(size=(40, 6)) @ generator.normal(size=(6, 6)) + 1
    covariances = [np.cov(values, rowvar=False) for values in (a, b)]
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1])
    expected -= 2 * np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b)) == pytest.approx(expected)


def test_as_torchmetrics(cohorts) -> None:
    image = pytest.importorskip("torchmetrics.image.fid")
    metric = image.FrechetInceptionDistance(feature=Moments(), normalize=True, input_img_size=(3, 32, 32))
    metric.set_dtype(torch.float64)
    for cohort, real in zip(cohorts, (True, False), strict=True):
        stack = torch.from_numpy(np.stack(cohort)).permute(0, 3, 1, 2).double() / 255
        metric.inception = Moments()
        metric.normalize = False
        metric.update(stack, real=real)
    assert fid(*cohorts, network=Moments()) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_batches_parts_and_streams_do_not_matter(cohorts) -> None:
    once = fid(*cohorts, network=Moments())
    assert fid(iter(cohorts[0]), iter(cohorts[1]), network=Moments(), batch=3) == pytest.approx(once, rel=1e-6)
    extract = fids.feature_extractor(Moments())
    parts = [fids.gather_statistics(part, extract) for part in (cohorts[0][:5], cohorts[0][5:])]
    whole = fids.gather_statistics(cohorts[1], extract)
    assert frechet_distance(parts[0] + parts[1], whole) == pytest.approx(once, rel=1e-6)
    shuffled = [cohorts[0][n] for n in np.random.default_rng(0).permutation(20)]
    assert fid(shuffled, cohorts[1], network=Moments()) == pytest.approx(once, rel=1e-6)


def test_images_of_different_sizes(cohorts) -> None:
    mixed = [image[: 20 + n % 3] for n, image in enumerate(cohorts[0])]
    assert fid(mixed, cohorts[1], network=Moments()) > 0


def test_equal_cohorts(cohorts) -> None:
    assert fid(cohorts[0], cohorts[0], network=Moments()) == pytest.approx(0, abs=1e-6)
    assert fid(*cohorts, network=Moments()) == pytest.approx(fid(*reversed(cohorts), network=Moments()), rel=1e-6)


def test_few_images_are_warned_of(cohorts) -> None:
    with pytest.warns(MetricWarning, match="5 and 20 images for 7 features"):
        fid(cohorts[0][:5], cohorts[1], network=Moments())


def test_named_networks(pair: Pair, made_up: dict[str, Path]) -> None:
    images = [np.roll(pair[0][:80, :80], 7 * n, axis=0) for n in range(3)], [pair[1][:80, :80]] * 3
    with pytest.warns(MetricWarning):
        assert fid(*images, network="alexnet", weights=made_up["alex"]) > 0
    with pytest.raises(InputError, match="fid_inception"):
        fid(*images, network="inception")


@pytest.mark.parametrize("wrong", [[], [np.zeros((8, 8, 3))], [np.zeros((8, 8), np.uint8)] * 2])
def test_what_is_no_cohort_is_refused(cohorts, wrong) -> None:
    with pytest.raises(InputError, match="wanted"):
        fid(wrong, cohorts[0], network=Moments())


def test_one_image_is_no_cohort(cohorts) -> None:
    with pytest.raises(InputError, match="two or more"):
        fid(cohorts[0][:1], cohorts[1], network=Moments())


def test_inception_from_a_file(cohorts, tmp_path: Path) -> None:
    """The whole way, with made-up weights under pytorch-fid's names, and its classifier, which is not used."""
    from restain.networks.backbones.inception import FIDInception

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(FIDInception().state_dict(), tmp_path / "inception.pth")
    extract = fids.feature_extractor(weights=tmp_path / "inception.pth")
    features = extract(cohorts[0][:2])
    assert features.shape == (2, 2048)
    assert features.dtype == np.float64
    again = fids.feature_extractor(weights=tmp_path / "inception.pth")([cohorts[0][1]])
    np.testing.assert_allclose(again[0], features[1], rtol=1e-3, atol=1e-4)
