"""A student learns what its teacher does: StainNet by training, a lattice by regression."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain import ColorHistogram, Macenko, load
from restain.errors import InputError, OutputError
from restain.evaluation.metrics.pixel_errors import psnr
from restain.phantom import STAINS_B, Scanner, make_phantom
from restain.systems.stainnet import StainNetStudent
from restain.training.distill import DistillSettings, distill
from restain.training.settings import merged

from ..running import Run
from ..systems.small import trained

QUICK = {
    "config": {"epochs": 40, "batch_size": 2, "crop": 32, "learning_rate": 0.01},
    "data": {"samples_per_epoch": 16},
    "training": {"validate_every": 100, "checkpoint_every": 1000, "pictures": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom tissue of one lab, in files, and other tissue of it for testing."""
    made = tmp_path_factory.mktemp("tissue")
    for part, seeds in (("images", range(6)), ("test", (20, 21))):
        (made / part).mkdir()
        for seed in seeds:
            tile = make_phantom(96, 96, seed=seed, scanner=Scanner(noise=1.0)).image
            Image.fromarray(tile).save(made / part / f"{seed}.png")
    return made


@pytest.fixture(scope="module")
def teacher() -> Macenko:
    reference = make_phantom(
        128, 128, seed=9, stain_matrix=STAINS_B, scanner=Scanner(white=(236.0, 231.0, 228.0))
    ).image
    return Macenko().fit(reference)


def test_a_colour_map_is_learned_from_a_method(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    settings = DistillSettings(student="colormap", tile=96, estimate="folder", validation_share=0.3)
    result = distill(
        teacher, [str(folder / "images")], tmp_path / "s.safetensors", settings, test=[str(folder / "test")]
    )
    assert result.on_test
    assert result.judged == 2
    assert result.psnr > 38
    assert result.ssim > 0.98
    assert result.unexplained == pytest.approx(0, abs=1e-9)  # with one estimate the teacher is a map of colours
    student = load(tmp_path / "s.safetensors")
    assert student == result.student
    assert student.name == "lattice"
    np.testing.assert_array_equal(student.reference_.white_point, teacher.reference_.white_point)
    assert student.provenance_["distilled"]["teacher"] == "macenko"
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]  # the teacher's work is gone
    # The oracle: the teacher itself, on tissue that neither has seen, estimated from the same tiles.
    tiles = [np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())]
    unseen = make_phantom(96, 96, seed=50, scanner=Scanner(noise=1.0)).image
    appearance = teacher.estimate(ColorHistogram.from_images(tiles))
    wanted = teacher.transform(unseen, appearance)
    assert psnr(wanted, student.transform(unseen)) > psnr(wanted, unseen) + 10


