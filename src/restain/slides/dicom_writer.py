"""DICOM whole-slide images: a folder with one instance a level, tiles as they come as frames (TILED_FULL).

Standard: DICOM PS3.3 A.32.8, VL Whole Slide Microscopy Image. pydicom writes everything before the pixels; frames are
appended as they arrive, so that memory does not grow with the slide, and what is known only at the end (where each
frame begins, how well it was compressed) is written into places kept for it.

Patient, study and accession are empty, as are all dates but that of writing.
"""

import importlib.util
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from restain.errors import MissingExtraError, OutputError
from restain.slides.codecs import PyramidSettings, compress
from restain.slides.formats import Travelling
from restain.slides.icc import srgb_profile

SYNTAXES = {
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg2000": "1.2.840.10008.1.2.4.91",
    "jpeg2000 lossless": "1.2.840.10008.1.2.4.90",
    "none": "1.2.840.10008.1.2.1",
}
PHOTOMETRIC = {"jpeg": "YBR_FULL_422", "jpeg2000": "YBR_ICT", "jpeg2000 lossless": "YBR_RCT", "none": "RGB"}
LOSSY = {"jpeg": "ISO_10918_1", "jpeg2000": "ISO_15444_1"}
"""Names of compressions that lose something (PS3.3 C.7.6.1.1.5.1)."""

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
RATIO = "1.00000000000000"
"""Holds the place of the compression ratio until it is known; 16 characters, as long as a decimal string may be."""
LARGEST_NATIVE = 2**32 - 2
"""Bytes of pixels that are not compressed, as their length is written in 32 bits."""
LARGEST_COMMENT = 10_240


