"""How long a leaderboard of many results takes, and how much memory: ``--results 10000``.

Synthetic results of 10 tasks with 5 seeds each, with logs, are written to a temporary folder and
collected and rendered by a process of its own. With ``--browser PATH`` (of Chromium; needs
playwright) also how long it takes until the first page and its largest table can be used.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS, SEEDS, ROWS = 10, 5, 120
METRICS = ("h_mae", "h_mae_diag", "h_mae_offdiag", "eps_occ", "homo", "lumo", "gap")


def main() -> None:
    """Make results, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=int, default=10000)
    parser.add_argument("--browser", metavar="PATH", help="a Chromium to open the site with")
    parser.add_argument("--measure", nargs=2, metavar=("RUNS", "SITE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*map(Path, options.measure))
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, site = Path(folder) / "runs", Path(folder) / "site"
        make(runs, options.results)
        # A process of its own, whose peak of memory is that of the leaderboard alone.
        subprocess.run([sys.executable, __file__, "--measure", runs, site], check=True)
        if options.browser:
            browse(site, options.browser)


def make(runs: Path, number: int) -> None:
    """Write results: entry k of a task is a model with settings of its own."""
    draw = random.Random(0)
    for k in range(number):
        cell, seed = divmod(k, SEEDS)
        entry, task = divmod(cell, TASKS)
        folder = runs / f"task_{task}" / f"model_{entry % 20}" / f"seed{seed}-{k:08x}"
        folder.mkdir(parents=True)
        content = result(f"task_{task}", entry, seed, draw)
        (folder / "result.json").write_text(json.dumps(content))
        (folder / "log.jsonl").write_text("".join(map(line, range(ROWS))))


def line(k: int) -> str:
    """A row of a log: every tenth is a validation."""
    row: dict[str, float] = {"step": 20 * k, "epoch": k, "elapsed_s": 1.5 * k}
    told = {"val_h_mae": 1 / (k + 9), "val_loss": 1 / (k + 8)}
    return json.dumps(row | (told if k % 10 == 9 else {"train_loss": 1 / (k + 7)})) + "\n"


def result(task: str, entry: int, seed: int, draw: random.Random) -> dict[str, Any]:
    """The content of a ``result.json`` of a run that never was."""
    error = 1e-4 * (1 + entry % 50) * draw.uniform(0.98, 1.02)
    metric = {"unit": "Eh", "n": 100}
    interval = {"value": error, "ci95": [0.97 * error, 1.03 * error]}
    moment = "2026-01-01T00:00:00Z"
    return {
        "schema_version": 2,
        "run_id": f"{draw.getrandbits(256):064x}",
        "task": task,
        "task_version": 1,
        "fingerprint": "ab" * 32,
        "source": "generated",
        "split": "test",
        "model": "network",
        "preset": f"model_{entry % 20}",
        "hyperparameters": {"channels": entry, **{f"option_{k}": 0.5 * k for k in range(15)}},
        "parameters": 10000 * (entry + 1),
        "recipe": {"optimizer": {"name": "adamw", "lr": 1e-3}, "batch_size": 10, "max_steps": 2400},
        "seed": seed,
        "metrics": {name: metric | interval for name in METRICS},
        "primary": "h_mae",
        "reproduce": f"hambench run task={task} model=model_{entry % 20} seed={seed}",
        "cost": {
            "device": ("cpu", "cuda")[entry % 2],
            "wall_s": 100.0 + entry,
            "steps": 2400,
            "epochs": 10.0,
            "steps_per_s": 10.0,
            "molecules_per_s": 100.0,
            "peak_memory": 1 << 30,
            "stopped_by": "max_steps",
        },
        "provenance": {
            "package": "0.1.0",
            "commit": None,
            "dirty": None,
            "python": "3.11",
            "libraries": {f"library{k}": "1.0" for k in range(10)},
            "plugins": {},
            "cuda": None,
            "gpu": None,
            "cpu": "a processor",
            "cores": 2,
            "os": "Linux",
            "command": "hambench run",
            "restarts": 0,
            "started": moment,
            "finished": moment,
        },
    }


def measure(runs: Path, site: Path) -> None:
    """Collect and render; how long each takes, and the peak of memory so far."""
    from hambench.leaderboard import collect, write

    before, clock = peak(), Clock()
    board = collect([runs])
    took = clock.read()
    entries = sum(1 for _ in board.entries)
    results = sum(1 for _ in board.runs)
    print(f"{results} results, {entries} entries; {before:.0f} MB before the first was read")
    print(f"collect  {took}  {peak():6.0f} MB peak")
    for name in ("html", "md", "tex", "csv", "json"):
        clock = Clock()
        write(board, site, [name])
        print(f"{name:<8} {clock.read()}  {peak():6.0f} MB peak")
    files = [path for path in site.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    first = (site / "index.html").stat().st_size / 1e6
    print(f"site     {len(files)} files, {total:.0f} MB; index.html {first:.1f} MB")


class Clock:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> str:
        """Seconds since, and those this process was given of a processor."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return f"{wall:6.1f} s ({cpu:5.1f} s of a processor)"


def peak() -> float:
    """Most memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def browse(site: Path, browser: str) -> None:
    """Seconds until pages can be used: tables are sortable, and the browser is idle."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        largest = max(site.glob("*/*.html"), key=lambda path: path.stat().st_size)
        for path in (site / "index.html", largest):
            page = chromium.new_page()
            tools = page.context.new_cdp_session(page)
            tools.send("Performance.enable", {"timeDomain": "threadTicks"})
            started = time.perf_counter()
            page.goto(path.as_uri())
            page.locator(".dt-column-order").first.wait_for()
            page.evaluate("() => new Promise(requestAnimationFrame)")
            ready = time.perf_counter() - started
            told = tools.send("Performance.getMetrics")["metrics"]
            busy = next(one["value"] for one in told if one["name"] == "TaskDuration")
            started = time.perf_counter()
            page.locator("table.data").last.locator("th").first.click()
            page.evaluate("() => new Promise(requestAnimationFrame)")
            sort = time.perf_counter() - started
            rows = page.locator("tbody tr").count()
            print(f"{path.name}: ready after {ready:.1f} s ({busy:.1f} s of a processor), ", end="")
            print(f"sorted after {sort:.2f} s; {rows} rows at a time")


if __name__ == "__main__":
    main()
