"""The command line: one short function a command, and how it ends.

Nothing heavy is imported before a command needs it: what the modules of this package import at their top is all that
`restain --help` waits for.
"""

import io
import logging
import sys
import warnings
from typing import Any

from cyclopts import App, CycloptsError

from restain import __version__
from restain.cli import fitting, judging, looking, normalizing, separating, students, training
from restain.errors import RestainError
from restain.terminal import print_note

app = App(
    name="restain",
    help="Stained tissue in one reference appearance: tiles and whole slides.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` tells it
)
app.command(normalizing.normalize)
app.command(fitting.fit)
app.command(fitting.import_weights, name="import")
app.command(separating.separate)
app.command(judging.register)
app.command(judging.evaluate)
app.command(judging.compare)
app.command(looking.info)
app.command(looking.methods)
app.command(looking.demo)
app.command(looking.phantom)
app.command(training.train)
app.command(students.distill)
app.command(students.export)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 some files failed, 2 what was asked for cannot be done, 130 interrupted."""
    warnings.showwarning = _show_warning
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what it logs, an error says in one line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(" ".join(str(error).split()))
    except RestainError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except MemoryError:
        _fail("out of memory; use fewer --workers or a smaller --max-pixels")
    except KeyboardInterrupt as interrupt:  # which may say what is there and how to go on
        _fail(str(interrupt) or "interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int = 2) -> None:
    print(f"restain: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_note(message)
