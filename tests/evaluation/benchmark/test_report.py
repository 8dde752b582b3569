"""The report: one page that needs nothing else, says what its numbers allow, and looks right in a real browser."""

import base64
import io
import math
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.errors import EstimateWarning, MissingExtraError, OutputError
from restain.evaluation.benchmark.contenders import RAW, make_contenders
from restain.evaluation.benchmark.measure import Evaluation, Row, evaluate
from restain.evaluation.benchmark.report.answer import answer
from restain.evaluation.benchmark.report.choice import choose, main_metric
from restain.evaluation.benchmark.report.figures import looks
from restain.evaluation.benchmark.report.gather import find_box, tissue_mask
from restain.evaluation.benchmark.report.page import check_report, make_page, write_report
from restain.evaluation.benchmark.report.words import NAMES, words_for
from restain.evaluation.benchmark.samples import Pixels, Sample, open_samples
from restain.evaluation.benchmark.summary import Line, summarize
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.metrics import SUITES
from restain.phantom import STAINS_B, Scanner, make_phantom, render

ODD = 'a <b>&amp; "c" $x_1$'
"""A name that is a tag, an entity, an end of an attribute and a formula, unless it is escaped."""

SIDE = 144


# ---- small evaluations ------------------------------------------------------------------------------------------


