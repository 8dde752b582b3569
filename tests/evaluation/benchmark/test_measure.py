"""Every contender on every sample: the right numbers in the right rows, and nothing lost to one bad image."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import restain
from restain.errors import InputError
from restain.evaluation.benchmark import RAW, Evaluation, Sample, evaluate, make_contenders, open_samples
from restain.evaluation.benchmark.measure import COHORT
from restain.evaluation.benchmark.rectangle import largest_rectangle
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.metrics import SUITES
from restain.evaluation.metrics.stst import ssim_volume


def value(evaluation: Evaluation, method: str, image: str, metric: str, suite: str = "stainnet") -> float:
    (row,) = (
        row
        for row in evaluation.rows
        if (row.method, row.image, row.metric, row.suite) == (method, image, metric, suite)
    )
    return row.value


def test_numbers_are_those_of_another_library(evaluation: Evaluation, pairs: list[Pair]) -> None:
    """Each step by itself: read, register, normalize, and compare with scikit-image."""
    sample = evaluation.samples[1]
    pixels = sample.read()
    macenko = restain.Macenko().fit([pair.target for pair in pairs])
    output = macenko.transform(np.array(Image.open(sample.source)))
    _, full = structural_similarity(
        pixels.target,
        output,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        win_size=11,
        data_range=255,
        full=True,
    )
    # Ours leaves out windows that reach over the mask's edge; the average differs by that little.
    assert value(evaluation, "macenko", sample.name, "ssim_target") == pytest.approx(full[pixels.mask].mean(), abs=0.02)
    where = pixels.mask
    expected = peak_signal_noise_ratio(pixels.target[where], output[where], data_range=255)
    assert value(evaluation, "macenko", sample.name, "psnr_target") == pytest.approx(expected, abs=1e-9)


def test_the_raw_images_are_themselves(evaluation: Evaluation) -> None:
    for sample in evaluation.samples:
        assert value(evaluation, RAW, sample.name, "ssim_source") == pytest.approx(1)
        assert value(evaluation, RAW, sample.name, "psnr_source", "dstgan") == math.inf
        assert value(evaluation, RAW, sample.name, "background_shift", "toolkit") == 0


def test_methods_come_nearer_to_the_target(samples: list[Sample], evaluation: Evaluation) -> None:
    """Small tiles by themselves mislead an estimate; together they are enough tissue."""
    together = evaluate(samples, evaluation.contenders, ("stainnet",), estimate="folder")
    for sample in samples:
        raw = value(together, RAW, sample.name, "psnr_target")
        for method in ("macenko", "reinhard"):
            assert value(together, method, sample.name, "psnr_target") > raw + 1


def test_glass_that_was_to_move_has_not_shifted(evaluation: Evaluation) -> None:
    """It went to the reference's white point, so it lies where it was wanted."""
    for sample in evaluation.samples:
        assert value(evaluation, "macenko", sample.name, "background_shift", "toolkit") < 1.5


def test_metrics_without_a_mask_see_what_is_registered(samples: list[Sample]) -> None:
    """Cut to a rectangle wholly inside the mask; the order of the suite is kept."""
    evaluation = evaluate(samples[:1], make_contenders(["reinhard"], samples[0].target), ("stst",))
    pixels = samples[0].read()
    rows = [row for row in evaluation.rows if row.method == RAW]
    labels = [row.metric for row in rows]
    assert labels == [label for label in SUITES["stst"] if label in labels]
    assert ("stst", "ms_ssim_stst") in evaluation.skipped  # these pictures are too small for it
    where = largest_rectangle(pixels.mask)
    assert pixels.mask[where].all()
    assert pixels.mask[where].size > 0.9 * pixels.mask.sum()
    expected = ssim_volume(pixels.target[where], pixels.source[where])
    assert value(evaluation, RAW, samples[0].name, "ssim_volume", "stst") == pytest.approx(expected)


def test_white_glass_is_wanted_white(samples: list[Sample]) -> None:
    evaluation = evaluate(samples[:1], make_contenders(["reinhard"], "he", "white"), ("toolkit",))
    assert value(evaluation, "reinhard", samples[0].name, "background_shift", "toolkit") < 1.5


