"""Samples lie on registrations of the very pictures that are there."""

import shutil
from pathlib import Path

import numpy as np

from restain.evaluation.benchmark import open_samples
from restain.evaluation.registration import Registration

from .scanned import write_pairs


def test_a_registration_of_other_pictures_is_not_used(tmp_path: Path) -> None:
    pairs, other = write_pairs(tmp_path / "scans", 2), write_pairs(tmp_path / "other", 3)[2]
    first, failed = open_samples(pairs, tmp_path / "registration")
    assert (len(first), failed) == (2, [])
    made = [sample.registration.stat().st_mtime_ns for sample in first]
    shutil.copyfile(other.source, pairs[0].source)
    shutil.copyfile(other.target, pairs[0].target)

    kept, failed = open_samples(pairs, tmp_path / "registration")
    assert kept == first[1:]
    assert [outcome.pair for outcome in failed] == pairs[:1]
    assert failed[0].reason.endswith("other pictures or settings; pass --overwrite to do it again")

    again, failed = open_samples(pairs, tmp_path / "registration", overwrite=True)
    assert (again, failed) == (first, [])
    assert [sample.registration.stat().st_mtime_ns for sample in again][1] == made[1]  # it is fresh
    open_samples([other], tmp_path / "alone")
    redone, alone = (
        Registration.load(tmp_path / name) for name in ("registration/0.safetensors", "alone/2.safetensors")
    )
    assert np.array_equal(redone.positions(), alone.positions())
