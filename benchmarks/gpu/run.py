"""Do entries of the queue, one after another, and pack what they leave into one archive.

    python benchmarks/gpu/run.py --list
    python benchmarks/gpu/run.py first_light bench_float32 --out FOLDER
    python benchmarks/gpu/run.py --all --smoke --out FOLDER     # tries the programs, on a CPU

An entry that fails does not stop the others. The archive is written anew after each of them. A
training that was stopped by its limit goes on when it is asked for again where ``--work`` is still
there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import forked
from entries import PACKED, Entry, Scale, Words, queue
from records import (
    ARCHIVE,
    COMMIT,
    ENTRIES,
    RUNS,
    CommandRecord,
    EntryRecord,
    Outcome,
    read_record,
    without_paths,
    write_archive,
    write_record,
)

from hambench.errors import ConfigError, HambenchError, nearest
from hambench.files import explained
from hambench.results import Provenance

_SAID: Final = 4000  # characters kept of what a failed command printed


def main() -> None:
    """Do what is asked for on the command line."""
    asked = _arguments()
    try:
        _do_asked(asked)
    except HambenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: the archive holds the entries that were done", file=sys.stderr)
        sys.exit(130)


def _do_asked(asked: argparse.Namespace) -> None:
    work = asked.work or PACKED / ("smoke" if asked.smoke else "work")
    data = asked.data or (work if asked.smoke else PACKED) / "data"
    scale = Scale(asked.device, data.resolve(), work.resolve(), asked.smoke)
    names = _names(asked, scale)
    if asked.list:
        for entry in queue(scale):
            if entry.name in names:
                print(f"{entry.name:24} {entry.seconds:4} s  {entry.asks}")
        return
    _check_writable(scale.work, "machine.json")
    _check_work(scale)
    _check_writable(asked.out, ARCHIVE)
    _prepare(scale, asked.data is None)
    machine = _machine(scale)
    known = {entry.name: entry for entry in queue(scale)}  # now that the data are there
    end = time.monotonic() + asked.seconds
    for name in names:
        left = end - time.monotonic()
        if left < 2 * forked.GRACE:
            print(f"{name}: not begun, the {asked.seconds:g} seconds are used up")
            continue
        record = _do(known[name], min(left, known[name].seconds), scale, machine)
        write_record(scale.work, record)
        left_out = write_archive(asked.out / ARCHIVE, scale.work)
        print(_line(record), *(f"  left out: {file}" for file in left_out), sep="\n", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", metavar="ENTRY")
    parser.add_argument("--all", action="store_true", help="every entry, in order")
    parser.add_argument("--list", action="store_true", help="show the entries and do nothing")
    parser.add_argument("--out", type=Path, default=Path(), help="where the archive goes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="folder of packed data, else that of pack.py")
    parser.add_argument("--work", type=Path, help="folder of the runs, else one in build/gpu")
    parser.add_argument(
        "--seconds", type=_seconds, default=math.inf, help="for all entries together"
    )
    parser.add_argument("--smoke", action="store_true", help="small models, next to no steps")
    return parser.parse_args()


def _seconds(word: str) -> float:
    seconds, least = float(word), 2 * forked.GRACE
    if not seconds >= least:
        raise argparse.ArgumentTypeError(
            f"{word} are too few to begin an entry, at least {least:g}"
        )
    return seconds


def _names(asked: argparse.Namespace, scale: Scale) -> list[str]:
    """Of the entries that are asked for; ConfigError for none, and for one that there is not."""
    known = [entry.name for entry in queue(scale)]
    if asked.all and asked.entries:
        raise ConfigError(f"--all is every entry, '{asked.entries[0]}' too; leave out one of both")
    if asked.all or (asked.list and not asked.entries):
        return known
    if not asked.entries:
        raise ConfigError("name some entries, or give --all for every one; --list shows them")
    for name in asked.entries:
        if name not in known:
            raise ConfigError(f"no entry '{name}'.{nearest(name, known)}")
    names: list[str] = asked.entries
    return names


def _check_work(scale: Scale) -> None:
    """ConfigError where the archive would mix what a smoke test left with what is measured."""
    for path in sorted((scale.work / ENTRIES).glob("*.json")):
        if read_record(path).smoke != scale.smoke:
            before = "measurements" if scale.smoke else "a smoke test"
            raise ConfigError(
                f"{scale.work} holds what {before} left ({path.stem}), which would go into the "
                "same archive; give another --work, or remove that folder"
            )


def _check_writable(folder: Path, file: str) -> None:
    """An error where a file cannot be written: now, not when the first entry is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise explained(error, folder / file) from error