def test_one_unreadable_image_costs_no_common_estimate(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    mixed = [Sample("bad", tmp_path / "bad.png"), *samples]
    evaluation = evaluate(mixed, make_contenders(["reinhard"]), ("stainnet",), estimate="folder")
    assert [name for name, _ in evaluation.failures] == ["bad"]


def test_rows_are_complete_and_in_order(evaluation: Evaluation) -> None:
    images = [sample.name for sample in evaluation.samples]
    per_image = [row for row in evaluation.rows if row.image != COHORT]
    assert [row.image for row in per_image] == sorted((row.image for row in per_image), key=images.index)
    keys = [(row.method, row.image, row.suite, row.metric) for row in evaluation.rows]
    assert len(set(keys)) == len(keys)
    assert {row.against for row in evaluation.rows} == {"source", "target", "none"}
    cohort = {(row.method, row.metric) for row in evaluation.rows if row.image == COHORT}
    assert cohort == {(method, "nmi_cv") for method in (RAW, "macenko", "reinhard")}


def test_what_was_skipped_says_why(evaluation: Evaluation) -> None:
    assert "weights" in evaluation.skipped["toolkit", "lpips_target"]
    assert "weights" in evaluation.skipped["toolkit", "fid_target"]
    assert "tiles" in evaluation.skipped["toolkit", "seam_score"]


def test_the_number_of_workers_changes_nothing(evaluation: Evaluation) -> None:
    one = evaluate(evaluation.samples, evaluation.contenders, evaluation.suites, workers=1)
    assert [row for row in one.rows if row.value == row.value] == [r for r in evaluation.rows if r.value == r.value]


def test_tiles_of_one_slide_are_measured_together(samples: list[Sample], evaluation: Evaluation) -> None:
    together = evaluate(samples, evaluation.contenders, ("stainnet",), estimate="folder")
    macenko = evaluation.contenders[1].normalizer
    sources = [sample.read().source for sample in samples]
    appearance = macenko.estimate(sources)
    for sample, source in zip(samples, sources, strict=True):
        expected = macenko.transform(source, appearance)
        np.testing.assert_array_equal(together.output(evaluation.contenders[1], source), expected)
        pixels = sample.read()
        psnr = peak_signal_noise_ratio(pixels.target[pixels.mask], expected[pixels.mask], data_range=255)
        assert value(together, "macenko", sample.name, "psnr_target") == pytest.approx(psnr)


def test_unpaired_sources_have_no_numbers_against_targets(samples: list[Sample]) -> None:
    alone = [Sample(sample.name, sample.source) for sample in samples]
    evaluation = evaluate(alone, make_contenders(["reinhard"]), ("stainnet",))
    assert {row.metric for row in evaluation.rows} == {"ssim_source"}
    assert set(evaluation.skipped) == {("stainnet", "ssim_target"), ("stainnet", "psnr_target")}


def test_one_unreadable_image_costs_no_other(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    mixed = [Sample("bad", tmp_path / "bad.png"), *samples]
    evaluation = evaluate(mixed, make_contenders(["reinhard"]), ("stainnet",))
    assert [name for name, _ in evaluation.failures] == ["bad"]
    assert evaluation.samples == samples


def test_a_rejected_pair_is_compared_with_its_source_alone(pairs: list[Pair], tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (144, 128), (240, 240, 240)).save(blank)
    mixed = [Pair("blank", pairs[0].source, blank), pairs[1]]
    samples, failed = open_samples(mixed, tmp_path / "registration")
    assert not failed
    assert [sample.paired for sample in samples] == [False, True]
    assert "blank" in samples[0].reason
    evaluation = evaluate(samples, make_contenders(["reinhard"]), ("stainnet",))
    found = {(row.image, row.metric) for row in evaluation.rows}
    assert ("blank", "ssim_source") in found
    assert ("blank", "ssim_target") not in found
    assert (pairs[1].name, "ssim_target") in found


def test_a_blank_image_falls_back_and_says_so(samples: list[Sample], tmp_path: Path) -> None:
    Image.new("RGB", (100, 100), (240, 240, 240)).save(tmp_path / "blank.png")
    evaluation = evaluate(
        [Sample("blank", tmp_path / "blank.png"), samples[0]], make_contenders(["macenko"]), ("toolkit",)
    )
    assert evaluation.fallbacks == (("macenko", "blank"),)
    assert not evaluation.failures


def test_registrations_are_made_once(pairs: list[Pair], tmp_path: Path) -> None:
    first, _ = open_samples(pairs, tmp_path)
    times = [sample.registration.stat().st_mtime_ns for sample in first]
    again, _ = open_samples(pairs, tmp_path)
    assert [sample.registration.stat().st_mtime_ns for sample in again] == times
    assert again == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suites": ("none",)}, "no suite 'none'; there are stainnet"),
        ({"suites": ()}, "at least one"),
        ({"options": {"nothing": {}}}, "'nothing'"),
    ],
)
def test_impossible_requests(samples: list[Sample], arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(samples, make_contenders(["reinhard"]), **arguments)
    with pytest.raises(InputError, match="at least one"):
        evaluate([], make_contenders(["reinhard"]))


# ---- contenders -------------------------------------------------------------------------------------------------


def test_contenders_by_name_flavour_and_file(pairs: list[Pair], tmp_path: Path) -> None:
    saved = restain.Reinhard().fit(pairs[0].target)
    saved.save(tmp_path / "labB.safetensors")
    found = make_contenders(["macenko", "macenko:torchstain"], "he", "none")
    assert [contender.name for contender in found] == [RAW, "macenko", "macenko:torchstain"]
    assert found[2].normalizer == restain.Macenko(flavour="torchstain", background="none").fit("he")
    file = str(tmp_path / "labB.safetensors")
    (_, labelled) = make_contenders([file])
    assert labelled.name == "labB"
    assert labelled.normalizer == saved
    assert make_contenders([file], background="keep")[1].normalizer.background == "keep"
    with pytest.raises(InputError, match="made anew"):
        make_contenders([file], background="none")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "no methods"),
        (["magic"], "no method 'magic'; there are reinhard"),
        (["macenko", "macenko"], "two contenders are called 'macenko'"),
        (["histogram:torchstain"], "histogram has no flavours"),
        (["macenko:none"], "wanted one of"),
        (["stainnet"], "weights"),
        (["raw"], "no method 'raw'"),
        (["missing.safetensors"], "not a file"),
    ],
)
def test_impossible_contenders(methods: list[str], message: str) -> None:
    with pytest.raises(InputError if "safetensors" not in str(methods) else ValueError, match=message):
        make_contenders(methods)
