"""Commands in processes of their own that start at once: forked from a server that has imported and compiled all.

A process of its own is what limits, kills and races need; starting Python anew for each would take seconds.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import restain

SERVER = """
import json, os, resource, sys, tempfile, warnings
from pathlib import Path
from restain import cli, phantom
from restain.methods import METHODS
from restain.slides import batch, pipeline
import restain.slides.writer

with tempfile.TemporaryDirectory() as folder:  # one run of everything, so that children find it imported and compiled
    from PIL import Image
    from restain.slides.writer import write_array
    image = phantom.make_phantom(200, 200, seed=0).image
    Image.fromarray(image).save(Path(folder) / "i.png")
    write_array(Path(folder) / "s.tif", image)
    for name in ("s.tif", "i.png"):
        try:
            sys.stdout, keep = open(os.devnull, "w"), sys.stdout
            cli.main(["normalize", str(Path(folder) / name), str(Path(folder) / ("out" + name))])
        except SystemExit as end:
            assert not end.code, end.code
        finally:
            sys.stdout = keep

def run(order):
    for target, number in ((order["out"], 1), (order["err"], 2)):
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    exec(order["before"], {})
    for name, limit in order["limits"].items():
        if name == "more memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            name, limit = "RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + limit
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if order["user"] is not None:
        os.setgid(order["user"])
        os.setuid(order["user"])
    try:
        cli.main(order["arguments"])
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        return 70
    return 0

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        code = 71
        try:
            code = run(order)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(child, flush=True)
"""


@dataclass(frozen=True)
class Finished:
    """How a process ended: its status (negative for a signal), and what it wrote."""

    code: int
    out: str
    err: str


class Child:
    """A command that runs."""

    def __init__(self, forks: "Forks", pid: int, folder: Path) -> None:
        self.pid, self._forks, self._folder = pid, forks, folder

    def kill(self) -> None:
        """End it at once; nothing happens where it has ended by itself."""
        os.kill(self.pid, signal.SIGKILL)  # a zombie until `wait`, so the number is still its own

    def wait(self, timeout: float = 60.0) -> Finished:
        """Wait for its end; after `timeout` seconds it is killed, and its status says so."""
        guard = threading.Timer(timeout, self.kill)
        guard.start()
        try:
            code = int(self._forks.ask({"wait": self.pid}))
        finally:
            guard.cancel()
        out, err = ((self._folder / name).read_text(errors="replace") for name in ("out", "err"))
        return Finished(code, out, err)


class Forks:
    """The server; one is enough for all tests of a session."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="restain-forks-")
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=os.environ | {"PYTHONPATH": str(Path(restain.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def start(
        self,
        *arguments: object,
        limits: Mapping[str, int] | None = None,
        user: int | None = None,
        before: str = "",
    ) -> Child:
        """Run `restain ARGUMENTS…`.

        Args:
            arguments: of the command.
            limits: by their names in `resource`; "more memory" is RLIMIT_AS beyond what is in use.
            user: the number of the user to become.
            before: Python that is run in the process first.
        """
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        order = {
            "arguments": [str(argument) for argument in arguments],
            "limits": dict(limits or {}),
            "user": user,
            "before": before,
            "out": str(folder / "out"),
            "err": str(folder / "err"),
        }
        return Child(self, int(self.ask(order)), folder)

    def run(self, *arguments: object, timeout: float = 60.0, **options: object) -> Finished:
        """`start`, and wait for its end."""
        return self.start(*arguments, **options).wait(timeout)  # type: ignore[arg-type]

    def ask(self, order: Mapping[str, object]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