def write_pair(folder: Path, name: str, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Pair:
    """The same phantom tissue by two labs and scanners."""
    tissue = make_phantom(*size, seed=seed, scanner=Scanner(noise=1.0), glass_fraction=0.25)
    other = Scanner(white=(236.0, 231.0, 228.0), noise=1.0)
    pictures = (tissue.image, render(tissue.concentrations, tissue.rbc, STAINS_B, other, seed=seed + 1))
    paths = [folder / side / f"{name}.png" for side in ("A", "B")]
    for path, pixels in zip(paths, pictures, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return Pair(name, paths[0], paths[1], slide=str(seed))


def make_evaluation(
    samples: Sequence[Sample],
    methods: Sequence[str] = ("reinhard", "macenko"),
    suites: Sequence[str] = ("stainnet", "toolkit"),
    reference: object = None,
) -> Evaluation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        return evaluate(samples, make_contenders(methods, reference), suites, workers=1)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three pairs, one with an odd name and of another size."""
    folder = tmp_path_factory.mktemp("paired")
    pairs = [write_pair(folder, "one", 1), write_pair(folder, ODD, 2, (SIDE, 176)), write_pair(folder, "deep/three", 3)]
    samples, failed = open_samples(pairs, folder / "registration", workers=1)
    assert not failed
    return make_evaluation(samples, reference=[pair.target for pair in pairs])


@pytest.fixture(scope="module")
def page(paired: Evaluation) -> str:
    return make_page(paired, summarize(paired.rows))


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """One small source that is barely larger than a window of SSIM, and one of ordinary size."""
    folder = tmp_path_factory.mktemp("unpaired")
    pairs = [write_pair(folder, "ordinary", 4), write_pair(folder, "tiny", 5, (20, 20))]
    return make_evaluation([Sample(pair.name, pair.source) for pair in pairs])


# ---- the page as HTML -------------------------------------------------------------------------------------------

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Reader(HTMLParser):
    """Reads a page strictly: every tag closed in turn, every id once."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for found, name, value in self.attributes if (found, name) == (tag, attribute)]

    @property
    def shown(self) -> str:
        hover = [value for _, name, value in self.attributes if name in ("title", "alt", "aria-label")]
        return " ".join([*self.text, *hover])


def opened(source: str) -> Image.Image:
    head, _, data = source.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    return image


def check(page: str, evaluation: Evaluation) -> Reader:
    """What holds for every page."""
    reader = Reader(page)
    images = reader.values("img", "src") + reader.values("image", "xlink:href")
    assert images
    for source in images:
        assert min(opened(source).size) > 0
    assert all(reader.values("img", "alt"))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for reference in reader.values("a", "href") + reader.values("use", "xlink:href"):
        assert reference[0] == "#"
        assert reference[1:] in ids
    without_pixels = re.sub(r"base64,[\w+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe", without_pixels)
    assert set(re.findall(r"url\((.)", without_pixels)) <= {"#"}
    assert not re.search(r"\b([Nn]a[Nn]|inf|None)\b", reader.shown)
    for contender in evaluation.contenders:
        assert contender.name in reader.text
    return reader


def test_the_page_is_whole_and_needs_nothing_else(page: str, paired: Evaluation) -> None:
    reader = check(page, paired)
    for sample in paired.samples:
        assert sample.name in reader.text
    assert "<b>&amp; " not in page.replace("&amp;", "&")[: page.index("</title>")]
    assert ODD not in page
    assert "target" in reader.text
    # of each example: the source, two methods and the target, whole and cropped; of the glass, two maps each
    assert len(reader.values("img", "src")) == 3 * 4 * 2 + 3 * 2


def test_all_that_was_asked_for_is_there(page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "All numbers",
        "Ranks and intervals",
        "Examples, worst first",
        "Stain vectors",
        "Colours of tissue",
        "Glass",
        "What was compared",
        "What failed, what was skipped, and where it ran",
    ]
    questions = re.findall(r'<div class="question"><h3>(.*?)</h3>', page)
    assert [question[:7] for question in questions] == ["Did nor", "Did it ", "Which m", "How sur"]
    assert page.index('id="answer"') < page.index('id="numbers"')


def test_caveats_stand_beside_the_numbers(page: str) -> None:
    table = page[page.index('id="numbers"') : page.index('id="plots"')]
    assert "stretches both images" in table
    assert "Not mutual information" in table
    assert "by definition" in table
    assert "not measured: the ImageNet weights of alexnet" in table


def test_the_same_page_again(page: str, paired: Evaluation) -> None:
    again = make_page(paired, summarize(paired.rows))
    undated = [re.sub(r"\d{4}-\d\d-\d\d(T[\d:]+\+00:00)?", "", each) for each in (page, again)]
    assert undated[0] == undated[1]


def test_unpaired_images_and_a_tiny_one(unpaired: Evaluation) -> None:
    reader = check(make_page(unpaired, summarize(unpaired.rows)), unpaired)
    assert "That cannot be said here." in reader.shown
    assert "These numbers do not decide it." in reader.shown
    assert "target" not in reader.text  # neither as a column nor in a legend


def test_one_image_and_one_method(unpaired: Evaluation) -> None:
    alone = make_evaluation([unpaired.samples[0]], ["reinhard"], ["dstgan"])
    reader = check(make_page(alone, summarize(alone.rows)), alone)
    assert "1 image: what is above describes it, and says nothing of others." in reader.shown
    assert "∞" in reader.text  # the raw image's PSNR


def test_only_a_tiny_image(unpaired: Evaluation) -> None:
    alone = make_evaluation([unpaired.samples[1]])
    check(make_page(alone, summarize(alone.rows)), alone)


def test_an_image_without_tissue_and_numbers_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "glass.png"
    Image.fromarray(np.full((64, 64, 3), 240, np.uint8)).save(path)
    blank = make_evaluation([Sample("glass", path)])
    blank = replace(blank, rows=[replace(row, value=math.nan) for row in blank.rows])
    reader = check(make_page(blank, summarize(blank.rows)), blank)
    assert "could not measure the stains of 1 of 1 image" in " ".join(reader.shown.split())
    assert any("too little stained tissue" in each for each in reader.text)


def test_what_failed_is_told(paired: Evaluation, tmp_path: Path) -> None:
    gone = Sample("gone", tmp_path / "gone.png")
    rejected = replace(paired.samples[0], reason="other <i>tissue</i>")
    told = replace(
        paired,
        samples=[rejected, *paired.samples[1:], gone],
        failures=[("words", "it is <no> image")],
        fallbacks=[("macenko", "one")],
    )
    reader = check(make_page(told, summarize(told.rows), examples=9), told)
    shown = reader.shown
    assert "it is <no> image" in shown
    assert "other <i>tissue</i>" in shown
    assert "1 pair of 4 could not be registered well enough" in shown
    assert "Could not be read again for this page (1)" in shown


def test_writing(paired: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    lines = summarize(paired.rows)
    seen: list[tuple[int, int, Path]] = []
    write_report(path, paired, lines, examples=1, progress=lambda *progress: seen.append(progress))
    assert [done for done, _, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == 3
    assert len(Reader(path.read_text(encoding="utf-8")).values("img", "src")) == 4 * 2 + 3 * 2
    assert path.stat().st_size < 1_500_000
    with pytest.raises(OutputError, match="exists"):
        write_report(path, paired, lines)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'restain\[evaluation\]'"):
        check_report(path, overwrite=True)


def test_plots_leave_the_users_matplotlib_alone(paired: Evaluation) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    make_page(paired, summarize(paired.rows), examples=0)
    assert dict(matplotlib.rcParams) == before


# ---- which images, which colours, which names ---------------------------------------------------------------------


def test_the_worst_come_first(paired: Evaluation) -> None:
    key = main_metric(paired.rows)
    assert key == ("stainnet", "ssim_target")
    names = [sample.name for sample in paired.samples]
    rows = [
        replace(row, value={"one": 0.5, ODD: 0.1, "deep/three": 0.9}[row.image] + (row.method == RAW) * -1)
        if (row.suite, row.metric) == key
        else row
        for row in paired.rows
    ]
    chosen = choose(replace(paired, rows=rows), 3)
    assert [choice.sample.name for choice in chosen] == [ODD, "one", "deep/three"]
    assert [choice.place for choice in chosen] == [1, 2, 3]
    assert [choice.sample.name for choice in choose(replace(paired, rows=rows), 2)] == [ODD, "one"]
    assert sorted(names) == sorted(choice.sample.name for choice in choose(replace(paired, rows=[]), 5))


def test_after_the_worst_a_typical_image_and_the_best(tmp_path: Path, paired: Evaluation) -> None:
    samples = [Sample(f"s{i}", tmp_path / f"{i}.png") for i in range(20)]
    rows = [Row("macenko", f"s{i}", "", "stainnet", "ssim_target", "target", i / 20) for i in range(20)]
    chosen = choose(replace(paired, samples=samples, rows=rows), 5)
    assert [choice.place for choice in chosen] == [1, 2, 3, 11, 20]


def test_the_crop_lies_where_texture_is() -> None:
    image = np.full((300, 400, 3), 240, np.uint8)
    image[180:260, 250:330] = np.random.default_rng(0).integers(60, 200, (80, 80, 3))
    left, top, width, height = find_box(Pixels(image), tissue_mask(image, 240.0))
    assert (width, height) == (96, 96)
    assert left <= 250
    assert left + width >= 330
    assert top <= 180
    assert top + height >= 260
    assert find_box(Pixels(image[:20, :30]), np.zeros((20, 30), bool)) == (0, 0, 30, 20)


def test_looks_are_told_apart() -> None:
    names = [RAW, *(f"method {i}" for i in range(20))]
    found = looks(names)
    assert found[RAW].color == "#8a8a8a"
    assert len({(look.color, look.dash) for look in found.values()}) == len(names)


def test_every_metric_of_a_suite_has_a_name() -> None:
    for suite, lines in SUITES.items():
        for label, entry in lines.items():
            assert entry.metric in NAMES
            assert words_for(suite, label).summary


# ---- what the sentences say -------------------------------------------------------------------------------------


def line(method: str, metric: str = "ssim_target", mean: float = 0.6, **changes: object) -> Line:
    """A line of twelve images of the StainNet suite, with no difference from raw unless one is given."""
    values: dict[str, object] = {
        "method": method,
        "suite": "stainnet",
        "metric": metric,
        "higher_is_better": True,
        "mean": mean,
        "sd": 0.02,
        "low": mean - 0.01,
        "high": mean + 0.01,
        "count": 12,
        "missing": 0,
        "resampled": "images",
        "difference": math.nan if method == RAW else 0.0,
        "p": math.nan,
        "p_holm": math.nan,
        "tested": "images",
        "rank": 1.0,
    }
    return Line(**(values | changes))  # type: ignore[arg-type]


def better(method: str, mean: float, metric: str = "ssim_target") -> Line:
    return line(method, metric, mean, difference=mean - 0.6, p=0.001, p_holm=0.002)


def said(paired: Evaluation, lines: Sequence[Line], images: int = 12, slides: int = 12) -> dict[str, str]:
    """The answers as plain text, by question."""
    samples = [replace(paired.samples[0], name=f"s{i}", slide=f"slide {i % slides}") for i in range(images)]
    bare = replace(paired, samples=samples, rows=[], failures=[], fallbacks=[])
    plain = {}
    for question in answer(bare, lines):
        html = " ".join(part for part in [question.verdict, *question.sentences] if part)
        plain[question.title] = "".join(Reader(html).text)
    return plain


HELP, HARM = "Did normalization help?", "Did it harm the images?"
WHICH, SURE = "Which method should I use on images like these?", "How sure is that?"


def test_a_clearly_better_method_is_named(paired: Evaluation) -> None:
    plain = said(paired, [line(RAW), better("macenko", 0.9), line("acd", mean=0.61, p_holm=0.4, difference=0.01)])
    assert plain[HELP].startswith("Yes: macenko came nearer to the target than raw, by SSIM.")
    assert "0.900 on average (95 % interval 0.890 to 0.910), raw 0.600" in plain[HELP]
    assert "Median change of an image +0.300, p = 0.002: better than raw." in plain[HELP]
    assert "No clear difference from raw: acd." in plain[HELP]
    assert plain[WHICH].startswith("macenko. It is nearest to the target by SSIM.")


def test_no_difference_is_called_none(paired: Evaluation) -> None:
    for p in (math.nan, 0.6):
        lines = [line(RAW), *(line(name, p=p, p_holm=p, difference=0.0) for name in ("macenko", "acd"))]
        plain = said(paired, lines)
        assert plain[HELP].startswith("No difference from the raw images could be shown.")
        assert plain[WHICH].startswith("None, by these numbers: the images as they are lie as near to the target.")
        assert "has the same mean" in plain[HELP]


def test_worse_is_called_worse(paired: Evaluation) -> None:
    lines = [line(RAW), *(better(name, mean) for name, mean in (("macenko", 0.4), ("acd", 0.3)))]
    plain = said(paired, lines)
    assert plain[HELP].startswith("No: every method moved the images further from the target.")
    assert plain[WHICH].startswith("None, by these numbers")
    lines = [line(RAW), better("macenko", 0.4), line("acd", p_holm=0.9, difference=0.001)]
    assert said(paired, lines)[HELP].startswith(
        "No: none came nearer to the target, and macenko moved further from it."
    )


def test_metrics_that_disagree(paired: Evaluation) -> None:
    lines = [line(RAW), better("macenko", 0.9), better("acd", 0.7)]
    lines += [line(RAW, "psnr_target", 20, sd=1.0)]
    lines += [line(name, "psnr_target", mean, difference=mean - 20, p_holm=p, sd=1.0) for name, mean, p in PSNRS]
    plain = said(paired, lines)
    assert plain[HELP].startswith("Yes: acd came nearer to the target than raw, by SSIM and PSNR.")
    assert plain[WHICH].startswith("That depends on what counts. macenko is nearest by SSIM; acd is nearest by PSNR.")
    lines = [each for each in lines if each.method != "acd"]
    assert said(paired, lines)[HELP].startswith(
        "In part: nearer to the target than raw by SSIM (1 of 1 methods), not by PSNR"
    )


PSNRS = (("macenko", 20.1, 0.5), ("acd", 26.0, 0.001))


def test_a_gain_below_the_spread_and_an_order_that_is_not_certain(paired: Evaluation) -> None:
    raw = line(RAW, sd=0.2)
    plain = said(paired, [raw, replace(better("macenko", 0.65), sd=0.2), replace(better("acd", 0.64), sd=0.2)])
    assert "smaller than the spread between images (sd 0.200)" in plain[HELP]
    assert "acd is next, 0.010 behind, which does not settle their order." in plain[HELP]
    assert plain[WHICH].startswith("macenko or acd.")


def test_few_images_are_not_tested(paired: Evaluation) -> None:
    lines = [replace(each, count=3, p=math.nan, p_holm=math.nan) for each in (line(RAW), better("macenko", 0.9))]
    plain = said(paired, lines, images=3)
    assert plain[HELP].startswith("Too few images to tell")
    assert plain[WHICH].startswith("Too few images to choose by. On these, macenko is nearest by SSIM.")
    assert plain[SURE].startswith("3 images: what is above describes them, and says nothing of others.")


def test_images_of_few_slides_are_not_independent(paired: Evaluation) -> None:
    lines = [line(RAW), better("macenko", 0.9)]
    assert said(paired, lines, slides=4)[SURE].startswith("The 12 images are of 4 slides only.")
    assert said(paired, lines, slides=6)[SURE].startswith("The 12 images are of 6 slides. Intervals and p count slides")
    assert said(paired, lines, slides=12)[SURE].startswith("Even a perfect method")


def test_harm_without_targets(paired: Evaluation) -> None:
    lines = [
        line(name, metric, mean, suite="toolkit")
        for metric in ("gradient_correlation", "ssim_source")
        for name, mean in ((RAW, 1.0), ("macenko", 0.95), ("acd", 0.7))
    ]
    lines += [
        line(name, "background_shift", mean, suite="toolkit", higher_is_better=False)
        for name, mean in ((RAW, 0.0), ("macenko", 1.0), ("acd", 4.0))
    ]
    plain = said(paired, lines)
    assert plain[HELP].startswith("That cannot be said here.")
    assert plain[HARM].startswith("macenko changes structure least, acd most, by gradient correlation.")
    assert "Glass is on average 1.0 (macenko) to 4.0 levels of 255 (acd) from the colour" in plain[HARM]
    assert plain[WHICH].startswith("These numbers do not decide it. Without targets only harm can be measured")


# ---- a real browser -----------------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

COUNTS = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const fetched = performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:"));
  document.body.dataset.images = images.length;
  document.body.dataset.broken = images.filter(each => !each.complete || !each.naturalWidth).length;
  document.body.dataset.fetched = fetched.length;
  document.body.dataset.beyond = Math.max(0, document.documentElement.scrollWidth - innerWidth);
});
</script></body>"""
"""The page has no script. This one, in a copy, counts what a reader would see broken."""


def browse(page: Path, profile: Path, *arguments: str) -> bytes:
    """Open a page in a headless browser without a network, and return what it prints."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=False)
    if version.returncode != 0:  # some systems have a script of that name that asks for another installer
        pytest.skip(f"{found} does not start: {version.stdout}{version.stderr}")
    command = [
        found,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--window-size=1280,4000",
        f"--user-data-dir={profile}",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout


def test_a_browser_shows_it(page: str, tmp_path: Path) -> None:
    path, picture = tmp_path / "report.html", tmp_path / "report.png"
    path.write_text(page, encoding="utf-8")
    browse(path, tmp_path / "profile", f"--screenshot={picture}")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (4000, 1280)
    for third in np.array_split(pixels, 3):  # text everywhere, and nowhere more ink than paper
        assert 0.005 < (third.sum(axis=2) < 500).mean() < 0.5
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    assert (saturation > 60).mean() > 0.02  # stained tissue and coloured plots


def test_a_browser_finds_nothing_broken(page: str, tmp_path: Path) -> None:
    path = tmp_path / "counted.html"
    path.write_text(page.replace("</body>", COUNTS), encoding="utf-8")
    dom = browse(path, tmp_path / "profile", "--virtual-time-budget=5000", "--dump-dom").decode()
    counts = dict(re.findall(r'data-(images|broken|fetched|beyond)="(\d+)"', dom))
    assert int(counts["images"]) == page.count("<img ")
    assert (counts["broken"], counts["fetched"], counts["beyond"]) == ("0", "0", "0")
