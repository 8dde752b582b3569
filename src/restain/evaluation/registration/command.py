"""`restain register A/ B/ -o aligned/`: plan the pairs, register them, write the table and the sheet."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from restain.errors import OutputError
from restain.evaluation.registration.files import Outcome, is_done, outputs_of, plan_pairs, register_files
from restain.evaluation.registration.preview import check_preview, write_preview
from restain.evaluation.registration.report import write_table


def register_folders(
    source: Path,
    target: Path,
    output: Path,
    table: Path | None,
    *,
    preview: Path | None,
    overwrite: bool,
    workers: int | None,
    progress: Callable[[int], AbstractContextManager[Any]],
) -> list[Outcome]:
    """Register two folders, or the pairs of a csv, into `output`.

    Args:
        source: folder whose pixels stay as they are.
        target: folder of what is warped.
        output: folder to write to.
        table: csv of pairs; None to pair by name.
        preview: sheet to write; None for none.
        overwrite: do again what is done already.
        workers: threads; None for one a core.
        progress: gives, for a number of pairs, a context with what `register_files` calls after each.

    Raises:
        InputError, OutputError: what was asked for cannot be done; nothing was written.
    """
    pairs, alone = plan_pairs(source, target, output, table)
    if preview is not None:
        check_preview(preview, overwrite)
    if not overwrite and all(is_done(pair, outputs_of(pair, output)) for pair in pairs):
        raise OutputError(f"all {len(pairs)} pairs are done already; pass --overwrite to do them again")
    if alone:
        warnings.warn(f"{len(alone)} images have no partner and are left out, {alone[0]} for one", stacklevel=2)
    with warnings.catch_warnings(), progress(len(pairs)) as report:
        warnings.simplefilter("ignore")  # what a slide claims about its pixel size is no news here
        outcomes = list(register_files(pairs, output, overwrite=overwrite, workers=workers, progress=report))
        write_table(output, outcomes)
        if preview is not None:
            write_preview(preview, outcomes, overwrite)
    return outcomes
