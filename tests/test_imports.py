"""Imports run one way, and what is slow is not imported before it is needed."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import restain

PACKAGE = Path(restain.__file__).resolve().parent
HEAVY = {
    "torch",
    "numba",
    "cv2",
    "matplotlib",
    "skimage",
    "sklearn",
    "torchmetrics",
    "zarr",
    "pydicom",
    "wsidicom",
    "dask",
    "distributed",
}
TORCH_ROOMS = {"networks", "losses", "systems", "training", "evaluation.tasks"}
"""Rooms that are made of torch; nothing else imports them before tensors are at hand."""


# ---- what a process imports -------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh process holds after running `code`."""
    report = "\nimport sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code + report], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_restain_is_light() -> None:
    modules = modules_after("import restain")
    assert "restain" in modules
    assert not modules & (HEAVY | {"numpy", "scipy", "PIL", "openslide", "tifffile"})


HELP = """
import sys
from restain.cli import main
sys.argv = ["restain", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], *([name, "--help"] for name in ("normalize", "fit", "register", "train", "distill"))],
)
def test_help_is_light(arguments: list[str]) -> None:
    assert not modules_after(HELP.format(arguments=arguments)) & HEAVY


def test_methods_and_estimates_need_neither_torch_nor_matplotlib() -> None:
    modules = modules_after(
        "import numpy as np, restain\n"
        "image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)\n"
        "restain.Reinhard().fit(image).transform(image)"
    )
    assert not modules & {"torch", "matplotlib"}


def test_methods_and_colours_are_light_until_pixels_are_at_hand() -> None:
    code = (
        "import restain\nfor name in restain.__all__:\n if not name.lower().endswith('slide'): getattr(restain, name)"
    )
    assert not modules_after(code) & HEAVY


def test_saved_normalizers_are_read_and_described_without_numba(tmp_path: Path) -> None:
    """A StainNet evaluates its network once when it is made; that must not cost the import of the kernels."""
    layer = {"weight1": np.eye(3), "bias1": np.zeros(3)}
    restain.StainNet(weights=layer).save(tmp_path / "s.safetensors")
    code = f"import restain\nrestain.load({str(tmp_path / 's.safetensors')!r})"
    assert not modules_after(code) & HEAVY
    info = HELP.format(arguments=["info", str(tmp_path / "s.safetensors")])
    assert not modules_after(info) & HEAVY


def test_no_public_name_needs_torch() -> None:
    code = "import restain, restain.cli, restain.networks\nfor name in restain.__all__: getattr(restain, name)"
    assert not modules_after(code) & {"torch", "matplotlib"}


# ---- who imports whom -------------------------------------------------------------------------------------------

ALLOWED = {
    "errors": set(),
    "phantom": set(),
    "files": {"errors"},
    "lock": {"errors"},
    "strict_json": set(),
    "color": {"color", "errors", "files"},
    "profiles": {"color", "errors", "profiles"},
    "methods": {"color", "methods", "errors", "files"},
    "slides": {"color", "methods", "slides", "errors", "files", "lock", "strict_json", "__version__"},
    "networks": {"color", "errors", "networks"},
    "losses": {"errors", "losses"},
    "systems": {"color", "errors", "files", "losses", "methods", "networks", "strict_json", "systems"},
    "training": {
        "color",
        "errors",
        "evaluation",
        "files",
        "lock",
        "methods",
        "networks",
        "references",
        "saved",
        "slides",
        "systems",
        "training",
        "__version__",
    },
    "evaluation": {
        "color",
        "methods",
        "slides",
        "evaluation",
        "networks",
        "references",
        "saved",
        "errors",
        "files",
        "strict_json",
        "__version__",
    },
}
"""Which rooms of restain a room may import; rooms that are not named here stand above all of these."""

UPWARD = {
    ("color.colormap", "networks"),  # ColorMap.to_torch: a convenience; torch is imported when it is called
    ("color.histogram", "slides"),  # ColorHistogram.from_slide: a convenience whose work is done in slides
    ("systems.base", "references"),  # System.estimate: tiles are sampled where slides are known
    ("methods.base", "references"),  # Normalizer.fit: a path or a profile's name is resolved where slides are known
}
"""Imports against the direction; they may stand only inside a function, or where types are checked and nothing runs."""


def module_name(path: Path) -> str:
    """The module of a file, without the leading `restain.`; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, *, inside_function: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that is imported, by its full name, and whether importing the file leaves it alone.

    It does inside a function, and under `if TYPE_CHECKING:`, which is counted as one.

    `from package import name` yields `package.name`, whether that is a module or not.
    """
    for node in ast.iter_child_nodes(tree):
        inside = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(node.body, []), inside_function=True)
            yield from imports(ast.Module(node.orelse, []), inside_function=inside)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
        yield from imports(node, inside_function=inside)


def room(imported: str) -> str | None:
    """The room of restain that a full name leads into, None for other packages."""
    package, _, rest = imported.partition(".")
    return rest.partition(".")[0] if package == "restain" else None


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    name = module_name(path)
    allowed = ALLOWED.get(name.partition(".")[0])
    for imported, inside_function in imports(ast.parse(path.read_text())):
        target = room(imported)
        if target is None or allowed is None or target in allowed:
            continue
        assert (name, target) in UPWARD, f"{name} imports {imported}"
        assert inside_function, f"{name} imports {imported} outside a function"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_torch_stays_in_its_rooms_and_matplotlib_in_functions(path: Path) -> None:
    of_torch = any(f"{module_name(path)}.".startswith(f"{name}.") for name in TORCH_ROOMS)
    heavy_here = {"matplotlib"} if of_torch else {"torch", "matplotlib"}
    for imported, inside_function in imports(ast.parse(path.read_text())):
        heavy = imported.partition(".")[0] in heavy_here
        assert not heavy or inside_function, f"{module_name(path)} imports {imported}"


def test_the_exceptions_are_still_needed() -> None:
    found = {(module_name(path), room(name)) for path in FILES for name, _ in imports(ast.parse(path.read_text()))}
    assert found >= UPWARD


def test_the_walk_sees_what_it_must() -> None:
    source = """
import restain.slides.reader
from restain.methods import base as b
class A:
    from restain.color import glass
    def f(self):
        import torch.nn
        return lambda: __import__("x")
if True:
    from restain import files, __version__
if TYPE_CHECKING:
    import torch.types
else:
    import torch.hub
"""
    assert sorted(imports(ast.parse(source))) == [
        ("restain.__version__", False),
        ("restain.color.glass", False),
        ("restain.files", False),
        ("restain.methods.base", False),
        ("restain.slides.reader", False),
        ("torch.hub", False),
        ("torch.nn", True),
        ("torch.types", True),
    ]
    assert room("restain.methods.base") == "methods"
    assert room("numpy.typing") is None
