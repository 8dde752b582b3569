"""The summary: means, intervals and tests against other libraries and planted differences."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats

from restain.errors import OutputError
from restain.evaluation.benchmark import RAW, Evaluation, Row
from restain.evaluation.benchmark.measure import COHORT
from restain.evaluation.benchmark.summary import Line, summarize
from restain.evaluation.benchmark.tables import write_tables


def rows_of(values: dict[str, np.ndarray], metric: str = "ssim_target", slides: list[str] | None = None) -> list[Row]:
    number = len(next(iter(values.values())))
    slides = slides or [""] * number
    return [
        Row(method, f"i{index}", slides[index], "stainnet", metric, "target", float(column[index]))
        for index in range(number)
        for method, column in values.items()
    ]


def lines_of(rows: list[Row]) -> dict[str, Line]:
    return {line.method: line for line in summarize(rows)}


@pytest.fixture
def planted() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    raw = generator.uniform(0.4, 0.8, 40)
    return {
        RAW: raw,
        "better": raw + generator.uniform(0.01, 0.05, 40),
        "same": raw + generator.normal(0, 0.01, 40),
        "worse": raw - generator.uniform(0.0, 0.1, 40),
    }


def test_means_and_tests_are_those_of_another_library(planted: dict[str, np.ndarray]) -> None:
    lines = lines_of(rows_of(planted))
    for method, values in planted.items():
        assert lines[method].mean == pytest.approx(values.mean())
        assert lines[method].sd == pytest.approx(np.std(values, ddof=1))
        assert (lines[method].count, lines[method].missing) == (40, 0)
        interval = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
        assert lines[method].low == pytest.approx(interval.low, abs=0.006)
        assert lines[method].high == pytest.approx(interval.high, abs=0.006)
        assert lines[method].resampled == "images"
        if method != RAW:
            assert lines[method].p == pytest.approx(stats.wilcoxon(values - planted[RAW]).pvalue)
            assert lines[method].difference == pytest.approx(np.median(values - planted[RAW]))
    assert math.isnan(lines[RAW].p)


def test_verdicts(planted: dict[str, np.ndarray]) -> None:
    lines = lines_of(rows_of(planted))
    assert {method: line.better for method, line in lines.items()} == {
        RAW: None,
        "better": True,
        "same": None,
        "worse": False,
    }


def test_holms_correction(planted: dict[str, np.ndarray]) -> None:
    lines = lines_of(rows_of(planted))
    p = sorted(line.p for line in lines.values() if math.isfinite(line.p))
    corrected = sorted(line.p_holm for line in lines.values() if math.isfinite(line.p_holm))
    expected = np.maximum.accumulate(np.minimum(1, np.array(p) * (3, 2, 1)))
    np.testing.assert_allclose(corrected, expected)


def test_few_slides_widen_the_interval() -> None:
    """Images of a slide are alike: six slides of ten equal images are six observations."""
    slide_means = np.array([0.2, 0.4, 0.5, 0.6, 0.7, 0.9])
    values = np.repeat(slide_means, 10)
    slides = [f"s{index}" for index in np.repeat(range(6), 10)]
    by_slide = lines_of(rows_of({RAW: values}, slides=slides))[RAW]
    by_image = lines_of(rows_of({RAW: values}))[RAW]
    assert (by_slide.resampled, by_image.resampled) == ("slides", "images")
    assert by_slide.high - by_slide.low > 2 * (by_image.high - by_image.low)
    interval = stats.bootstrap(
        (slide_means,), np.mean, method="percentile", n_resamples=9999, rng=1
    ).confidence_interval
    assert by_slide.low == pytest.approx(interval.low, abs=0.03)
    assert lines_of(rows_of({RAW: values}, slides=["one"] * 60))[RAW].resampled == "images"


def test_ranks() -> None:
    values = {RAW: np.array([1.0, 1, 1]), "a": np.array([2.0, 2, 0]), "b": np.array([3.0, 1, 2])}
    assert {m: line.rank for m, line in lines_of(rows_of(values)).items()} == pytest.approx(
        {RAW: (3 + 2.5 + 2) / 3, "a": (2 + 1 + 3) / 3, "b": (1 + 2.5 + 1) / 3}
    )
    lower = {m: line.rank for m, line in lines_of([_as_shift(row) for row in rows_of(values)]).items()}
    assert lower["b"] == pytest.approx((3 + 1.5 + 3) / 3)


def _as_shift(row: Row) -> Row:
    return Row(row.method, row.image, row.slide, "toolkit", "background_shift", "source", row.value)


def test_values_that_are_no_numbers() -> None:
    values = {RAW: np.array([math.inf, math.nan, 0.5]), "a": np.full(3, math.nan)}
    lines = lines_of(rows_of(values, "psnr_target"))
    assert (lines[RAW].mean, lines[RAW].count, lines[RAW].missing) == (0.5, 1, 2)
    assert math.isnan(lines["a"].mean)
    assert lines["a"].better is None


def test_metrics_of_all_outputs_have_no_interval() -> None:
    line = summarize([Row("a", COHORT, "", "toolkit", "nmi_cv", "none", 0.03)])[0]
    assert (line.mean, line.resampled) == (0.03, "")
    assert math.isnan(line.low)


def test_slides_are_the_observations_where_they_are_known() -> None:
    """Sixty images of six slides, each slide's images alike: six differences, of which all are above 0."""
    generator = np.random.default_rng(3)
    raw = generator.uniform(0.4, 0.6, 60)
    gains = np.repeat([0.02, 0.05, 0.01, 0.04, 0.03, 0.06], 10)
    slides = [f"s{index}" for index in np.repeat(range(6), 10)]
    lines = lines_of(rows_of({RAW: raw, "a": raw + gains}, slides=slides))
    assert lines["a"].tested == "slides"
    assert lines["a"].p == pytest.approx(2 / 2**6)
    by_image = lines_of(rows_of({RAW: raw, "a": raw + gains}))["a"]
    assert by_image.tested == "images"
    assert by_image.p < 1e-6


