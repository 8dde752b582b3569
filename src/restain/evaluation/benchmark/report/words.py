"""What metrics are called on the page, and what one must know before setting a number beside a published one."""

from dataclasses import dataclass

from restain.evaluation.metrics import METRICS, SUITES
from restain.evaluation.metrics.suites import Entry

NAMES = {
    "ssim": "SSIM",
    "ssim_stretched": "SSIM, both stretched",
    "ms_ssim": "MS-SSIM",
    "ssim_volume": "SSIM of a volume",
    "ms_ssim_stst": "MS-SSIM as STST",
    "fsim": "FSIM",
    "fsimc": "FSIMc",
    "qssim": "QSSIM",
    "gradient_correlation": "gradient correlation",
    "mse": "MSE",
    "rmse": "RMSE",
    "psnr": "PSNR",
    "pcc": "Pearson correlation",
    "scc": "spatial correlation",
    "ergas": "ERGAS",
    "rase": "RASE",
    "uqi": "UQI",
    "ergas_sewar": "ERGAS as sewar",
    "rase_sewar": "RASE as sewar",
    "uqi_sewar": "UQI as sewar",
    "bhattacharyya": "Bhattacharyya distance",
    "hellinger": "Hellinger distance",
    "nmi": "normalised median intensity",
    "nmi_sd": "NMI, sd over images",
    "nmi_cv": "NMI, variation over images",
    "stain_angle": "stain-vector angle",
    "stst_image_distance": "STST image distance",
    "background_shift": "background shift",
    "seam_score": "seam score",
    "profile_difference": "profile difference",
    "lpips": "LPIPS",
    "squeeze_feature_distance": "SqueezeNet feature distance",
    "random_feature_distance": "random feature distance",
    "fid": "FID",
}

_SUMMARIES = {
    "rmse": "Root of the mean squared difference of levels.",
    "psnr": "Mean squared difference in decibels; infinite for equal images.",
    "hellinger": "Colour histograms agree, wherever the colours are.",
    "nmi_sd": "How alike images are stained. One picture for all would win.",
    "nmi_cv": "How alike images are stained: spread over mean. One picture for all would win.",
}
"""Where the catalogue's sentence leans on the line above it."""

UNITS = {"psnr": "dB", "rase": "%", "stain_angle": "°", "background_shift": "levels", "rmse": "levels"}

AGAINST = {"source": "to the source", "target": "to the target", "none": "of the output alone"}

SUITE_TITLES = {
    "stainnet": "StainNet’s table (Kang et al. 2021)",
    "dstgan": "DSTGAN’s table (Du et al. 2025)",
    "stst": "STST’s table (Salehi & Chalechale 2020)",
    "toolkit": "restain’s own",
}

SUITE_NOTES = {
    "stainnet": "As the paper’s script computes it. Its pairs were registered another way and its reference was picked "
    "by hand, so its figures on MITOS (SSIM to the target .617 for Reinhard to .706 for StainGAN) cannot be set beside "
    "these; methods on this page can be compared with each other.",
    "dstgan": "All three compare the output with its own source. Doing nothing scores 1, 1 and infinity, so the "
    "best number here may belong to the method that normalizes least: this suite cannot say whether normalization "
    "helped. The paper’s reference images for BACH and GlaS are not listed anywhere.",
    "stst": "First what the paper’s scripts compute, then what the names mean. Figures of the first kind can be "
    "compared with the paper’s Tables I and II alone, those of the second kind with nothing in them.",
    "toolkit": "Is the tissue still there, is the glass what it should be, are images alike, does it look like the "
    "target?",
}

