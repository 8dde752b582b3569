"""Small trees in the layouts of the public data sets: the right names, pictures of the right size or tiny ones."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

TINY = (8, 6)


def picture(path: Path, size: tuple[int, int] = TINY, level: int = 200) -> Path:
    """An image of one colour, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level // 2, level)).save(path)
    return path


def text(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def mitos(
    root: Path,
    slides: Iterable[str] = ("03", "04", "06"),
    frames: Iterable[str] = ("00A", "00B"),
    aperio: tuple[int, int] = TINY,
    hamamatsu: tuple[int, int] = TINY,
) -> Path:
    """MITOS-ATYPIA-14: of each slide and scanner some x20 frames, and of each of these one x40 frame."""
    frames = list(frames)
    for slide in slides:
        for letter, size in (("A", aperio), ("H", hamamatsu)):
            # Slide 03 unpacks to a folder within a folder of the same name.
            home = root / f"{letter}{slide}" / f"{letter}{slide}" if slide == "03" else root / f"{letter}{slide}"
            for frame in frames:
                name = f"{letter}{slide}_{frame}"
                picture(home / "frames" / "x20" / f"{name}.tiff", size)
                picture(home / "frames" / "x40" / f"{name}a.tiff", size)
                text(home / "atypia" / "x20" / f"{name}_cna_score_decision.csv", "2\n" if frame == "00A" else "")
                text(home / "mitosis" / f"{name}a_mitosis.csv", "10,20,0.8\n30,40,1\n" if frame == "00A" else "")
                text(home / "mitosis" / f"{name}a_not_mitosis.csv", "1,1,0.2\n")
            picture(home / "frames" / "x10" / f"{letter}{slide}_00.tiff", size)
    return root


def tupac(root: Path) -> Path:
    """TUPAC-2016: cases of three centres, in two of the three archives, and a test case."""
    for part, case, fields in ((1, "01", 2), (1, "23", 1), (2, "24", 1), (3, "49", 2)):
        for field in range(1, fields + 1):
            picture(root / f"mitoses_image_data_part_{part}" / case / f"{field:02d}.tif")
    text(root / "mitoses_ground_truth" / "01" / "01.csv", "20,10\n40,30\n")
    picture(root / "mitoses-test-image-data" / "01" / "01.tif")
    return root


def bach(root: Path, each: int = 4) -> Path:
    """ICIAR-BACH-2018: some images of each class, and the table."""
    photos = root / "ICIAR2018_BACH_Challenge" / "Photos"
    rows = []
    for label, prefix in (("Normal", "n"), ("Benign", "b"), ("InSitu", "is"), ("Invasive", "iv")):
        for i in range(1, each + 1):
            path = picture(photos / label / f"{prefix}{i:03d}.tif")
            rows.append(f"{path.name},{label}")
    text(photos / "microscopy_ground_truth.csv", "\n".join(rows) + "\n")
    text(photos / "Normal" / "Thumbs.db")
    return root


def glas(root: Path, grades: bool = True) -> Path:
    """GlaS: images with instances, three of each part; patient 7 is in train and test B."""
    rows = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for part, patients in (("train", "127"), ("testA", "233"), ("testB", "897")):
        for i, patient in enumerate(patients, start=1):
            picture(root / f"{part}_{i}.bmp")
            labels = np.zeros((TINY[1], TINY[0]), np.uint8)
            labels[1:3, 1:3], labels[4, 4:7] = 1, 2
            Image.fromarray(labels).save(root / f"{part}_{i}_anno.bmp")
            rows.append(f"{part}_{i}, {patient}, {'benign' if i == 1 else ' malignant'}, healthy")
    if grades:
        text(root / "Grade.csv", "\n".join(rows) + "\n")
    return root


def outlines(path: Path, *polygons: tuple[str, list[tuple[float, float]]]) -> Path:
    """An ASAP file of polygons, each a group and its points."""
    annotations = []
    for i, (group, points) in enumerate(polygons):
        # Out of order, as nothing promises the contrary.
        coordinates = [f'<Coordinate Order="{n}" X="{x}" Y="{y}" />' for n, (x, y) in enumerate(points)][::-1]
        annotations.append(
            f'<Annotation Name="_{i}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{''.join(coordinates)}</Coordinates></Annotation>"
        )
    groups = '<AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#ff0000" /></AnnotationGroups>'
    body = f"<Annotations>{''.join(annotations)}</Annotations>{groups}"
    return text(path, f'<?xml version="1.0"?>\n<ASAP_Annotations>{body}</ASAP_Annotations>\n')


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def camelyon16(root: Path) -> Path:
    """Camelyon16: slides of both centres, one outlined, and two for test."""
    for name in ("normal_001", "normal_100", "normal_101"):
        picture(root / "training" / "normal" / f"{name}.tif")
    for name in ("tumor_070", "tumor_071"):
        picture(root / "training" / "tumor" / f"{name}.tif")
    outlines(root / "training" / "lesion_annotations" / "tumor_070.xml", ("Tumor", square(0, 0, 4)))
    for name in ("test_001", "test_002", "test_003"):
        picture(root / "testing" / "images" / f"{name}.tif")
    picture(root / "testing" / "evaluation" / "test_001_mask.tif")
    outlines(root / "testing" / "lesion_annotations" / "test_001.xml", ("_0", square(0, 0, 4)))
    text(root / "testing" / "reference.csv", "test_002,Normal,None,None\n")
    return root


def camelyon17(root: Path) -> Path:
    """Camelyon17: patients of two centres, in folders of centres and without, and a test patient."""
    picture(root / "training" / "center_0" / "patient_000_node_0.tif")
    picture(root / "training" / "center_0" / "patient_000" / "patient_000_node_1.tif")
    picture(root / "images" / "patient_045_node_4.tif")
    picture(root / "testing" / "patient_100_node_0.tif")
    outlines(root / "training" / "lesion_annotations" / "patient_000_node_1.xml", ("metastases", square(0, 0, 4)))
    table = "patient,stage\npatient_000.zip,pN1\npatient_000_node_0.tif,negative\npatient_000_node_1.tif,macro\n"
    text(root / "training" / "stage_labels.csv", table)
    return root
