"""How long `import restain` and `--help` take, and which heavy libraries they load.

    python benchmarks/startup.py

Wall time of whole processes, in turn with a bare interpreter, files in the system's cache.
"""

import importlib.util
import subprocess
import sys

from common import interleaved, print_goal, print_header, print_table

HEAVY = ("torch", "numba", "scipy", "matplotlib", "numpy", "PIL", "tifffile", "openslide", "rich", "cyclopts")
ROUNDS = 7
HELP = "import sys; sys.argv = ['restain', '--help']; from restain.cli import main; main()"
"""What the installed `restain --help` runs."""


def main() -> None:
    print_header("Starting up", f"{ROUNDS} processes of each, in turn")
    import_only = [sys.executable, "-c", "import restain"]
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "import restain": import_only}
    if importlib.util.find_spec("restain.cli") is None:
        print("restain.cli is not there: --help is left out\n")
    else:
        commands["restain --help"] = [sys.executable, "-c", HELP]
        commands["python -m restain.cli --help"] = [sys.executable, "-m", "restain.cli", "--help"]
    for name, command in list(commands.items()):
        result = run(command)
        if result.returncode != 0 or ("--help" in name and not result.stdout):
            print(f"{name} fails ({result.returncode}) or prints nothing: left out. {result.stderr.strip()[-300:]}\n")
            del commands[name]

    times = interleaved({name: lambda command=command: run(command) for name, command in commands.items()}, ROUNDS)
    rows = [
        [n, f"{times.median(n):.3f} s", f"{times.ratio(n, 'python -c pass'):.1f}x", loaded(commands[n])] for n in times
    ]
    print_table(["", "median", "over bare", "loads of " + ", ".join(HEAVY[:4]) + ", …"], rows)
    print_goal("import restain", times.median("import restain"), 0.3, unit=" s")
    for name in times:
        if "--help" in name:
            print_goal(name, times.median(name), 0.5, unit=" s")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, capture_output=True, text=True)


def loaded(command: list[str]) -> str:
    """Which of `HEAVY` the command has imported when it ends."""
    script = command[2] if command[1] == "-c" else HELP
    watch = (
        "import atexit, sys; atexit.register(lambda: "
        f"print(*[name for name in {HEAVY} if name in sys.modules], sep=', ', file=sys.stderr))"
    )
    lines = run([sys.executable, "-c", f"{watch}; {script}"]).stderr.strip().splitlines()
    return lines[-1] if lines else "none"


if __name__ == "__main__":
    main()
