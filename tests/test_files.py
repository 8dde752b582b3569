"""Files are written whole or not at all, and what is read back is what was written or a `FormatError`."""

import errno
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from restain import files
from restain.errors import FormatError, OutputError, SlideError
from restain.files import atomic_output, load_arrays, part_beside, refuse_overwrite, save_arrays, write_atomically


def write(path: Path, contents: bytes = b"new", **options) -> None:
    with atomic_output(path, **options) as temporary:
        temporary.write_bytes(contents)


def only(folder: Path, *names: str) -> bool:
    """That a folder holds these files and no leftovers."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# ---- written whole ----------------------------------------------------------------------------------------------


def test_the_name_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_output(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert only(tmp_path, "a.bin")


def test_a_str_is_a_path_too(tmp_path: Path) -> None:
    with atomic_output(str(tmp_path / "a.bin")) as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.bin"))
    assert only(tmp_path, "a.bin")


@pytest.mark.parametrize(
    "name", ["a", ".hidden", "with space.tif", "ä" * 100, "切片" * 40 + ".safetensors", "x" * 255], ids=lambda n: n[:12]
)
def test_any_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"
    assert only(tmp_path, name)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a.bin")
    finally:
        assert os.umask(before) == umask  # and the process's mask is left alone
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~umask


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; pass overwrite=True"):
        write(path)
    assert path.read_bytes() == b"old"
    assert only(tmp_path, "a.bin")


def test_an_existing_file_is_replaced_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    write(path, overwrite=True)
    assert path.read_bytes() == b"new"
    assert only(tmp_path, "a.bin")


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_folders_are_not_replaced(tmp_path: Path) -> None:
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is a folder"):
            write(tmp_path, overwrite=overwrite)
        with pytest.raises(OutputError, match="is a folder"):
            refuse_overwrite(tmp_path, overwrite)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write in .*none"):
        write(tmp_path / "none" / "a.bin")


# ---- or not at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [ValueError("on purpose"), KeyboardInterrupt(), SlideError("a tile is damaged")])
def test_an_error_leaves_what_was_there(tmp_path: Path, old: bytes | None, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)

    def fail() -> None:
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error  # an unreadable source, say, is not reported as an output that cannot be written
    assert (path.read_bytes() if old is not None else None) == old
    assert only(tmp_path, *(["a.bin"] if old is not None else []))


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_output(tmp_path / "a.bin"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*a\.bin: No space left"):
        fail()
    assert only(tmp_path)


def test_an_error_on_another_file_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_output(tmp_path / "a.bin"):
            (tmp_path / "missing source").read_bytes()

    with pytest.raises(FileNotFoundError, match="missing source"):
        fail()
    assert only(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed here")
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_process_leaves_no_partial_output(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    code = """
        import os, signal, sys
        from restain.files import atomic_output
        with atomic_output(sys.argv[1], overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old
    leftovers = [each.name for each in tmp_path.iterdir() if each != path]
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".a.bin.")
    assert leftovers[0].endswith(".part")
    write(path, overwrite=True)  # and the next attempt is not in its way
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_comes_into_being_meanwhile_is_kept(
    tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hard_links:  # as on some network and memory-card file systems

        def no_link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "a.bin"

    def race() -> None:
        with atomic_output(path) as temporary:
            temporary.write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(OutputError):
        race()
    assert path.read_bytes() == b"theirs"
    assert only(tmp_path, "a.bin")
    write(tmp_path / "b.bin")  # without a race it works on both
    assert only(tmp_path, "a.bin", "b.bin")


def test_of_many_writers_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    path, gate = tmp_path / "a.bin", threading.Barrier(8)

    def attempt(number: int) -> bytes | None:
        contents = bytes([number]) * 100_000
        gate.wait()
        try:
            write(path, contents)
        except OutputError:
            return None
        return contents

    with ThreadPoolExecutor(8) as pool:
        written = [contents for contents in pool.map(attempt, range(8)) if contents is not None]
    assert written == [path.read_bytes()]
    assert only(tmp_path, "a.bin")


def test_write_atomically(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, lambda stream: stream.write(b"new"), overwrite=False)
    assert path.read_bytes() == b"new"
    with pytest.raises(OutputError, match="exists"):
        write_atomically(path, lambda stream: stream.write(b"newer"), overwrite=False)
    write_atomically(path, lambda stream: stream.write(b"newer"), overwrite=True)
    assert path.read_bytes() == b"newer"


# ---- arrays with facts ------------------------------------------------------------------------------------------

FACTS = {"text": "ä ∑ 切片", "number": 0.1, "list": [1, None, True], "nested": {"a": {"b": "c"}}}


def test_arrays_and_facts_come_back(tmp_path: Path) -> None:
    arrays = {
        "floats": np.random.default_rng(0).normal(size=(3, 4)),
        "codes": np.arange(7, dtype=np.uint32),
        "bytes": np.frombuffer(b"profile", np.uint8),
        "nothing": np.zeros((0, 3)),
        "a number": np.array(3.5),
    }
    save_arrays(tmp_path / "a.safetensors", "test", arrays, FACTS)
    kind, loaded, facts = load_arrays(tmp_path / "a.safetensors")
    assert kind == "test"
    assert facts == FACTS
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape


def test_any_memory_layout_is_saved_right(tmp_path: Path) -> None:
    square = np.arange(12.0).reshape(3, 4)
    arrays = {"f": np.asfortranarray(square), "t": square.T, "strided": square[::2, ::-1]}
    save_arrays(tmp_path / "a.safetensors", "test", arrays, {})
    _, loaded, _ = load_arrays(tmp_path / "a.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"b": np.arange(3.0), "a": np.arange(4.0)}
    save_arrays(tmp_path / "a", "test", arrays, FACTS)
    save_arrays(tmp_path / "b", "test", dict(reversed(arrays.items())), dict(reversed(FACTS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_facts_that_are_not_plain_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_arrays(tmp_path / "a", "test", {}, {"array": np.zeros(3)})
    assert only(tmp_path)


def test_saving_over_a_file_only_when_allowed(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a", "test", {}, {"version": 1})
    with pytest.raises(OutputError, match="exists"):
        save_arrays(tmp_path / "a", "test", {}, {"version": 2}, overwrite=False)
    assert load_arrays(tmp_path / "a")[2] == {"version": 1}
    save_arrays(tmp_path / "a", "test", {}, {"version": 2})
    assert load_arrays(tmp_path / "a")[2] == {"version": 2}


def test_missing_files_and_folders_are_format_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FormatError, match="is not a file; wanted"):
            load_arrays(path)


def test_a_safetensors_file_of_another_program_is_told_apart(tmp_path: Path) -> None:
    for metadata in (None, {}, {"format": "pt"}):
        save_file({"weight": np.zeros(3)}, tmp_path / "a", metadata=metadata)
        with pytest.raises(FormatError, match="not one saved by restain"):
            load_arrays(tmp_path / "a")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "a").write_bytes(pickle.dumps(Bomb()))
    np.save(tmp_path / "b.npy", np.array([Bomb()], object), allow_pickle=True)
    for name in ("a", "b.npy"):
        with pytest.raises(FormatError, match="damaged or not a safetensors file"):
            load_arrays(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.binary(max_size=200))
def test_random_bytes_are_format_errors(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "a").write_bytes(contents)
    with pytest.raises(FormatError):
        load_arrays(tmp_path / "a")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.sampled_from(["null", "[]", "{}", '"kind"', "3", "NaN"]))
def test_random_facts_are_format_errors(tmp_path: Path, text: str) -> None:
    save_file({}, tmp_path / "a", metadata={"restain": text})
    with pytest.raises(FormatError):
        load_arrays(tmp_path / "a")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_facts_nested_beyond_all_measure_are_format_errors(tmp_path: Path, opening: str) -> None:
    save_file({}, tmp_path / "a", metadata={"restain": opening * 100_000})
    with pytest.raises(FormatError):
        load_arrays(tmp_path / "a")


# ---- what killed processes leave behind -------------------------------------------------------------------------

LEFT = """
import os, signal, sys
from pathlib import Path
from restain.files import part_beside
with part_beside(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as part:
    if part.is_dir():
        (part / "half").write_bytes(b"half")
    else:
        part.write_bytes(b"half")
    print(part, flush=True)
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""

posix = pytest.mark.skipif(files.fcntl is None, reason="files cannot be locked here")


def start_part(path: Path, kind: str, end: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", LEFT, str(path), kind, end],
        env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


@posix
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_dead_process_s_part_is_removed_and_a_live_one_s_is_not(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    live = start_part(path, kind, "alive")
    assert live.stdout is not None
    held = Path(live.stdout.readline().strip())
    dead = start_part(path, kind, "killed")
    assert dead.stdout is not None
    left = Path(dead.stdout.readline().strip())
    assert dead.wait(timeout=60) == -signal.SIGKILL
    assert {held, left} == set(tmp_path.iterdir())
    (tmp_path / ".a.bin.xyz.part").write_bytes(b"somebody else's")
    with part_beside(path, folder=kind == "folder") as mine:
        assert mine == left  # its name is taken over, and nothing of what it held
        assert not (list(mine.iterdir()) if kind == "folder" else mine.read_bytes())
    assert {path.name for path in tmp_path.iterdir()} == {held.name, ".a.bin.xyz.part"}
    live.communicate("")
    write(path)
    assert only(tmp_path, "a.bin", ".a.bin.xyz.part")


@posix
def test_parts_of_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    with part_beside(tmp_path / "a") as first, part_beside(tmp_path / "a") as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
        with part_beside(tmp_path / "a") as third:
            assert third not in (first, second)
        assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert only(tmp_path)


@posix
def test_a_renamed_part_s_old_name_may_be_another_s(tmp_path: Path) -> None:
    with part_beside(tmp_path / "a") as first:
        first.rename(tmp_path / "a")
        with part_beside(tmp_path / "a") as second:
            assert second == first
            second.write_bytes(b"second")
    assert only(tmp_path, "a")
    with part_beside(tmp_path / "b") as first:
        first.rename(tmp_path / "b")
        first.write_bytes(b"a stranger's")
    assert first.read_bytes() == b"a stranger's"


@posix
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_a_trap_in_a_part_s_place_hurts_nobody(kind: str, tmp_path: Path) -> None:
    """In a folder that others can write to, somebody may have put something there under the name of a part."""
    victim, trap = tmp_path / "victim", tmp_path / ".a.bin.1.part"
    victim.write_bytes(b"precious")
    match kind:
        case "link":
            trap.symlink_to(victim)
        case "dangling link":
            trap.symlink_to(tmp_path / "gone")
        case "hard link":
            os.link(victim, trap)
        case "pipe":
            os.mkfifo(trap)
        case "folder":
            trap.mkdir()
    write(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "gone").exists()


@posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_files_cannot_be_locked_nothing_is_removed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / ".a.bin.1.part").write_bytes(b"perhaps somebody's")
    monkeypatch.setattr(files.fcntl, "flock", flock)
    write(tmp_path / "a.bin")
    assert only(tmp_path, "a.bin", ".a.bin.1.part")


@posix
def test_parts_of_many_threads(tmp_path: Path) -> None:
    """Each has a part of its own all the time, though they all want the same names, made and removed in turns."""
    held: set[Path] = set()
    lock = threading.Lock()

    def attempt(number: int) -> None:
        with part_beside(tmp_path / "a", folder=bool(number % 2)) as part:
            with lock:
                assert part not in held
                held.add(part)
            if part.is_file():
                part.write_bytes(bytes([number % 256]))
                assert part.read_bytes() == bytes([number % 256])
            with lock:
                held.remove(part)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(400)))
    assert only(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_broken_link_is_told_before_any_work_is_done(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "a.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match=r"a\.bin is a link to .*gone, which does not exist"):
        write(tmp_path / "a.bin", overwrite=overwrite)
    assert only(tmp_path, "a.bin")
