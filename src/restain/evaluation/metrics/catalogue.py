"""Every metric by name, and what one must know before comparing its numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from restain.evaluation.metrics.background import background_shift
from restain.evaluation.metrics.color_distributions import bhattacharyya, hellinger, nmi, nmi_cv, nmi_sd
from restain.evaluation.metrics.feature_similarity import fsim, fsimc
from restain.evaluation.metrics.fid import fid
from restain.evaluation.metrics.gradients import gradient_correlation
from restain.evaluation.metrics.multiscale import ms_ssim
from restain.evaluation.metrics.perceptual import lpips, random_feature_distance, squeeze_feature_distance
from restain.evaluation.metrics.pixel_errors import mse, pcc, psnr, rmse
from restain.evaluation.metrics.profiles import profile_difference
from restain.evaluation.metrics.quaternion import qssim
from restain.evaluation.metrics.remote_sensing import ergas, rase, scc, uqi
from restain.evaluation.metrics.seams import seam_score
from restain.evaluation.metrics.sewar import ergas_sewar, rase_sewar, uqi_sewar
from restain.evaluation.metrics.speed import fps
from restain.evaluation.metrics.stains import stain_angle
from restain.evaluation.metrics.structural import ssim, ssim_stretched
from restain.evaluation.metrics.stst import ms_ssim_stst, ssim_volume, stst_image_distance
from restain.evaluation.metrics.tasks import (
    accuracy,
    auc,
    balanced_accuracy,
    dice,
    f1,
    iou,
    pixel_accuracy,
    precision,
    recall,
)

Takes = Literal["pair", "image", "cohort", "cohorts", "function", "labels", "masks"]
"""What a metric is called with: (reference, image), (image), (images), (references, images), (function, batch),
(labels, predictions) or (reference mask, mask)."""

Against = Literal["source", "target", "cohort", "self", "truth", "nothing"]
"""What it may be compared with: the source, the registered target, the wanted cohort (any images of the wanted look),
the image itself before it was taken apart, a pathologist's labels, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric and what one must know of it.

    Attributes:
        function: the metric; its docstring says exactly what is computed.
        higher_is_better: None where neither way is.
        takes: what it is called with; see `Takes`.
        against: what the reference may be; see `Against`.
        wants: colour space, type, range and window of what it is computed on.
        values: the range of its values, worst to best where there is a best.
        summary: what it says, in a sentence.
        paper: where it comes from.
        takes_mask: whether it has an argument `mask`.
        legacy: whether it reproduces a published error, and says nothing but "as they computed it".
    """

    function: Callable[..., Any]
    higher_is_better: bool | None
    takes: Takes
    against: tuple[Against, ...]
    wants: str
    values: str
    summary: str
    paper: str
    takes_mask: bool = False
    legacy: bool = False


PAIRED: tuple[Against, ...] = ("source", "target", "self")
WINDOW = "11 × 11 Gaussian, σ 1.5"
WANG = "Wang et al. 2004"

METRICS: dict[str, Metric] = {
    # ---- structure --------------------------------------------------------------------------------------------------
    "ssim": Metric(
        function=ssim,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants=f"RGB or gray, uint8, 0..255; {WINDOW}, whole windows",
        values="-1 to 1",
        summary="Local means, contrast and structure agree.",
        paper=WANG,
        takes_mask=True,
    ),
    "ssim_stretched": Metric(
        function=ssim_stretched,
        higher_is_better=True,
        takes="pair",
        against=("source",),
        wants=f"8-bit gray, each image stretched to 0..255; {WINDOW}",
        values="-1 to 1",
        summary="Structure agrees, up to any change of brightness and contrast: StainNet's SSIM Source.",
        paper="Kang et al. 2021",
        takes_mask=True,
    ),
    "ms_ssim": Metric(
        function=ms_ssim,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants=f"gray (or RGB apart), uint8, 0..255, sides of 176 or more; {WINDOW} at five scales",
        values="0 to 1",
        summary="Structure agrees at five scales, luminance at the coarsest.",
        paper="Wang, Simoncelli & Bovik 2003",
        takes_mask=True,
    ),
    "ssim_volume": Metric(
        function=ssim_volume,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB, uint8, 0..255; 11 × 11 × 11 Gaussian across channels, borders repeated",
        values="-1 to 1",
        summary="MATLAB's SSIM of a colour image, which it takes for a volume.",
        paper="Salehi & Chalechale 2020",
        legacy=True,
    ),
    "ms_ssim_stst": Metric(
        function=ms_ssim_stst,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants=f"8-bit gray, sides of 176 or more; {WINDOW} at four scales",
        values="0 to 1",
        summary="STST's MS-SSIM: luminance at the finest scale, four of five weights.",
        paper="Salehi & Chalechale 2020",
        legacy=True,
    ),
    "fsim": Metric(
        function=fsim,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="gray, 0..255; shrunk to a side of about 256",
        values="0 to 1",
        summary="Phase congruency and gradients agree where there are edges.",
        paper="Zhang et al. 2011",
    ),
    "fsimc": Metric(
        function=fsimc,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB as YIQ, 0..255; shrunk to a side of about 256",
        values="0 to 1",
        summary="FSIM with a little weight on chroma.",
        paper="Zhang et al. 2011",
    ),
    "qssim": Metric(
        function=qssim,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants=f"RGB, 0..1; {WINDOW}, whole windows",
        values="0 to 1",
        summary="SSIM of colours as whole vectors (quaternions), without a sign.",
        paper="Kolaman & Yadid-Pecht 2012",
        takes_mask=True,
    ),
    "gradient_correlation": Metric(
        function=gradient_correlation,
        higher_is_better=True,
        takes="pair",
        against=("source", "target"),
        wants="gray, 0..255; Sobel 3 × 3",
        values="-1 to 1",
        summary="Edges stayed where they were; falls where texture is invented or erased.",
        paper="restain",
        takes_mask=True,
    ),
    # ---- pixels -----------------------------------------------------------------------------------------------------
    "mse": Metric(
        function=mse,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB or gray, 0..255",
        values="65025 to 0",
        summary="Mean squared difference of levels.",
        paper="-",
        takes_mask=True,
    ),
    "rmse": Metric(
        function=rmse,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB or gray, 0..255",
        values="255 to 0",
        summary="Its root, in levels.",
        paper="-",
        takes_mask=True,
    ),
    "psnr": Metric(
        function=psnr,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB (one MSE of all channels) or gray, 0..255",
        values="0 to infinity, dB",
        summary="The same in decibels; infinite for equal images.",
        paper="-",
        takes_mask=True,
    ),
    "pcc": Metric(
        function=pcc,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="all RGB values together, or gray",
        values="-1 to 1",
        summary="Linear correlation of pixel values, blind to brightness and contrast.",
        paper="Pearson 1895",
        takes_mask=True,
    ),
    # ---- from remote sensing ----------------------------------------------------------------------------------------
    "scc": Metric(
        function=scc,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB or gray, Laplacian of centre 8; 8 × 8 windows",
        values="-1 to 1",
        summary="Fine edges agree locally; a pixel of misregistration ruins it.",
        paper="Zhou, Civco & Silander 1998",
        takes_mask=True,
    ),
    "ergas": Metric(
        function=ergas,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, any range; whole image, h/l = 1/4",
        values="infinity to 0",
        summary="Errors of channels relative to their means.",
        paper="Wald 2002",
        takes_mask=True,
    ),
    "rase": Metric(
        function=rase,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, any range; whole image",
        values="infinity to 0, %",
        summary="Error relative to the mean over channels.",
        paper="Ranchin & Wald 2000",
        takes_mask=True,
    ),
    "uqi": Metric(
        function=uqi,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB or gray, any range; 8 × 8 windows",
        values="-1 to 1",
        summary="SSIM without its constants: unstable on flat glass.",
        paper="Wang & Bovik 2002",
        takes_mask=True,
    ),
    "ergas_sewar": Metric(
        function=ergas_sewar,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, 0..255; 8 × 8 windows",
        values="infinity to 0",
        summary="ERGAS as sewar ≤ 0.4.5 has it: some 1774 times too large.",
        paper="sewar; Salehi & Chalechale 2020",
        legacy=True,
    ),
    "rase_sewar": Metric(
        function=rase_sewar,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, 0..255; 8 × 8 windows",
        values="infinity to 0",
        summary="RASE as sewar has it: 64 times too large.",
        paper="sewar; Salehi & Chalechale 2020",
        legacy=True,
    ),
    "uqi_sewar": Metric(
        function=uqi_sewar,
        higher_is_better=True,
        takes="pair",
        against=PAIRED,
        wants="RGB or gray, 0..255; 8 × 8 windows",
        values="-1 to 1",
        summary="UQI as sewar ≤ 0.4.5 has it: unrelated images score some 0.7.",
        paper="sewar; Salehi & Chalechale 2020",
        legacy=True,
    ),
    # ---- colours and stains -----------------------------------------------------------------------------------------
    "bhattacharyya": Metric(
        function=bhattacharyya,
        higher_is_better=False,
        takes="pair",
        against=("target", "cohort"),
        wants="RGB, 256 bins a channel; sizes may differ",
        values="infinity to 0",
        summary="Colour histograms agree, wherever the colours are.",
        paper="Bhattacharyya 1943",
    ),
    "hellinger": Metric(
        function=hellinger,
        higher_is_better=False,
        takes="pair",
        against=("target", "cohort"),
        wants="RGB, 256 bins a channel; sizes may differ",
        values="1 to 0",
        summary="The same, bounded; OpenCV calls it Bhattacharyya.",
        paper="Hellinger 1909",
    ),
    "nmi": Metric(
        function=nmi,
        higher_is_better=None,
        takes="image",
        against=("nothing",),
        wants="RGB, tissue only",
        values="0..1",
        summary="Normalised median intensity of the tissue; see nmi_cv. Not mutual information.",
        paper="Basavanhally & Madabhushi 2013",
        takes_mask=True,
    ),
    "nmi_sd": Metric(
        function=nmi_sd,
        higher_is_better=False,
        takes="cohort",
        against=("nothing",),
        wants="RGB images, or values of nmi",
        values="0.5 to 0",
        summary="Spread of nmi over images.",
        paper="Basavanhally & Madabhushi 2013",
    ),
    "nmi_cv": Metric(
        function=nmi_cv,
        higher_is_better=False,
        takes="cohort",
        against=("nothing",),
        wants="RGB images, or values of nmi",
        values="infinity to 0",
        summary="Its spread over its mean: how alike images are stained. One picture for all wins.",
        paper="Basavanhally & Madabhushi 2013",
    ),
    "stain_angle": Metric(
        function=stain_angle,
        higher_is_better=False,
        takes="pair",
        against=("target", "cohort"),
        wants="RGB; optical density against each image's white point; sizes may differ",
        values="90 to 0, degrees",
        summary="Angle between the stain vectors of two images, mean of hematoxylin and eosin.",
        paper="restain; vectors by Macenko et al. 2009",
        takes_mask=True,
    ),
    "stst_image_distance": Metric(
        function=stst_image_distance,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB; fixed stain vectors, one stain painted and stretched to 0..1; 256 × 256",
        values="infinity to 0",
        summary="STST's 'stain-vector distance': a norm of an image difference, growing with image size.",
        paper="Salehi & Chalechale 2020",
        legacy=True,
    ),
    "background_shift": Metric(
        function=background_shift,
        higher_is_better=False,
        takes="pair",
        against=("source",),
        wants="RGB, 0..255; glass of the source",
        values="255 to 0, levels",
        summary="How far the colour of the glass moved, or lies from the wanted one.",
        paper="restain",
        takes_mask=True,
    ),
    "seam_score": Metric(
        function=seam_score,
        higher_is_better=False,
        takes="pair",
        against=("source",),
        wants="RGB or gray, larger than one tile",
        values="infinity to 1",
        summary="Steps across tile borders over steps beside them, over the same of the source.",
        paper="restain",
    ),
    "profile_difference": Metric(
        function=profile_difference,
        higher_is_better=False,
        takes="pair",
        against=("source", "target"),
        wants="gray, 0..255; one line",
        values="255 to 0, levels",
        summary="Mean difference of gray-value profiles; rather draw them (gray_profile).",
        paper="Kang et al. 2021",
    ),
    # ---- features of networks ---------------------------------------------------------------------------------------
    "lpips": Metric(
        function=lpips,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, sides of 64 or more, one size throughout; AlexNet v0.1; weights by file",
        values="1 or more to 0",
        summary="Distance in learned features, as people judged photographs.",
        paper="Zhang et al. 2018",
        takes_mask=True,
    ),
    "squeeze_feature_distance": Metric(
        function=squeeze_feature_distance,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, sides of 64 or more; SqueezeNet 1.0, weights by file",
        values="2 to 0",
        summary="Distance in features of SqueezeNet 1.0, all alike in weight. Not LPIPS.",
        paper="restain",
        takes_mask=True,
    ),
    "random_feature_distance": Metric(
        function=random_feature_distance,
        higher_is_better=False,
        takes="pair",
        against=PAIRED,
        wants="RGB, sides of 64 or more; SqueezeNet 1.1 of fixed random weights",
        values="2 to 0",
        summary="Distance in random features, where no weights are at hand. Not LPIPS.",
        paper="restain",
        takes_mask=True,
    ),
    "fid": Metric(
        function=fid,
        higher_is_better=False,
        takes="cohorts",
        against=("cohort",),
        wants="RGB, 2048 images or more, equally many; Inception v3, weights by file",
        values="infinity to 0",
        summary="Two cohorts look alike as a whole.",
        paper="Heusel et al. 2017",
    ),
    # ---- speed ------------------------------------------------------------------------------------------------------
    "fps": Metric(
        function=fps,
        higher_is_better=True,
        takes="function",
        against=("nothing",),
        wants="a batch on the device that is timed",
        values="0 to infinity, images a second",
        summary="Throughput, the device waited for; returns a Speed that says size, precision and device.",
        paper="-",
    ),
    # ---- tasks ------------------------------------------------------------------------------------------------------
    "auc": Metric(
        function=auc,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="0/1 labels, scores (not decisions)",
        values="0 to 1",
        summary="The chance that a positive scores above a negative.",
        paper="Hanley & McNeil 1982",
    ),
    "accuracy": Metric(
        function=accuracy,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="labels, decisions",
        values="0 to 1",
        summary="Share of right decisions.",
        paper="-",
    ),
    "balanced_accuracy": Metric(
        function=balanced_accuracy,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="labels, decisions",
        values="0 to 1",
        summary="Mean recall of the classes; what StainNet's repository calls AUC.",
        paper="-",
    ),
    "precision": Metric(
        function=precision,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="labels, decisions; macro average",
        values="0 to 1",
        summary="Of what was called a class, the share that is.",
        paper="-",
    ),
    "recall": Metric(
        function=recall,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="labels, decisions; macro average",
        values="0 to 1",
        summary="Of a class, the share that was found.",
        paper="-",
    ),
    "f1": Metric(
        function=f1,
        higher_is_better=True,
        takes="labels",
        against=("truth",),
        wants="labels, decisions; macro average",
        values="0 to 1",
        summary="Harmonic mean of precision and recall.",
        paper="-",
    ),
    "dice": Metric(
        function=dice,
        higher_is_better=True,
        takes="masks",
        against=("truth",),
        wants="bool masks; mean over images",
        values="0 to 1",
        summary="Overlap of two masks over their mean size.",
        paper="Dice 1945",
    ),
    "iou": Metric(
        function=iou,
        higher_is_better=True,
        takes="masks",
        against=("truth",),
        wants="bool masks; mean over images",
        values="0 to 1",
        summary="Overlap of two masks over their union.",
        paper="Jaccard 1901",
    ),
    "pixel_accuracy": Metric(
        function=pixel_accuracy,
        higher_is_better=True,
        takes="masks",
        against=("truth",),
        wants="bool masks; mean over images",
        values="0 to 1",
        summary="Share of pixels on which two masks agree.",
        paper="-",
    ),
}
"""Every metric by its name in suites, tables and on the command line."""