_PUBLISHED = {
    (
        "ssim_stretched",
        "source",
    ): "StainNet’s “SSIM Source”: its script stretches both images to 0..255 first, which the "
    "paper does not say. A faded output (0.6·g + 80) scores 1.00 where plain SSIM gives 0.92 (phantom tissue): it is "
    "blind to lost contrast. The toolkit suite has the plain one.",
    ("fid", "target"): "Too high for few images (it wants 2048 or more), and papers differ in their number and in the "
    "resize.",
    ("pcc", "target"): "All RGB values together, so much of it is that red is brighter than green; papers on gray have "
    "other numbers.",
    ("uqi", "target"): "STST’s UQI of .98 is sewar’s, which is another number.",
    ("ssim_volume", "target"): "MATLAB mixes the channels, as if they were slices: off SSIM a channel either way.",
    ("ms_ssim_stst", "target"): "Not Wang’s MS-SSIM, though the paper calls it so.",
    ("ergas_sewar", "target"): "The 2440 published for self-reconstruction is an ERGAS of about 1.4.",
    ("rase_sewar", "target"): "The 356 published for self-reconstruction is a RASE of about 5.6 %.",
    ("uqi_sewar", "target"): "A correct UQI of the same images is lower by far.",
    ("stst_image_distance", "target"): "Published as “stain-vector distance”, but it is no distance of vectors.",
    ("lpips", "target"): "Depends on the network (AlexNet here) and on the size of the images.",
    ("ergas", "target"): "Proportional to a made-up ratio of resolutions, here 1/4; packages differ by factors.",
    ("rase", "target"): "sewar’s and torchmetrics’ are 64 times this.",
}
"""What published numbers of that name mean instead."""

_ADVICE = {
    ("ssim", "target"): "Falls steeply with a pixel of misregistration, and two scanners differ in focus and noise: 1 "
    "is out of reach. Compare with the raw images.",
    ("ssim", "source"): "A wanted change of contrast lowers it too.",
    ("psnr", "target"): "Equal images are left out of the mean.",
    ("psnr", "source"): "Infinite where the gray did not change, and left out of the mean then.",
    ("nmi", "none"): "Only its spread over images says something.",
    ("gradient_correlation", "source"): "Blind to brightness and contrast.",
    (
        "background_shift",
        "source",
    ): "Wanted is the reference’s white where a method matches glass, else the source’s own. "
    "An image without glass has no number.",
    ("stain_angle", "target"): "On an image of few colours the estimate itself wanders by degrees.",
}


@dataclass(frozen=True)
class Words:
    """What to say of one line of a suite, plain text.

    Attributes:
        name: as in a sentence.
        unit: "" where there is none.
        against: "to the source", "to the target" or "of the output alone".
        summary: what it says.
        advice: how to read it.
        published: where published numbers of that name mean something else.
        legacy: whether it reproduces a published error.
    """

    name: str
    unit: str
    against: str
    summary: str
    advice: str
    published: str
    legacy: bool

    @property
    def title(self) -> str:
        """The name as a heading: a capital first letter."""
        return self.name[0].upper() + self.name[1:]

    @property
    def full(self) -> str:
        """Name and what it is computed against, as in a sentence."""
        return self.name if self.against == AGAINST["none"] else f"{self.name} {self.against}"

    @property
    def full_title(self) -> str:
        """The same as a heading."""
        return self.full[0].upper() + self.full[1:]


def entry_of(suite: str, label: str) -> Entry:
    """The suite's line."""
    return SUITES[suite][label]


def words_for(suite: str, label: str) -> Words:
    """What to say of a suite's line."""
    entry = entry_of(suite, label)
    metric = METRICS[entry.metric]
    name = NAMES.get(entry.metric, entry.metric)
    color = entry.options.get("color", "")
    if color.startswith("gray"):
        name += " of gray"
    if "stain" in entry.options:
        name += f", {entry.options['stain']}"
    return Words(
        name=name,
        unit=UNITS.get(entry.metric, ""),
        against=AGAINST[entry.against],
        summary=_SUMMARIES.get(entry.metric, metric.summary),
        advice=_ADVICE.get((entry.metric, entry.against), ""),
        published=_PUBLISHED.get((entry.metric, entry.against), ""),
        legacy=metric.legacy,
    )
