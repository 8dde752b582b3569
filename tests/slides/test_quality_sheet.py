"""The quality sheet: one page that is light, says what was planted, and trusts no name."""

import base64
import dataclasses
import html.parser
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restain.color.images import RGB8
from restain.errors import OutputError
from restain.methods import METHODS
from restain.methods.macenko import Macenko
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides import quality_sheet
from restain.slides.batch import plan_outputs
from restain.slides.cohort import normalize_cohort
from restain.slides.manifest import Row, read_rows


class Page(html.parser.HTMLParser):
    """What a browser would see: each slide's text in one line, and its pictures by their labels."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.slides: list[dict[str, Any]] = []
        self.rest: list[str] = []
        self.addresses: list[str] = []
        self._within: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.addresses += [value for name in ("src", "href") if (value := given.get(name)) is not None]
        if tag == "article":
            self.slides.append({"text": [], "odd": "outlier" in (given["class"] or ""), "pictures": {}})
            self._within.append(tag)
        elif tag == "img":
            assert given["loading"] == "lazy"
            self.slides[-1]["pictures"][given["alt"]] = given["src"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._within.pop()

    def handle_data(self, data: str) -> None:
        (self.slides[-1]["text"] if self._within else self.rest).append(data)

    def words(self, number: int) -> str:
        return " ".join(self.slides[number]["text"])


def decoded(uri: str) -> RGB8:
    head, data = uri.split(",", 1)
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def cohort_of(folder: Path, images: dict[str, RGB8], normalizer: Any = None) -> Page:
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / "in" / name)
    pairs = plan_outputs(sorted((folder / "in").iterdir()), folder / "in", folder / "out")
    result = normalize_cohort(pairs, folder / "out", normalizer or Macenko().fit("he"), load=Path)  # type: ignore[arg-type]
    assert result.sheet == folder / "out" / "quality.html"
    return Page(result.sheet)


def ordinary(number: int) -> RGB8:
    white = tuple(240.0 + level for level in np.random.default_rng(number).normal(0, 2, 3))
    return make_phantom(120, 180, seed=number, stain_matrix=STAINS_A, scanner=Scanner(white=white, noise=1.0)).image  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Seven ordinary images, one under a yellow lamp, one that is blank."""
    images = {f"{number}.png": ordinary(number) for number in range(7)}
    yellow = Scanner(white=(230.0, 215.0, 185.0), noise=1.0)
    images["yellow.png"] = make_phantom(120, 180, seed=20, stain_matrix=STAINS_A, scanner=yellow).image
    images["blank.png"] = np.full((60, 90, 3), 240, np.uint8)
    return cohort_of(tmp_path_factory.mktemp("cohort"), images)


def test_the_odd_ones_are_first_and_marked(page: Page) -> None:
    assert len(page.slides) == 9
    assert page.words(0).startswith("blank.png")
    assert "not measured" in page.words(0)
    assert page.words(1).startswith("yellow.png")
    assert "from the median: glass" in page.words(1)
    assert [slide["odd"] for slide in page.slides][:2] == [True, True]
    numbers = [float(re.search(r"([\d.]+) from the median", page.words(place))[1]) for place in range(1, 9)]  # type: ignore[index]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 3.5


def test_glass_before_and_after_with_the_shift(page: Page) -> None:
    """The planted white point, and on the output the reference's, which is measured there."""
    found = re.findall(r"([+−]?\d+)\u2002([+−]?\d+)\u2002([+−]?\d+)(?=\D|$)", page.words(1))
    triples = [[int(value.replace("−", "-")) for value in triple] for triple in found]
    white = Macenko().fit("he").reference_.white_point  # type: ignore[union-attr]
    before, after, shift = triples[-3:]
    np.testing.assert_allclose(before, (230, 215, 185), atol=1)
    np.testing.assert_allclose(after, white, atol=1.5)
    np.testing.assert_array_equal(np.subtract(after, before), shift)


def test_pictures_are_small_and_what_they_say(page: Page) -> None:
    for slide in page.slides[1:]:
        before, after = (decoded(slide["pictures"][label]) for label in ("before", "after"))
        assert before.shape == after.shape == (120, 180, 3)
        assert len(slide["pictures"]["before"]) < 16_000
    yellow = decoded(page.slides[1]["pictures"]["before"])
    assert np.median(yellow[..., 0].astype(int) - yellow[..., 2]) > 20
    mended = decoded(page.slides[1]["pictures"]["after"])
    assert mended[..., 2].max() > 225


def test_stains_are_shown(page: Page) -> None:
    """The planted vectors, within what an estimate of a small image is off."""
    for place in range(1, 9):
        found = re.findall(r"(\d\.\d\d)\u2002(\d\.\d\d)\u2002(\d\.\d\d)", page.words(place))
        vectors = np.array(found, np.float64)
        assert vectors.shape == (2, 3)
        assert (np.abs(vectors - STAINS_A) < 0.15).all()


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)


def test_every_method_has_its_sheet(tmp_path: Path) -> None:
    for name, method in METHODS.items():
        if not method.fixed:
            (tmp_path / name).mkdir()
            page = cohort_of(tmp_path / name, {"a.png": ordinary(1)}, method().fit("he"))
            assert "glass" in page.words(0)
            assert not page.slides[0]["odd"]


def test_failures_are_told_and_names_are_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> & 'b'.png"
    (tmp_path / "out").mkdir()
    failed = Row(tmp_path / name.replace("/", "_"), "b.png", "failed", error="<b>no</b>")
    done = Row(tmp_path / "gone.png", "gone <i>.png", "done", "macenko", appearance={"white_point": [240.0] * 3})
    quality_sheet.write(tmp_path / "out", [failed, done], Macenko().fit("he"))
    text = (tmp_path / "out" / "quality.html").read_text()
    assert "<script" not in text
    assert "<b>no" not in text
    assert "<i>" not in text
    page = Page(tmp_path / "out" / "quality.html")
    assert "<b>no</b>" in page.rest
    assert "gone.png does not exist" in page.words(0)  # a source that has gone since costs its pictures only


def test_of_a_large_cohort_the_furthest_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = cohort_of(tmp_path, {f"{number}.png": ordinary(number) for number in range(6)})
    rows = list(read_rows(tmp_path / "out" / "manifest.csv"))
    monkeypatch.setattr(quality_sheet, "MOST_SLIDES", 4)
    first = [page.slides[place]["text"][0] for place in range(4)]
    quality_sheet.write(tmp_path / "out", rows, Macenko().fit("he"))
    page = Page(tmp_path / "out" / "quality.html")
    assert [slide["text"][0] for slide in page.slides] == first
    assert any("2 more, nearer to the median" in text for text in page.rest)


def test_a_page_of_someone_else_stays(tmp_path: Path) -> None:
    (tmp_path / "quality.html").write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="restain did not make it"):
        quality_sheet.refuse_stranger(tmp_path)
    quality_sheet.write(tmp_path, [], Macenko().fit("he"))
    quality_sheet.refuse_stranger(tmp_path)


def test_a_thousand_slides_are_light(tmp_path: Path) -> None:
    """Below 25 MB, though every picture is full of detail to its edges."""
    image = make_phantom(400, 440, seed=3, stain_matrix=STAINS_B, scanner=Scanner(noise=1.5)).image
    cohort_of(tmp_path, {"a.png": image})
    (row,) = read_rows(tmp_path / "out" / "manifest.csv")
    quality_sheet.write(tmp_path / "out", [dataclasses.replace(row)] * 20, Macenko().fit("he"))
    assert (tmp_path / "out" / "quality.html").stat().st_size < 20 * 25_000
