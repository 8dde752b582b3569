"""The docs' page on cohorts and clusters says what the code does, and its SLURM script makes a job."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from restain.slides import cohort
from restain.slides.cluster import AHEAD
from restain.slides.manifest import COLUMNS, Status
from restain.slides.outliers import LEAST_SLIDES, LEAST_SPREAD, OUTLIER
from restain.slides.quality_sheet import MOST_SLIDES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cohorts.md").read_text(encoding="utf-8")


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


def calls(name: str) -> list[ast.Call]:
    """The calls of a function in the script."""
    nodes = [node for node in ast.walk(ast.parse(script())) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func) == name]


def settings_of(call: ast.Call) -> dict[str, Any]:
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def test_the_slurm_script_makes_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, not submitted; a shell parses it, and it asks for what the docs' arguments say."""
    dask_jobqueue = pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    (call,) = calls("SLURMCluster")
    settings = settings_of(call)
    quiet = {"scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with dask_jobqueue.SLURMCluster(**settings, **quiet) as cluster:
        job = cluster.job_script()
        address = cluster.scheduler_address
    (tmp_path / "job.sh").write_text(job)
    assert subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=False).returncode == 0
    assert job.startswith("#!/usr/bin/env bash\n")
    wanted = {"-p": settings["queue"], "--cpus-per-task": str(settings["cores"]), "-t": settings["walltime"]}
    given = dict(re.findall(r"^#SBATCH (-{1,2}[\w-]+)[= ](.*)$", job, flags=re.MULTILINE))
    assert {option: given[option] for option in wanted} == wanted
    assert given["--mem"] == "15G"  # 16 GB, in units of 1024³
    last = job.rstrip().splitlines()[-1]
    assert "dask" in last
    assert address in last
    assert f"--nthreads {settings['cores'] // settings['processes']}" in last


def test_the_script_calls_a_command_that_there_is() -> None:
    from restain.cli import app

    (given,) = (node for node in ast.walk(ast.parse(script())) if isinstance(node, ast.Assign))
    words = [*ast.literal_eval(given.value), "--scheduler", "tcp://127.0.0.1:8786"]
    command, bound, *_ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__name__ == "normalize"
    assert bound.arguments["target_consensus"] is True
    assert bound.arguments["scheduler"] == "tcp://127.0.0.1:8786"


def test_every_file_column_and_status_is_there() -> None:
    for name in (*cohort.OWN_FILES, *COLUMNS, *Status.__args__):  # type: ignore[attr-defined]
        assert f"`{name}`" in PAGE, name


def test_the_score_is_as_documented() -> None:
    assert f"From {OUTLIER} on" in PAGE
    assert f"at least {LEAST_SPREAD:.0%}".replace("%", " %") in PAGE
    assert (LEAST_SLIDES, MOST_SLIDES, AHEAD) == (5, 1000, 2)
    for words in ("fewer than five slides", "a thousand slides", "two for each thread"):
        assert words in PAGE, words
