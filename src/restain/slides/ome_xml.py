"""OME-XML of an OME-TIFF: one image of RGB pixels with its physical sizes, and further images behind it.

Schema: Open Microscopy Environment, OME-XML 2016-06. The order of elements is the schema's.
"""

import uuid
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from restain.slides.formats import Travelling

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome_xml(path: Path, travelling: Travelling) -> bytes:
    """The ImageDescription of an OME-TIFF, in UTF-8.

    TIFF wants ASCII, but Bio-Formats spoils numeric references: of `&#181;m` it makes a unit that it does not know, and
    then takes the file for no OME-TIFF.
    """
    width, height = travelling.size
    physical = ""
    if travelling.mpp is not None:
        x, y = travelling.mpp
        physical = f' PhysicalSizeX="{x!r}" PhysicalSizeXUnit="µm" PhysicalSizeY="{y!r}" PhysicalSizeYUnit="µm"'
    instrument = settings = ""
    if travelling.objective_power is not None:
        power = f'<Objective ID="Objective:0" NominalMagnification="{travelling.objective_power!r}"/>'
        instrument = f'<Instrument ID="Instrument:0">{power}</Instrument>'
        settings = '<InstrumentRef ID="Instrument:0"/><ObjectiveSettings ID="Objective:0"/>'
    images = [_image(0, "slide", travelling.description, settings, (width, height), physical)]
    for index, (name, pixels) in enumerate(travelling.associated.items(), start=1):
        images.append(_image(index, name, "", "", (pixels.shape[1], pixels.shape[0]), ""))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/ome.xsd" UUID="urn:uuid:{uuid.uuid4()}" '
        f"Creator={quoteattr(travelling.software)}>{instrument}{''.join(images)}</OME>"
    )
    return text.encode()


def _image(index: int, name: str, description: str, settings: str, size: tuple[int, int], physical: str) -> str:
    described = f"<Description>{escape(description)}</Description>" if description else ""
    return (
        f'<Image ID="Image:{index}" Name={quoteattr(name)}>{described}{settings}'
        f'<Pixels ID="Pixels:{index}" DimensionOrder="XYCZT" Type="uint8" SignificantBits="8" Interleaved="true" '
        f'SizeX="{size[0]}" SizeY="{size[1]}" SizeC="3" SizeZ="1" SizeT="1"{physical}>'
        f'<Channel ID="Channel:{index}:0" SamplesPerPixel="3"/>'
        f'<TiffData IFD="{index}" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="1"/></Pixels></Image>'
    )
