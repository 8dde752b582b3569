"""Suites: every paper's set computes what it names, and says what it leaves out."""

import math
import subprocess
import sys

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restain.errors import InputError
from restain.evaluation.metrics import METRICS, SUITES, Entry, SuiteResult, run_cohort, run_suite, summarise

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def target(pair: Pair) -> np.ndarray:
    return np.clip(pair[0] + np.array([6, -10, 3]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", SUITES)
def test_every_line_has_a_metric_and_a_reference(name: str) -> None:
    for label, entry in SUITES[name].items():
        metric = METRICS[entry.metric]
        assert entry.of is metric
        if metric.takes == "pair":
            assert entry.against in metric.against, label
        elif metric.takes == "cohorts":
            assert entry.against == "target"
        else:
            assert entry.against == "none"


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_gives_a_number_or_a_reason_for_every_line(name: str, pair: Pair, target: np.ndarray) -> None:
    source, output = pair
    result = run_suite(name, output, source=source, target=target, tile=64)
    per_image = [label for label, entry in SUITES[name].items() if entry.of.takes in ("pair", "image")]
    assert list(result.values) == [label for label in per_image if label in result.values]  # in order
    assert sorted([*result.values, *result.skipped]) == sorted(per_image)
    assert set(result.skipped) <= {"lpips_target"}
    assert all(type(value) is float for value in result.values.values())
    for label, value in result.values.items():
        entry = SUITES[name][label]
        options = dict(entry.options) | ({"tile": 64} if entry.metric == "seam_score" else {})
        images = {"source": (source, output), "target": (target, output), "none": (output,)}[entry.against]
        assert value == entry.of.function(*images, **options), label


def test_stainnet_as_its_script(pair: Pair, target: np.ndarray) -> None:
    options = {"gaussian_weights": True, "sigma": 1.5, "win_size": 11, "data_range": 255}
    values = run_suite("stainnet", pair[1], source=pair[0], target=target).values
    assert values["ssim_target"] == pytest.approx(structural_similarity(target, pair[1], channel_axis=2, **options))
    assert values["psnr_target"] == pytest.approx(peak_signal_noise_ratio(target, pair[1], data_range=255))
    assert values["ssim_source"] > 0.9


def test_dstgan_of_the_identity_is_perfect(pair: Pair) -> None:
    values = run_suite("dstgan", pair[0], source=pair[0]).values
    assert values == {"ssim_source": pytest.approx(1), "pcc_source": pytest.approx(1), "psnr_source": math.inf}


def test_stst_has_both_the_legacy_and_the_right_numbers(pair: Pair) -> None:
    values = run_suite("stst", pair[1], target=pair[0]).values
    assert 1400 < values["ergas_sewar"] / values["ergas"] < 2100
    assert 50 < values["rase_sewar"] / values["rase"] < 78
    assert values["uqi_sewar"] > values["uqi"] + 0.05
    assert values["stst_distance_eosin"] > 1
    assert {"ssim_volume", "ssim", "ms_ssim_stst", "ms_ssim"} <= set(values)


def test_what_is_not_given_is_told(pair: Pair) -> None:
    result = run_suite("toolkit", pair[1])
    assert list(result.values) == ["nmi"]
    assert result.skipped["ssim_source"] == "no source was given"
    assert result.skipped["lpips_target"] == "no target was given"
    assert "tiles" in result.skipped["seam_score"]


def test_missing_weights_are_told(pair: Pair, tmp_path) -> None:
    pytest.importorskip("torch")
    options = {"lpips_target": {"weights": tmp_path / "none.pth"}}
    result = run_suite("toolkit", pair[1], target=pair[0], options=options)
    assert "there is no file" in result.skipped["lpips_target"]


def test_damaged_weights_cost_their_own_line_only(pair: Pair, tmp_path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "damaged.pth").write_text("these are words")
    options = {"lpips_target": {"weights": tmp_path / "damaged.pth"}}
    result = run_suite("toolkit", pair[1], source=pair[0], target=pair[0], options=options)
    assert "no weights file" in result.skipped["lpips_target"]
    assert {"ssim_source", "gradient_correlation", "nmi"} <= set(result.values)
    fid = run_cohort("toolkit", list(pair), targets=list(pair), options={"fid_target": options["lpips_target"]})
    assert "no weights file" in fid.skipped["fid_target"]


def test_small_images_lose_only_what_needs_large_ones(pair: Pair) -> None:
    result = run_suite("stst", pair[1][:64, :64], target=pair[0][:64, :64])
    assert set(result.skipped) == {"ms_ssim_stst", "ms_ssim"}
    assert "176 pixels" in result.skipped["ms_ssim"]


def test_the_mask_is_for_the_target(pair: Pair, target: np.ndarray) -> None:
    mask = np.zeros(pair[0].shape[:2], bool)
    mask[20:180, 30:200] = True
    masked = run_suite("stainnet", pair[1], source=pair[0], target=target, mask=mask).values
    plain = run_suite("stainnet", pair[1], source=pair[0], target=target).values
    assert masked["ssim_source"] == plain["ssim_source"]
    assert masked["ssim_target"] == METRICS["ssim"].function(target, pair[1], mask) != plain["ssim_target"]
    result = run_suite("stst", pair[1], target=target, mask=mask)
    assert "crop" in result.skipped["ergas_sewar"]


def test_options_reach_their_metric(pair: Pair) -> None:
    options = {"background_shift": {"white": (255, 255, 255)}}
    values = run_suite("toolkit", pair[1], source=pair[0], options=options).values
    assert values["background_shift"] > run_suite("toolkit", pair[1], source=pair[0]).values["background_shift"]


def test_a_suite_of_ones_own(pair: Pair) -> None:
    lines = {"hue": Entry("hellinger", "target", {"bins": 16}), "variation": Entry("nmi_cv", "none")}
    assert list(run_suite(lines, pair[1], target=pair[0]).values) == ["hue"]
    assert list(run_cohort(lines, pair).values) == ["variation"]
    with pytest.raises(InputError, match="no metric of images"):
        run_suite({"score": Entry("auc", "none")}, pair[1])


@pytest.mark.parametrize(
    "arguments",
    [
        {"suite": "paper"},
        {"options": {"nothing": {}}},
        {"source": np.zeros((3, 3, 3), np.uint8)},
        {"target": np.zeros((200, 232, 3))},
        {"mask": np.ones((2, 2), bool)},
        {"output": np.zeros((20, 20), np.uint8)},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_wrong_arguments_are_refused(pair: Pair, arguments: dict) -> None:
    with pytest.raises(InputError):
        run_suite(**({"suite": "toolkit", "output": pair[1], "source": pair[0]} | arguments))


# ---- cohorts, averages ------------------------------------------------------------------------------------------


def test_cohort(pair: Pair, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    torch.hub.set_dir(tmp_path)
    result = run_cohort("toolkit", list(pair), targets=list(pair))
    assert set(result.values) == {"nmi_cv"}
    assert "pt_inception" in result.skipped["fid_target"]
    assert run_cohort("toolkit", list(pair)).skipped["fid_target"] == "no targets were given"
    values = [METRICS["nmi"].function(image) for image in pair]
    given = run_cohort("toolkit", [], options={"nmi_cv": {"images": values}})
    assert given.values["nmi_cv"] == result.values["nmi_cv"]


def test_summary() -> None:
    results = [
        SuiteResult({"a": 1.0, "b": math.nan}, {}),
        SuiteResult({"a": 3.0, "b": 5.0}, {}),
        SuiteResult({"a": math.inf}, {"b": "too small"}),
    ]
    table = summarise(results)
    assert (table["a"].mean, table["a"].sd, table["a"].count, table["a"].missing) == (2, math.sqrt(2), 2, 1)
    assert (table["b"].mean, table["b"].count, table["b"].missing) == (5, 1, 2)
    assert math.isnan(table["b"].sd)
    assert summarise([]) == {}


def test_rmse_is_averaged_and_not_rooted(pair: Pair) -> None:
    near = np.clip(pair[0].astype(int) + 2, 0, 255).astype(np.uint8)
    results = [run_suite("stst", output, target=pair[0]) for output in (near, pair[1])]
    table = summarise(results)
    assert table["rmse"].mean == pytest.approx(np.mean([result.values["rmse"] for result in results]))
    assert table["rmse"].mean < math.sqrt(table["mse"].mean)


# ---- imports ----------------------------------------------------------------------------------------------------


def test_metrics_of_arrays_import_nothing_heavy() -> None:
    code = (
        "import sys, numpy as np\n"
        "from restain.evaluation.metrics import run_suite\n"
        "image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)\n"
        "run_suite('stst', image, target=image); run_suite('stainnet', image, source=image, target=image)\n"
        "print(*sorted({'torch', 'torchmetrics', 'skimage', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
