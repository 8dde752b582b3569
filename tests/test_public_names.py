"""Files are private, names are public: here the two are kept equal, and what is public is documented."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import restain
from restain import METHODS, Normalizer

ROOT = Path(__file__).resolve().parents[1]


def test_all_is_what_can_be_imported() -> None:
    assert len(set(restain.__all__)) == len(restain.__all__)
    assert set(restain.__all__) == set(restain._HOMES) | {"__version__"}
    for name in restain.__all__:
        assert getattr(restain, name) is getattr(restain, name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        restain.Nothing  # noqa: B018


def test_all_is_sorted() -> None:
    names = restain.__all__
    assert set(dir(restain)) >= set(names)
    # Constants, then classes, then the rest, each alphabetically: the order that ruff keeps.
    kinds = [(not name.isupper(), not name[0].isupper(), name) for name in names]
    assert kinds == sorted(kinds)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(restain.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == restain._HOMES


def test_star_import_gives_all() -> None:
    names: dict[str, object] = {}
    exec("from restain import *", names)
    assert set(restain.__all__) <= set(names)


@pytest.mark.parametrize("name", sorted(set(restain.__all__) - {"__version__", "METHODS"}))
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(restain, name)
    own = value.__doc__ or ""
    assert own.strip()
    assert not own.startswith(f"{name}("), "a dataclass without a docstring gets its signature for one"
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) or isinstance(member, classmethod | property):
                documented = inspect.getdoc(getattr(value, attribute))
                assert attribute.startswith("_") or documented, f"{name}.{attribute}"


def test_the_table_of_methods_has_a_docstring() -> None:
    body = ast.parse(inspect.getsource(restain.methods)).body
    place = next(i for i, node in enumerate(body) if isinstance(node, ast.AnnAssign) and node.target.id == "METHODS")
    following = body[place + 1]
    assert isinstance(following, ast.Expr)
    assert isinstance(following.value, ast.Constant)
    assert isinstance(following.value.value, str)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_named_public_and_documented(name: str) -> None:
    method = METHODS[name]
    assert issubclass(method, Normalizer)
    assert method.name == name
    assert getattr(restain, method.__name__) is method
    headings = re.findall(r"^#+ *(.+?) *$", (ROOT / "docs" / "methods.md").read_text(), flags=re.MULTILINE)
    assert name in [heading.strip("`") for heading in headings]


def test_every_public_name_is_in_the_reference_of_the_docs() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    missing = [n for n in restain.__all__ if n != "__version__" and not re.search(rf"\brestain\.{n}\b", text)]
    assert not missing


def test_methods_are_in_files_of_their_names() -> None:
    for name, method in METHODS.items():
        assert method.__module__ == f"restain.methods.{name}"