def test_the_sign_is_that_of_what_was_tested() -> None:
    """Seven slides: six gain a lot on one image each, one loses a little on sixty. By slides it is a gain."""
    slides = [*(f"s{index}" for index in range(6)), *(["s6"] * 60)]
    raw = np.full(66, 0.5)
    gain = np.concatenate([np.full(6, 0.1), np.full(60, -0.001)])
    line = lines_of(rows_of({RAW: raw, "a": raw + gain}, slides=slides))["a"]
    assert line.p < 0.05
    assert line.difference == pytest.approx(0.1)
    assert line.better is True


def test_against_the_source_nothing_is_tested() -> None:
    """The raw images are their own source: every change is worse, and that says nothing."""
    rows = rows_of({RAW: np.ones(20), "a": np.linspace(0.9, 0.99, 20)})
    rows = [Row(r.method, r.image, r.slide, r.suite, "ssim_source", "source", r.value) for r in rows]
    line = lines_of(rows)["a"]
    assert line.difference < 0
    assert math.isnan(line.p)
    assert line.better is None


def test_few_images_are_not_tested() -> None:
    lines = lines_of(rows_of({RAW: np.zeros(5), "a": np.arange(1.0, 6)}))
    assert lines["a"].difference == 3
    assert math.isnan(lines["a"].p)


# ---- files ------------------------------------------------------------------------------------------------------


def test_tables(evaluation: Evaluation, tmp_path: Path) -> None:
    lines = summarize(evaluation.rows)
    written = write_tables(tmp_path, evaluation, lines)
    assert [path.name for path in written] == ["metrics.csv", "metrics.parquet", "summary.csv", "evaluation.json"]
    table = list(csv.DictReader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    parquet = pyarrow.parquet.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert len(table) == len(parquet) == len(evaluation.rows)
    for text, stored, row in zip(table, parquet, evaluation.rows, strict=True):
        assert (text["method"], text["image"], text["metric"]) == (row.method, row.image, row.metric)
        assert stored["suite"] == row.suite
        if math.isnan(row.value):
            assert text["value"] == ""
        else:
            assert float(text["value"]) == stored["value"] == row.value
    summary = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert len(summary) == len(lines)
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert facts["images"] == facts["compared_with_target"] == 3
    assert facts["methods"]["macenko"]["settings"]["background"] == "match"
    assert facts["methods"]["raw"] is None
    assert {"python", "cores", "packages", "date"} <= set(facts["environment"])
    with pytest.raises(OutputError, match="exists"):
        write_tables(tmp_path, evaluation, lines)
    write_tables(tmp_path, evaluation, lines, overwrite=True)