def test_stainnet_is_learned_and_needs_no_network(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    settings = DistillSettings(tile=96, estimate="folder", validation_share=0.3, overrides=QUICK)
    run = tmp_path / "run"
    result = distill(
        teacher, [str(folder / "images")], tmp_path / "s.safetensors", settings, run=run, device="cpu", quiet=True
    )
    assert not result.on_test
    assert result.psnr > 28
    student = load(tmp_path / "s.safetensors")
    assert student.name == "stainnet"
    assert sum(value.size for value in student.weights.values()) == 1283
    pairs = sorted((run / "teacher" / "training" / "source").iterdir())
    assert {path.name for path in (run / "teacher" / "training" / "target").iterdir()} == {path.name for path in pairs}
    assert (run / "student" / "metrics.jsonl").is_file()
    with pytest.raises(OutputError, match="overwrite"):
        distill(teacher, [str(folder / "images")], tmp_path / "other.safetensors", settings, run=run, quiet=True)


@pytest.mark.parametrize("name", ["chen", "dstgan", "nst"])
def test_systems_are_teachers(name: str, folder: Path, tmp_path: Path) -> None:
    """What is lost is stated: the student on tiles that it has not seen, beside what the system makes of them."""
    system, quick = trained(name), merged(QUICK, {"training": {"max_steps": 20, "validate_every": 20}})
    settings = DistillSettings(tile=96, validation_share=0.3, overrides=quick)
    output, test = tmp_path / "s.safetensors", sorted((folder / "test").iterdir())
    result = distill(
        system, [str(folder / "images")], output, settings, test=[str(folder / "test")], device="cpu", quiet=True
    )
    student = load(output)
    assert student.name == "stainnet"
    assert student.provenance_["distilled"]["teacher"] == name
    assert result.on_test
    tiles = [np.asarray(Image.open(path)) for path in test]
    lost = [psnr(system.transform(tile), student.transform(tile)) for tile in tiles]
    assert result.psnr == pytest.approx(np.mean(lost), abs=1e-6)


def test_a_student_with_larger_kernels_is_a_network(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    quick = {**QUICK, "training": {**QUICK["training"], "max_steps": 5, "validate_every": 5}}
    settings = DistillSettings(tile=96, kernels=(3, 1, 1), validation_share=0.3, overrides=quick)
    result = distill(teacher, [str(folder / "images")], tmp_path / "s.safetensors", settings, device="cpu", quiet=True)
    assert isinstance(result.student, StainNetStudent)
    student = load(tmp_path / "s.safetensors")
    assert student.neighbourhood
    assert student.config.kernels == (3, 1, 1)


def test_selecting_on_the_test_images_is_possible_and_named(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    quick = {**QUICK, "training": {**QUICK["training"], "max_steps": 4, "validate_every": 4}}
    settings = DistillSettings(tile=96, select_on="test", validation_share=0.3, overrides=quick)
    images, output = [str(folder / "images")], tmp_path / "s.safetensors"
    with pytest.raises(InputError, match="--test"):
        distill(teacher, images, output, settings, quiet=True)
    run = tmp_path / "run"
    distill(teacher, images, output, settings, test=[str(folder / "test")], run=run, device="cpu", quiet=True)
    assert "teacher/test/source" in (run / "student" / "settings.toml").read_text()


def test_what_cannot_be_is_refused_before_any_work(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    images = [str(folder / "images")]
    with pytest.raises(OutputError, match="safetensors"):
        distill(teacher, images, tmp_path / "s.pt")
    with pytest.raises(InputError, match="student"):
        distill(teacher, images, tmp_path / "s.safetensors", DistillSettings(student="svm"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no tile is left"):
        distill(teacher, images, tmp_path / "s.safetensors", DistillSettings(validation_share=0.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_processes_is_refused(
    name: str, folder: Path, teacher: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Each would let the teacher work, and write the same file."""
    teacher.save(tmp_path / "t.safetensors")
    monkeypatch.setenv(name, "2")
    arguments = ["distill", tmp_path / "t.safetensors", "--images", folder / "images", "-o", tmp_path / "s.safetensors"]
    done = run(*arguments, "--student", "colormap")
    assert (done.code, done.out) == (2, "")
    assert "distilling is the work of one process, and this is one of 2; start it by itself" in done.err.splitlines()[0]
    assert len(done.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"recipe": "nonsense"}, "no recipe nonsense"),
        ({"kernels": (2, 1)}, "kernels"),
        ({"overrides": {"config": {"chanels": 3}}}, "no setting chanels"),
        ({"student": "colormap", "lattice": 1}, "lattice=1"),
    ],
)
def test_the_teacher_does_not_work_for_a_student_that_cannot_be(
    settings: dict, words: str, folder: Path, teacher: Macenko, tmp_path: Path
) -> None:
    taught = []
    with pytest.raises(InputError, match=words):
        distill(
            teacher,
            [str(folder / "images")],
            tmp_path / "s.safetensors",
            DistillSettings(tile=96, validation_share=0.3, **settings),
            progress=lambda *_: taught.append(1),
        )
    assert not taught


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_only_an_earlier_distillation_is_replaced(part: str, folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    settings = DistillSettings(student="colormap", tile=96, validation_share=0.3)
    own = tmp_path / "run" / part / "thesis.txt"
    own.parent.mkdir(parents=True)
    own.write_text("years of work")
    images, output = [str(folder / "images")], tmp_path / "s.safetensors"
    with pytest.raises(OutputError, match=f"{part} is not of an earlier distillation"):
        distill(teacher, images, output, settings, run=tmp_path / "run", overwrite=True)
    assert own.read_text() == "years of work"
    for overwrite in (False, True):
        distill(teacher, images, output, settings, run=tmp_path / "new", overwrite=overwrite)


def test_tiles_too_small_to_be_judged_spoil_nothing(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    """SSIM wants 11 pixels; that was found out when all work was done."""
    (tmp_path / "test").mkdir()
    tile = np.asarray(Image.open(folder / "test" / "20.png"))
    for name, side in (("large", 64), ("small", 8)):
        Image.fromarray(tile[:side, :side]).save(tmp_path / "test" / f"{name}.png")
    settings = DistillSettings(student="colormap", tile=96, estimate="folder", validation_share=0.3)
    output = tmp_path / "s.safetensors"
    result = distill(teacher, [str(folder / "images")], output, settings, test=[str(tmp_path / "test")])
    assert (result.judged, result.on_test) == (1, True)
    (tmp_path / "test" / "large.png").unlink()
    with pytest.raises(InputError, match="no test image has sides of 11 pixels or more"):
        distill(teacher, [str(folder / "images")], output, settings, test=[str(tmp_path / "test")], overwrite=True)


def test_all_of_a_large_tile_is_learned_from(folder: Path, teacher: Macenko, tmp_path: Path) -> None:
    """The paper's crops are its tiles; of larger ones its recipe would take the middle, and waste the rest."""
    quick = {"config": {"crop": 32, "epochs": 1}, "training": {"max_steps": 1, "validate_every": 1, "pictures": 1}}
    settings = DistillSettings(tile=96, recipe="stainnet", estimate="folder", validation_share=0.3, overrides=quick)
    run, output = tmp_path / "run", tmp_path / "s.safetensors"
    distill(teacher, [str(folder / "images")], output, settings, run=run, device="cpu", quiet=True)
    assert 'crop_position = "random"' in (run / "student" / "settings.toml").read_text()


def test_the_command_distills(folder: Path, teacher: Macenko, tmp_path: Path, run) -> None:
    teacher.save(tmp_path / "t.safetensors")
    arguments = ["--images", folder / "images", "--student", "colormap", "--tile", 96, "--validation-share", 0.3]
    arguments += ["--estimate", "folder"]
    done = run("distill", tmp_path / "t.safetensors", *arguments, "-o", tmp_path / "s.safetensors", "--json")
    assert done.code == 0
    assert done.json["method"] == "lattice"
    assert done.json["psnr"] > 25
    again = run("distill", tmp_path / "t.safetensors", *arguments, "-o", tmp_path / "s.safetensors")
    assert again.code == 2
    assert "overwrite" in again.err
    assert len(again.err.splitlines()) == 1
