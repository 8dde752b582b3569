"""How a pair is registered: every number that decides something, with its reason."""

from dataclasses import dataclass

from restain.errors import InputError


@dataclass(frozen=True)
class RegistrationSettings:
    """How two pictures are laid over each other, and when the result is believed.

    Lengths are pixels of the source. The defaults were chosen on planted warps of real tiles under changed colours
    and on scanner pairs; `benchmarks/registration.py` prints the errors that they give.
    """

    contrast_radius: float = 8.0
    """Sigma of the window in which gray is brought to mean 0 and deviation 1, about a nucleus: stains, scanners and
    shading then drop out, edges stay."""

    flow_rounds: int = 3
    """How often flow is measured on what the last round left over; 0 keeps the affine map. The second round helps most,
    a fourth hardly."""

    flow_window: int = 21
    """Side of the window in which Farneback's flow is averaged: wider is steadier, narrower follows sharper bends."""

    flow_smoothing: float = 5.0
    """Sigma by which flow is smoothed after each round: optics and stitching bend smoothly, noise does not."""

    border: int = 16
    """Width of the masked margin, at the edges of the source and of what the target covers, where flow sees only a part
    of its window: within 8 px of an edge one pixel in a hundred was wrong by 1 px, beyond 16 px by less than 0.5."""

    tolerance: float = 1.5
    """How far a pixel may land from where it started, there and back, to count as consistent."""

    most_inconsistent: float = 0.2
    """Largest share of inconsistent pixels. Pairs of two scanners stay well below it; mismatched ones are above."""

    least_correlation: float = 0.4
    """Smallest correlation of local contrast. Pairs of two scanners are above it even where one is out of focus; of
    mismatched pairs, flow brings no more than a part of the way."""

    least_covered: float = 0.2
    """Smallest share of the source's pixels that the mask keeps: less says little about the rest."""

    def __post_init__(self) -> None:
        wanted = {
            "contrast_radius": self.contrast_radius >= 1,
            "flow_rounds": self.flow_rounds >= 0,
            "flow_window": self.flow_window >= 3,
            "flow_smoothing": self.flow_smoothing >= 0,
            "border": self.border >= 0,
            "tolerance": self.tolerance > 0,
            "most_inconsistent": 0 <= self.most_inconsistent <= 1,
            "least_correlation": -1 <= self.least_correlation <= 1,
            "least_covered": 0 <= self.least_covered <= 1,
        }
        for name, fine in wanted.items():
            if not fine:
                raise InputError(
                    f"got {name}={getattr(self, name)}; wanted contrast_radius >= 1, flow_window >= 3, tolerance > 0, "
                    "flow_rounds, flow_smoothing and border >= 0, and shares and correlations up to 1"
                )
