"""The shipped references: small, free, honest on where they come from, and good for every method."""

import re
from importlib.resources import as_file, files

import numpy as np
import pytest

import restain
from restain.color.glass import find_white_point
from restain.errors import InputError
from restain.methods import METHODS
from restain.phantom import Phantom
from restain.profiles import load_profile, profile_names

from .methods.making import make

NAMES = profile_names()
FREE = re.compile(r"CC0|CC[- ]BY(?!-N)|MIT|Apache|BSD")


def test_names() -> None:
    assert sorted(NAMES) == NAMES
    assert {"he", "pap"} <= set(NAMES)
    assert restain.profile_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_small(name: str) -> None:
    with as_file(files("restain.profiles") / f"{name}.safetensors") as path:
        assert path.stat().st_size < 60_000


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_it_comes_from(name: str) -> None:
    facts = load_profile(name).provenance
    assert facts["profile"] == name
    assert len(facts["title"]) > 10
    assert len(facts["source"]) > 10
    assert FREE.search(facts["licence"]), facts["licence"]
    assert "NC" not in facts["licence"]  # companies use it too
    assert len(facts["images"]) >= 1
    assert len(set(facts["images"])) == len(facts["images"])
    assert not any(image.startswith(("/", "~", "\\")) for image in facts["images"])  # no paths of a private machine


@pytest.mark.parametrize("name", NAMES)
def test_each_shows_tissue_and_glass(name: str) -> None:
    profile = load_profile(name)
    white = find_white_point(profile)
    assert white.origin == "glass"
    assert white.level.min() > 225
    assert np.ptp(white.level) < 4  # a reference should tint nobody's glass
    tissue = profile.tissue(white.level)
    assert len(tissue) > 100
    assert tissue.pixels > 0.05 * profile.pixels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_each_fits_every_method(method: str, name: str, phantom: Phantom) -> None:
    normalizer = make(method).fit(name)
    assert normalizer.reference_ is not None
    assert normalizer.reference_.white_origin == "glass"
    assert normalizer.provenance_ == load_profile(name).provenance
    result = normalizer.transform(phantom.image)
    np.testing.assert_allclose(
        result[phantom.glass].mean(axis=0), normalizer.reference_.white_point, atol=1.5, err_msg="glass"
    )
    assert 20 < result[phantom.nuclei].mean() < result[phantom.glass].mean() - 40


@pytest.mark.parametrize("name", NAMES)
def test_loading_twice_gives_the_same(name: str) -> None:
    assert load_profile(name) == load_profile(name)


@pytest.mark.parametrize("name", ["HE", "", "nosuch", "../profiles/he", "he.safetensors"])
def test_other_names_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(repr(name))}.*he, pap"):
        load_profile(name)
