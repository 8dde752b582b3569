"""Orders, shares and splits, by what must hold of them whatever the seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.errors import InputError
from restain.training.sampling import choose_validation, draw_order, plan_epoch, shard, stable_order

SEEDS = st.lists(st.integers(0, 2**32), min_size=1, max_size=3)


@given(SEEDS, st.integers(1, 30), st.integers(0, 100))
def test_every_picture_comes_once_a_round(seed: list[int], length: int, count: int) -> None:
    order = draw_order(seed, length, count)
    assert len(order) == count
    for start in range(0, count, length):
        part = order[start : start + length].tolist()
        assert len(set(part)) == len(part) <= length
        assert set(part) <= set(range(length))


def test_orders_differ_between_epochs_and_rounds() -> None:
    first, second = draw_order([7, 0], 50, 100), draw_order([7, 1], 50, 100)
    assert (first[:50] != first[50:]).any()
    assert (first != second).any()
    assert (first == draw_order([7, 0], 50, 100)).all()
    assert (draw_order([7, 0], 50, 30) == first[:30]).all()


def test_orders_are_random() -> None:
    """Each picture is as often in the first half of an epoch as in the second."""
    firsts = np.zeros(20)
    for epoch in range(400):
        firsts[draw_order([3, epoch], 20, 10)] += 1
    assert np.abs(firsts - 200).max() < 4.5 * np.sqrt(400 / 4)


@given(SEEDS, st.integers(1, 40), st.integers(1, 200), st.floats(0, 1))
def test_the_share_of_blank_samples_is_met(seed: list[int], length: int, count: int, share: float) -> None:
    tissue, blank = np.arange(length), np.arange(length, length + 3)
    plan = plan_epoch(seed, length + 3, count, blank_share=share, tissue=tissue, blank=blank)
    blanks = int(plan.blank.sum())
    assert share * count - 1 < blanks < share * count + 1
    assert set(plan.pictures[plan.blank == 1].tolist()) <= set(blank.tolist())
    shown = Counter(plan.pictures[plan.blank == 0].tolist())
    assert set(shown) <= set(tissue.tolist())
    if shown:
        assert max(shown.values()) - min(shown[i] for i in tissue.tolist()) <= 1


def test_a_small_share_of_a_short_epoch_comes_in_the_long_run() -> None:
    both = np.arange(4)
    plans = [plan_epoch([0, e], 4, 4, blank_share=0.05, tissue=both, blank=both) for e in range(1000)]
    assert abs(sum(int(plan.blank.sum()) for plan in plans) - 200) < 4 * np.sqrt(1000 * 0.2 * 0.8)


def test_without_a_share_crops_are_what_they_are() -> None:
    plan = plan_epoch([0, 0], 5, 12)
    assert (plan.blank == -1).all()
    assert Counter(plan.pictures[:10].tolist()) == dict.fromkeys(range(5), 2)


@given(st.integers(0, 9), st.integers(1, 6), st.integers(1, 8))
def test_processes_share_a_batch(batch: int, part: int, world: int) -> None:
    size = part * world
    together = [index for rank in range(world) for index in shard(batch, size, rank, world)]
    assert together == list(range(batch * size, (batch + 1) * size))
    assert {len(shard(batch, size, rank, world)) for rank in range(world)} == {part}


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 3"):
        shard(0, 4, 0, 3)
    with pytest.raises(InputError, match="rank 2 of 2"):
        shard(0, 4, 2, 2)


GROUPS = st.lists(st.sampled_from([f"slide {i}" for i in range(12)]), min_size=2, max_size=60)


@given(GROUPS, st.floats(0.01, 0.9), st.integers(0, 1000))
def test_a_split_keeps_some_and_leaves_some(groups: list[str], share: float, seed: int) -> None:
    chosen = choose_validation({"source": groups}, share, seed)
    sizes = Counter(groups)
    if len(sizes) < 2:
        assert not chosen
        return
    assert 0 < len(chosen) < len(sizes)
    held = sum(sizes[name] for name in chosen)
    # No more than one group too many, and half of one: the last taken, which is at most the largest.
    assert held <= max(share * len(groups) + max(sizes.values()) / 2, max(sizes.values()))


@given(GROUPS, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order_of_files(groups: list[str], seed: int, random: object) -> None:
    shuffled = list(groups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_validation({"a": groups}, 0.3, seed) == choose_validation({"a": shuffled}, 0.3, seed)


def test_the_share_is_met_where_each_file_is_on_its_own() -> None:
    files = [f"tile {i}" for i in range(200)]
    for share in (0.05, 0.1, 0.5):
        assert len(choose_validation({"source": files}, share, 0)) == 200 * share
    assert not choose_validation({"source": files}, 0.0, 0)
    assert choose_validation({"source": files}, 0.1, 0) != choose_validation({"source": files}, 0.1, 1)


def test_both_lists_get_their_share() -> None:
    groups = {"source": [f"a{i}" for i in range(100)], "target": [f"b{i}" for i in range(10)]}
    chosen = choose_validation(groups, 0.1, 0)
    assert sum(name.startswith("a") for name in chosen) == 10
    assert sum(name.startswith("b") for name in chosen) == 1


def test_a_stable_order_is_not_moved_by_newcomers() -> None:
    names = [f"n{i}" for i in range(20)]
    order = [names[i] for i in stable_order(names, 3)]
    assert order != names
    assert sorted(order) == sorted(names)
    more = ["x", *names[::-1], "y"]
    assert [name for name in (more[i] for i in stable_order(more, 3)) if name in names] == order