def check_dicom(settings: PyramidSettings, size: tuple[int, int], mpp: tuple[float, float] | None) -> None:
    """Raise what `write_dicom` would raise, before anything is done."""
    if importlib.util.find_spec("pydicom") is None:
        raise MissingExtraError("writing DICOM needs pydicom, which is not installed: pip install 'restain[dicom]'")
    if mpp is None:
        raise OutputError("DICOM must state the resolution, and this slide has none; write another format")
    side = settings.tile
    count = 3 * side**2 * -(-size[0] // side) * -(-size[1] // side)
    if settings.codec == "none" and count > LARGEST_NATIVE:
        raise OutputError(f"DICOM cannot hold {count} bytes of pixels uncompressed; compress them")


def write_dicom(
    folder: Path, levels: Iterable[tuple[int, int, Iterator[bytes]]], settings: PyramidSettings, travelling: Travelling
) -> None:
    """Write levels, from `stream_levels`, into an empty folder. Missing tiles become white: every frame must be there.

    Raises:
        OutputError: the resolution is unknown, which DICOM must state, or a level is too large to be left uncompressed.
        MissingExtraError: pydicom is not installed.
    """
    check_dicom(settings, travelling.size, travelling.mpp)
    series, side = _Series(settings, travelling), settings.tile
    for level, (width, height, tiles) in enumerate(levels):
        kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"]
        series.write(folder / f"level-{level}.dcm", (width, height), (side, side), tiles, kind, 2**level)
    for name, pixels in travelling.associated.items():
        height, width = pixels.shape[:2]
        kind = ["DERIVED", "PRIMARY", "LABEL" if name == "label" else "OVERVIEW", "NONE"]
        whole = compress(np.ascontiguousarray(pixels), settings)
        series.write(folder / f"{name}.dcm", (width, height), (width, height), iter([whole]), kind, 1)


class _Series:
    """What the instances of one slide share."""

    def __init__(self, settings: PyramidSettings, travelling: Travelling) -> None:
        from pydicom.uid import generate_uid

        self._settings = settings
        self._travelling = travelling
        self._codec = settings.codec
        if self._codec == "jpeg2000" and settings.quality == 100:
            self._codec = "jpeg2000 lossless"
        self._mpp = travelling.mpp or (1.0, 1.0)  # `check_dicom` has made sure
        self._uids = {
            name: generate_uid()
            for name in ("study", "series", "frame of reference", "pyramid", "dimensions", "specimen")
        }
        self._now = datetime.now(UTC)
        self._count = 0
        self._white: bytes | None = None

    def write(
        self,
        path: Path,
        size: tuple[int, int],
        tile: tuple[int, int],
        tiles: Iterator[bytes],
        kind: list[str],
        scale: int,
    ) -> None:
        """Write one instance from its tiles in reading order; each pixel is `scale`² of the full resolution."""
        from pydicom.filewriter import dcmwrite

        self._count += 1
        frames = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
        with path.open("w+b") as stream:
            dcmwrite(stream, self._dataset(size, tile, frames, kind, scale), enforce_file_format=True)
            tiles = (data or self._white_tile() for data in tiles)
            if self._codec == "none":
                _write_native(stream, tiles, 3 * tile[0] * tile[1] * frames)
            else:
                written = _write_frames(stream, tiles, frames)
                if self._codec in LOSSY:
                    _write_ratio(stream, 3 * size[0] * size[1] / written)

    def _white_tile(self) -> bytes:
        if self._white is None:
            side = self._settings.tile
            self._white = compress(np.full((side, side, 3), 255, np.uint8), self._settings)
        return self._white

    def _dataset(self, size: tuple[int, int], tile: tuple[int, int], frames: int, kind: list[str], scale: int) -> Any:
        """Everything but the pixels."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.sequence import Sequence
        from pydicom.uid import UID, generate_uid

        known = self._travelling
        of_tissue = kind[2] == "VOLUME"
        data = Dataset()
        data.SOPClassUID = WHOLE_SLIDE
        data.SOPInstanceUID = generate_uid()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = UID(WHOLE_SLIDE)
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.file_meta.TransferSyntaxUID = UID(SYNTAXES[self._codec])
        # Patient and study: whoever imports the slide knows them, and nobody else may.
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
                        "StudyTime", "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
            setattr(data, keyword, "")
        data.StudyInstanceUID = self._uids["study"]
        data.Modality = "SM"
        data.SeriesInstanceUID = self._uids["series"]
        data.SeriesNumber = 1
        data.FrameOfReferenceUID = self._uids["frame of reference"]
        data.PositionReferenceIndicator = "SLIDE_CORNER"
        data.Manufacturer = data.ManufacturerModelName = "restain"
        data.DeviceSerialNumber = "none"
        data.SoftwareVersions = known.software
        data.InstanceNumber = self._count
        data.ContentDate, data.ContentTime = self._now.strftime("%Y%m%d"), self._now.strftime("%H%M%S")
        data.AcquisitionDateTime = self._now.strftime("%Y%m%d%H%M%S")  # must be there; of writing, not of scanning
        data.AcquisitionContextSequence = Sequence()
        data.ImageType = kind
        data.DerivationDescription = f"Stain normalization by {known.software}"
        if of_tissue and 0 < len(known.description) <= LARGEST_COMMENT:
            data.ImageComments = known.description
        self._describe_pixels(data, tile, frames)
        self._describe_matrix(data, size, kind, scale)
        self._describe_optics(data, of_tissue)
        self._describe_specimen(data)
        return data

    def _describe_pixels(self, data: Any, tile: tuple[int, int], frames: int) -> None:
        data.SamplesPerPixel = 3
        data.PhotometricInterpretation = PHOTOMETRIC[self._codec]
        data.PlanarConfiguration = 0
        data.NumberOfFrames = frames
        data.Columns, data.Rows = tile
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        data.PixelRepresentation = 0
        # Once lossy, always lossy (PS3.3 C.7.6.1.1.5), and nearly all scanners' own files are: so it is said however
        # this file is compressed. Ratio and method must then be there; those of the source are not known, and 1 is the
        # least that a ratio can be.
        data.LossyImageCompression = "01"
        data.LossyImageCompressionRatio = RATIO if self._codec in LOSSY else "1"
        data.LossyImageCompressionMethod = LOSSY.get(self._codec, "UNKNOWN")

    def _describe_matrix(self, data: Any, size: tuple[int, int], kind: list[str], scale: int) -> None:
        """Where the frames lie: the pixel matrix, and the plane of the slide that it covers, in millimetres."""
        of_tissue = kind[2] == "VOLUME"
        groups = {
            "WholeSlideMicroscopyImageFrameTypeSequence": [_item(FrameType=kind)],
            "OpticalPathIdentificationSequence": [_item(OpticalPathIdentifier="1")],
        }
        groups["PixelMeasuresSequence"] = [_item()]  # must be there, if empty
        if of_tissue:  # how large what other cameras saw is, is not known
            # Exactly the level's scale: a last odd row or column of the level above was left out, not squeezed in.
            step_x, step_y = (step * scale / 1000 for step in self._mpp)
            data.ImagedVolumeWidth, data.ImagedVolumeHeight = size[0] * step_x, size[1] * step_y
            data.ImagedVolumeDepth = 1.0  # micrometres, unlike the two above
            spacing = [_decimal(step_y), _decimal(step_x)]
            groups["PixelMeasuresSequence"] = [_item(PixelSpacing=spacing, SliceThickness="0.001")]
            data.PyramidUID = self._uids["pyramid"]
        data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = size
        data.TotalPixelMatrixFocalPlanes = 1
        data.TotalPixelMatrixOriginSequence = [
            _item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)
        ]
        data.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
        data.VolumetricProperties = "VOLUME"
        # Pictures of the whole slide show its label, with what is written on it.
        data.SpecimenLabelInImage = data.BurnedInAnnotation = "NO" if of_tissue else "YES"
        if kind[2] == "LABEL":  # must be there, and was not read
            data.BarcodeValue = data.LabelText = ""
        data.FocusMethod = "AUTO"
        data.ExtendedDepthOfField = "NO"
        data.DimensionOrganizationType = "TILED_FULL"
        data.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=self._uids["dimensions"])]
        data.SharedFunctionalGroupsSequence = [_item(**groups)]

    def _describe_optics(self, data: Any, of_tissue: bool) -> None:
        path = _item(
            OpticalPathIdentifier="1",
            IlluminationTypeCodeSequence=[_code("111744", "DCM", "Brightfield illumination")],
            IlluminationColorCodeSequence=[_code("414298005", "SCT", "Full Spectrum")],
        )
        # Label and macro are another camera's, of whose colours and optics nothing is known; sRGB is what is assumed.
        profile = self._travelling.icc_profile if of_tissue else srgb_profile()
        if profile is not None:
            path.ICCProfile = profile + bytes(len(profile) % 2)
        if of_tissue and self._travelling.objective_power is not None:
            path.ObjectiveLensPower = _decimal(self._travelling.objective_power)
        data.NumberOfOpticalPaths = 1
        data.OpticalPathSequence = [path]

    def _describe_specimen(self, data: Any) -> None:
        """Required, and not known: identifiers that name nobody."""
        data.ContainerIdentifier = "UNKNOWN"
        data.IssuerOfTheContainerIdentifierSequence = []
        data.ContainerTypeCodeSequence = [_code("433466003", "SCT", "Microscope slide")]
        data.SpecimenDescriptionSequence = [
            _item(
                SpecimenIdentifier="UNKNOWN",
                SpecimenUID=self._uids["specimen"],
                IssuerOfTheSpecimenIdentifierSequence=[],
                SpecimenPreparationSequence=[],
            )
        ]


def _item(**values: Any) -> Any:
    """An item of a sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Any:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _decimal(value: float) -> str:
    """A decimal string, at most 16 characters, as many digits as these hold."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def _write_native(stream: IO[bytes], tiles: Iterator[bytes], count: int) -> None:
    stream.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, count + count % 2))
    for tile in tiles:
        stream.write(tile)
    stream.write(bytes(count % 2))


def _write_frames(stream: IO[bytes], tiles: Iterator[bytes], frames: int) -> int:
    """Append encapsulated frames with the extended table of their offsets (PS3.5 A.4); returns the bytes in all."""
    tables = []
    for element in (0x0001, 0x0002):  # ExtendedOffsetTable, ExtendedOffsetTableLengths
        stream.write(struct.pack("<HH2sHI", 0x7FE0, element, b"OV", 0, 8 * frames))
        tables.append(stream.tell())
        stream.write(bytes(8 * frames))
    stream.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    stream.write(struct.pack("<HHI", 0xFFFE, 0xE000, 0))  # an empty basic offset table: its 32 bits may be too few
    begin = stream.tell()
    offsets, lengths = [], []
    for tile in tiles:
        tile += bytes(len(tile) % 2)
        offsets.append(stream.tell() - begin)
        lengths.append(len(tile))
        stream.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(tile)))
        stream.write(tile)
    stream.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    for place, numbers in zip(tables, (offsets, lengths), strict=True):
        stream.seek(place)
        stream.write(struct.pack(f"<{frames}Q", *numbers))
    return sum(lengths)


def _write_ratio(stream: IO[bytes], ratio: float) -> None:
    """Put the compression ratio where `RATIO` holds its place."""
    stream.seek(0)
    head = stream.read(1_000_000)
    tag = struct.pack("<HH2sH", 0x0028, 0x2112, b"DS", len(RATIO)) + RATIO.encode()
    stream.seek(head.index(tag) + 8)
    stream.write(f"{ratio:<{len(RATIO)}.8g}".encode())
