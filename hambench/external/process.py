"""Running a worker script in an environment: a job goes in, events come out."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hambench.environments import environment
from hambench.errors import RunError
from hambench.files import atomic_write
from hambench.learn.interrupts import Interrupted, StopRequest

Event = dict[str, Any]
"""``event`` says what it is, the other keys depend on it; see `hambench.external.host`."""

LOG = "worker.log"
_HOST = Path(__file__).with_name("host.py")
_ASK = 0.2  # seconds between looks whether the user wants to stop


def run_worker(
    name: str,
    script: Path,
    job: Mapping[str, Any],
    folder: Path,
    on_event: Callable[[Event], None],
) -> None:
    """Let a worker script do a job and hand on its events, in order, as they come.

    The job is kept as ``folder/ACTION.json``; whatever the script prints, as ``folder/worker.log``.
    On Ctrl-C or SIGTERM the worker is asked to stop (SIGTERM), on the second one it is killed.

    Args:
        name: of the environment, and in messages of the model.
        script: the worker, see `hambench.external.host`.
        job: JSON-able; ``action`` names the function of the script.
        folder: is made.
        on_event: called with every event but ``failed``.

    Raises:
        ConfigError: the environment is not made.
        RunError: the job failed.
        Interrupted: the user or the system stopped it.
    """
    python = environment(name).require()
    file = folder / f"{job['action']}.json"
    with atomic_write(file) as opened:
        json.dump(job, opened, indent=2)
    stop, reason = StopRequest(), ""
    with (
        open(folder / LOG, "a", encoding="utf-8") as log,
        stop,
        subprocess.Popen(
            [python, "-I", _HOST, script, file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C on the terminal reaches us alone
        ) as process,
    ):
        threading.Thread(target=_watch, args=(process, stop), daemon=True).start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "failed":
                    reason = event["reason"]
                else:
                    on_event(event)
        except BaseException:
            process.kill()
            raise
    if stop:
        raise Interrupted(f"stopped by {stop.signal}; the same command goes on", stop.signal)
    if process.returncode:
        raise RunError(
            f"model '{name}' failed in its environment: {reason or _ended(process.returncode)}; "
            f"what it printed is in {folder / LOG}"
        )


def _watch(process: subprocess.Popen[str], stop: StopRequest) -> None:
    """Ask the process to stop as soon as the user does."""
    while process.poll() is None:
        if stop:
            process.terminate()
            return
        threading.Event().wait(_ASK)


def _ended(code: int) -> str:
    if code > 0:
        return f"it ended with exit code {code}"
    return f"it was killed by signal {-code} (is the memory large enough?)"
