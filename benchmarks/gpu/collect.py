"""Check what came back from a GPU machine, and put it where it belongs.

    python benchmarks/gpu/collect.py results.tar.gz [--data FOLDER]

Runs pass the check of submissions and go to ``leaderboard/results/TASK/MODEL``; measurements to
``benchmarks/results/ENTRY-GPU-TIME.json``. What failed is shown and left. Nothing that is there is
replaced: the same once more is passed over. Exit code 1: something was refused.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from entries import PACKED, ROOT
from records import ENTRIES, KEPT, RUNS, EntryRecord, read_record, unpack

from hambench.errors import DataError, HambenchError
from hambench.files import atomic_folder, atomic_path
from hambench.leaderboard.runs import read_runs
from hambench.results import RESULT, read_result
from hambench.submission.check import check

BOARD: Final = Path("leaderboard") / "results"
MEASURED: Final = Path("benchmarks") / "results"

_NOT_HANDED_IN: Final = ("config.yaml", "status.json", "traceback.txt")  # of that machine alone


def main() -> None:
    """Collect one archive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    parser.add_argument("--data", type=Path, default=PACKED / "data", help="of the packed rows")
    asked = parser.parse_args()
    os.environ["HAMBENCH_DATA"] = str(asked.data.resolve())
    with tempfile.TemporaryDirectory() as folder:
        try:
            refused = collect(asked.archive, asked.root, Path(folder))
        except HambenchError as error:
            sys.exit(f"error: {error}")
    sys.exit(1 if refused else 0)


def collect(archive: Path, root: Path, folder: Path) -> int:
    """File what an archive holds; returns how much was refused.

    Args:
        archive: of the queue.
        root: of the repository.
        folder: an empty one to unpack into.

    Raises:
        DataError: it is no archive of the queue, or of one that only tried the programs.
    """
    unpack(archive, folder)
    records = [read_record(path) for path in sorted((folder / ENTRIES).glob("*.json"))]
    if not records:
        raise DataError(f"{archive} holds no record of an entry")
    if tried := [record.entry for record in records if record.smoke]:
        raise DataError(f"{archive} is of a smoke test ({tried[0]}): there is nothing to keep")
    for record in records:
        print(_said(record))
    lines = [*_measurements(records, root / MEASURED), *_runs(folder / RUNS, root / BOARD)]
    for well, line in lines:
        print(line if well else f"refused: {line}")
    return sum(not well for well, _ in lines)


def _said(record: EntryRecord) -> str:
    why = f": {' '.join(record.reason.split())}" if record.reason else ""
    return f"{record.entry}: {record.outcome} in {record.seconds:.0f} s on {record.device}{why}"


def _measurements(records: Sequence[EntryRecord], to: Path) -> Iterator[tuple[bool, str]]:
    """File the records that hold more than runs do; (whether it went well, what was done)."""
    for record in records:
        measured = [one for one in record.commands if one.run is None and one.output is not None]
        if record.outcome == "skipped" or not measured:
            continue
        device = re.sub("[^a-z0-9]+", "-", record.device.lower()).strip("-")
        target = to / f"{record.entry}-{device}-{record.started:%Y%m%dT%H%M%S}.json"
        if target.exists():
            yield True, f"{target} is there"
            continue
        with atomic_path(target) as temporary:
            temporary.write_text(record.model_dump_json(indent=1) + "\n", "utf-8")
        yield True, f"{target}"


def _runs(runs: Path, to: Path) -> Iterator[tuple[bool, str]]:
    """File the runs that pass the check of submissions."""
    if not runs.is_dir():
        return
    found = read_runs([runs])
    for run in found.unfinished:
        yield True, f"{run.name} is not finished: step {run.status.step}, {run.status.state}"
    if not found.runs and not found.left_out:
        return
    for checked in check([runs]):
        wrong = [finding.text for finding in checked.findings if finding.level == "error"]
        if wrong:
            yield False, f"{checked.name}: {wrong[0]}"
            continue
        folder = runs.parent / checked.name
        result = read_result(folder)
        yield _filed(folder, to / result.task / result.preset / folder.name)


def _filed(run: Path, target: Path) -> tuple[bool, str]:
    """Copy what belongs on the leaderboard."""
    names = [name for name in KEPT if name not in _NOT_HANDED_IN and (run / name).is_file()]
    if target.exists():
        same = filecmp.cmp(run / RESULT, target / RESULT, shallow=False)
        return same, f"{target} is there" + ("" if same else ", with another result")
    with atomic_folder(target) as new:
        for name in names:
            shutil.copyfile(run / name, new / name)
    return True, f"{target}"


if __name__ == "__main__":
    main()
