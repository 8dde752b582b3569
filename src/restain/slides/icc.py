"""The ICC profile that an output carries: the reference's, or sRGB where it has none."""

import functools

from PIL import ImageCms


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile as Little CMS makes it, without the date of its making, so that equal runs give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes(12)  # creation date and time (ICC.1, 7.2)
    data[84:100] = bytes(16)  # profile ID: a checksum, zero for "not computed"
    return bytes(data)
