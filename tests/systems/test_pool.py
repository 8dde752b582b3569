"""The image pool: what it gives back, how often, and that it goes on where it was."""

import math

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.systems.pool import ImagePool  # noqa: E402


def numbered(*numbers: int) -> Tensor:
    """Images that can be told apart."""
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def asked(pool: ImagePool, number: int) -> int:
    """The number of the image that comes back."""
    returned = pool.query(numbered(number))
    assert returned.shape == (1, 3, 2, 2)
    assert (returned == returned[0, 0, 0, 0]).all()
    return int(returned[0, 0, 0, 0])


def test_until_it_is_full_images_come_back_as_they_are() -> None:
    pool = ImagePool(5)
    assert [asked(pool, number) for number in range(5)] == [0, 1, 2, 3, 4]
    assert [int(image[0, 0, 0]) for image in pool.images] == [0, 1, 2, 3, 4]


def test_half_of_the_time_a_stored_one_comes_back_and_is_replaced() -> None:
    pool, size, times = ImagePool(10, seed=3), 10, 4000
    held = list(range(size))
    for number in held:
        asked(pool, number)
    old, places = 0, [0] * size
    for number in range(size, size + times):
        back = asked(pool, number)
        if back != number:
            old += 1
            place = held.index(back)  # an image comes back once: it has left the pool
            places[place] += 1
            held[place] = number
        assert [int(image[0, 0, 0]) for image in pool.images] == held
    # Within five standard deviations of what fair draws give.
    assert abs(old - times / 2) < 5 * math.sqrt(times / 4)
    assert all(abs(count - old / size) < 5 * math.sqrt(old / size) for count in places)


def test_each_image_of_a_batch_is_exchanged_by_itself() -> None:
    pool = ImagePool(3, seed=0)
    first = pool.query(numbered(0, 1, 2, 3, 4))
    assert first[:3, 0, 0, 0].tolist() == [0, 1, 2]
    later = torch.cat([first[3:], *(pool.query(numbered(number, number + 1)) for number in range(5, 45, 2))])
    returned = later[:, 0, 0, 0].tolist()
    assert sorted({*returned, *(int(image[0, 0, 0]) for image in pool.images)} | {0, 1, 2}) == list(range(45))


def test_no_pool_gives_everything_back() -> None:
    pool = ImagePool(0)
    images = numbered(1, 2, 3).requires_grad_()
    back = pool.query(images)
    assert not back.requires_grad
    assert torch.equal(back, images)
    assert pool.images == []


def test_nothing_is_shared_with_the_images_given() -> None:
    """A fake that is changed in place later is not what the pool holds; no graph is kept alive."""
    pool = ImagePool(1, seed=0)
    fake = (numbered(1).requires_grad_() * 2).squeeze(0)[None]
    assert not pool.query(fake).requires_grad
    assert not pool.images[0].requires_grad
    fake.detach().fill_(9)
    assert int(pool.images[0][0, 0, 0]) == 2
    while int(pool.images[0][0, 0, 0]) == 2:  # nor when it takes a stored one's place
        fake = numbered(3)
        pool.query(fake)
    fake.fill_(9)
    assert int(pool.images[0][0, 0, 0]) == 3


def test_going_on_from_a_state_gives_what_would_have_come() -> None:
    pool = ImagePool(4, seed=7)
    for number in range(20):
        asked(pool, number)
    state = pool.state_dict()
    wanted = [asked(pool, number) for number in range(20, 60)]
    for other in (ImagePool(4, seed=99), pool):  # the state is not what the pool goes on with: it can be used twice
        other.load_state_dict(state)
        assert [asked(other, number) for number in range(20, 60)] == wanted


def test_a_state_that_is_not_full_yet() -> None:
    pool = ImagePool(4)
    asked(pool, 0)
    other = ImagePool(4)
    other.load_state_dict(pool.state_dict())
    assert [asked(other, number) for number in (1, 2, 3)] == [1, 2, 3]
    assert len(other.images) == 4


def test_its_choices_are_its_own() -> None:
    """Other draws do not change them, nor do they change other draws; another seed chooses otherwise."""

    def sequence(seed: int, draws: int) -> list[int]:
        pool = ImagePool(3, seed=seed)
        result = []
        for number in range(40):
            torch.rand(draws)
            result.append(asked(pool, number))
        return result

    before = torch.get_rng_state()
    plain = sequence(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert sequence(0, 3) == plain
    assert sequence(1, 0) != plain


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InputError, match="size -1; wanted 0 or more"):
        ImagePool(-1)