def _prepare(scale: Scale, of_own: bool) -> None:
    """Everything that is the same for all commands.

    Args:
        scale: where data and runs are.
        of_own: whether a smoke test has no data yet.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks for GPUs without starting CUDA
    if (commit := scale.data.parent / COMMIT).is_file():
        os.environ["HAMBENCH_COMMIT"] = commit.read_text("utf-8").strip()
    if scale.smoke and of_own:
        from rows import tiny

        tiny(scale.data)
    os.environ["HAMBENCH_DATA"] = str(scale.data)
    import hambench.experiment  # noqa: F401  (loads the libraries before the first fork)


def _do(entry: Entry, limit: float, scale: Scale, machine: dict[str, Any]) -> EntryRecord:
    """The record of an entry, done within ``limit`` seconds."""
    started, began = datetime.now(UTC), time.monotonic()
    reason = _missing(entry)
    done: list[CommandRecord] = []
    for number, command in enumerate(() if reason else entry.commands):
        left = limit - (time.monotonic() - began)
        place = scale.work / "logs" / f"{entry.name}-{number}"
        done.append(_command(command, left, place, scale))
    outcomes: set[Outcome] = {one.outcome for one in done} - {"done"}
    outcome: Outcome = "skipped" if reason else "done"
    if outcomes:
        outcome = "failed" if "failed" in outcomes else "stopped"
        reason = next(f"{one.command:.200}: {one.said[-300:]}" for one in done if one.said)
    return EntryRecord(
        entry=entry.name,
        asks=entry.asks,
        smoke=scale.smoke,
        outcome=outcome,
        reason=without_paths(reason),
        device=machine["gpu"] or "cpu",
        started=started,
        seconds=time.monotonic() - began,
        limit=round(limit),
        commands=tuple(done),
        provenance=Provenance.model_validate(machine),
    )


def _missing(entry: Entry) -> str:
    """What an entry lacks; empty if it can be done."""
    from hambench.cell import open_task

    for config in filter(None, map(_config, entry.commands)):
        task = open_task(config)
        if not task.available:
            return f"the data of task '{task.name}' are not here ({task.path}); see QUEUE.md"
    return ""


def _config(command: Words) -> Any:
    """The configuration of a training; None of other commands, and where it is wrong."""
    from hambench.compose import compose

    if command[:2] != ("hambench", "run"):
        return None
    try:
        return compose(command[2:])
    except HambenchError:  # which the command says itself
        return None


def _command(command: Words, seconds: float, place: Path, scale: Scale) -> CommandRecord:
    """The record of a command, which is stopped after a time; its output goes to files."""
    words = without_paths(shlex.join(command))
    if seconds < 2 * forked.GRACE:
        said = "not begun, the time of the entry is used up"
        return CommandRecord(command=words, outcome="stopped", exit_code=None, seconds=0, said=said)
    began = time.monotonic()
    code, stopped = forked.run(command, seconds, place)
    outcome: Outcome = "stopped" if stopped else "failed" if code else "done"
    output, run = _left_by(command, place, scale)
    said = "" if outcome == "done" else _end(place)
    return CommandRecord(
        command=words, outcome=outcome, exit_code=code, seconds=time.monotonic() - began,
        output=output, said=said, run=run,
    )  # fmt: skip


def _left_by(command: Words, place: Path, scale: Scale) -> tuple[Any, str | None]:
    """What a command measured, and its run directory."""
    config = _config(command)
    if config is not None:
        run = config.folder.relative_to(scale.work / RUNS).as_posix()
        return _of_run(config.folder), run
    if command[0] == "first_light":
        return _json(scale.work / "first_light.json"), None
    if "--json" in command:
        return _json(Path(f"{place}.out")), None
    return _end(place), None


def _of_run(folder: Path) -> Any:
    """The main numbers of a run, or how far it came."""
    result = _json(folder / "result.json")
    if result is None:
        return _json(folder / "status.json")
    metric, cost = result["metrics"][result["primary"]], result["cost"]
    kept = ("steps", "wall_s", "steps_per_s", "molecules_per_s", "peak_memory", "stopped_by")
    return {result["primary"]: metric, **{key: cost[key] for key in kept}}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _end(place: Path) -> str:
    """The end of what a command printed."""
    texts = [Path(f"{place}{suffix}") for suffix in (".out", ".err")]
    said = "\n".join(path.read_text("utf-8", "replace") for path in texts if path.is_file())
    return without_paths(said.strip())[-_SAID:] or "it printed nothing"


def _machine(scale: Scale) -> dict[str, Any]:
    """Provenance of everything done here, found by a process that may use the GPU.

    Raises:
        ConfigError: the device cannot be used.
    """
    file = scale.work / "machine.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    forked.call(_look_around, scale.device, file)
    found: dict[str, Any] | None = _json(file)
    if found is None or "error" in found:
        why = found["error"] if found else "the process that tried it died"
        raise ConfigError(f"--device {scale.device} cannot be used here: {why}")
    if not scale.device.startswith("cuda"):
        found["gpu"] = None
    return found


def _look_around(device: str, file: Path) -> None:
    import torch

    from hambench import registry
    from hambench.learn.device import open_fabric
    from hambench.provenance import provenance

    try:
        torch.ones(1, device=open_fabric(device).device)
    except (HambenchError, RuntimeError) as error:  # a RuntimeError is CUDA's
        file.write_text(json.dumps({"error": str(error).partition("\n")[0]}), "utf-8")
        return
    found = provenance(datetime.now(UTC), 0, registry.plugins())
    file.write_text(found.model_dump_json(), "utf-8")


def _line(record: EntryRecord) -> str:
    """One line on an entry, and one on each of its trainings."""
    why = f": {' '.join(record.reason.split())}" if record.reason else ""
    lines = [f"{record.entry}: {record.outcome} in {record.seconds:.0f} s on {record.device}{why}"]
    for one in record.commands:
        if one.run is not None and isinstance(one.output, dict) and one.outcome == "done":
            name, metric = next(iter(one.output.items()))
            value, steps = 1e6 * metric["value"], one.output["steps"]
            lines.append(f"  {one.run}: {name} {value:.4g} uEh after {steps} steps")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
