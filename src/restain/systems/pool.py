"""A pool of past fakes, which keeps a discriminator from forgetting what the generator did before (PAPERS: size 50)."""

from typing import Any

import torch
from torch import Tensor

from restain.errors import InputError


class ImagePool:
    """Shrivastava et al. 2017, as CycleGAN uses it: discriminators see a mixture of new and earlier fakes.

    Until the pool is full, each new image is stored and returned. From then on, with probability ½, a random stored
    image is returned and replaced by the new one; else the new one is returned.

    Args:
        size: images held; 0 returns every image as it comes.
        seed: of its own random numbers, so that other draws do not change its choices.
    """

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        if size < 0:
            raise InputError(f"got a pool of size {size}; wanted 0 or more")
        self.size = size
        self.images: list[Tensor] = []
        self._random = torch.Generator().manual_seed(seed)

    def query(self, images: Tensor) -> Tensor:
        """Exchange a batch (N, C, H, W): one of the same shape, detached."""
        if not self.size:
            return images.detach()
        return torch.stack([self._exchange(image) for image in images.detach()])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if float(torch.rand((), generator=self._random)) < 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=self._random))
        stored, self.images[index] = self.images[index], image.clone()
        return stored

    def state_dict(self) -> dict[str, Any]:
        """All that the next `query` depends on."""
        return {"images": list(self.images), "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Go on from a `state_dict`, with the images on `device`."""
        self.images = [image.to(device) for image in state["images"]]
        self._random.set_state(state["random"].cpu())
