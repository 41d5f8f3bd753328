"""Programs that show the course of runs beside each other: TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hambench.errors import ConfigError
from hambench.learn.interrupts import Interrupted
from hambench.learn.loop import LOG
from hambench.learn.reporters import Reporter, Row

_PATIENCE: Final = 30  # seconds that Weights & Biases may take to answer when a run begins or ends

logger = logging.getLogger("hambench.learn")


class Tracker(Reporter):
    """A reporter that also hears of the result; each method may be left as it is."""

    def result(self, metrics: Mapping[str, float]) -> None:
        """The final metrics, in the units of ``result.json``; after `close`."""

    def end(self, exit_code: int) -> None:
        """Nothing more will come: 0, the run is done; 130, interrupted, it goes on; 1, it failed.

        Comes once and last, whether or not the run got as far as `start` or `result`.
        """


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, run_id: str, title: str, spec: Mapping[str, Any]
) -> Iterator[list[Tracker]]:
    """Trackers of a run, which hear how the block ends.

    Args:
        names: which, of `hambench.config.Tracker`.
        folder: the run directory; a tracker has a folder of its own in it.
        run_id: of the run: one that goes on is the same run to a tracker.
        title: what people call it.
        spec: the resolved configuration, without paths.

    Raises:
        ConfigError: a tracker is not installed, or its settings make no sense.
    """
    trackers: list[Tracker] = []
    if "tensorboard" in names:
        trackers.append(TensorBoard(folder / "tensorboard"))
    if "wandb" in names:
        trackers.append(WeightsAndBiases(folder, run_id, title, spec))
    exit_code = 1
    try:
        yield trackers
        exit_code = 0
    except (Interrupted, KeyboardInterrupt):
        exit_code = 130
        raise
    finally:
        for tracker in trackers:
            tracker.end(exit_code)


class TensorBoard(Tracker):
    """Curves for TensorBoard.

    Args:
        folder: where its event files go.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard") from error
        self._make = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, step: int, elapsed_s: float) -> None:
        """Open the event file; points beyond ``step`` of an earlier start are hidden."""
        self._writer = self._make(str(self._folder), purge_step=step + 1)

    def row(self, row: Row) -> None:
        """Add a point to every curve."""
        assert self._writer is not None
        for name, value in _values(row).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases: rows, the configuration, and the final metrics as its summary.

    It is online where a key is configured, else kept offline in ``folder/wandb``; the environment
    (``WANDB_MODE``, ``WANDB_PROJECT``, ...) and settings of the program itself go before. A run
    that goes on is the same run, and gets the rows of ``log.jsonl`` that it has not yet: online
    those behind the last one it was sent, offline all, in files that replace the earlier ones, as
    a killed process leaves files there without their last rows.

    Args:
        folder: the run directory.
        run_id, title, spec: see `tracked`.

    Raises:
        ConfigError: ``wandb`` is not installed; or online is asked for and no key is configured.
    """

    def __init__(self, folder: Path, run_id: str, title: str, spec: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("Weights & Biases") from error
        self._wandb: Any = wandb
        self._folder, self._id, self._title, self._spec = folder, run_id, title, spec
        self._mode = _mode(wandb)
        self._run: Any = None

    def start(self, step: int, elapsed_s: float) -> None:
        """Open the run, and catch up with the log."""
        self._open(goes_on=step > 0)

    def row(self, row: Row) -> None:
        """Add a point to every curve, unless the run was sent it by an earlier start."""
        step = row["step"]
        if step is not None and step >= self._run.starting_step:
            self._run.log(_values(row), step=int(step))

    def result(self, metrics: Mapping[str, float]) -> None:
        """Put the metrics into the summary."""
        if self._run is None:  # training was over before this start, or there was none
            self._open(goes_on=True)
        self._run.summary.update(dict(metrics))

    def end(self, exit_code: int) -> None:
        """Send or write what is left."""
        if self._run is None:
            return
        if exit_code == 130 and self._mode == "online":
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)

    def _open(self, goes_on: bool) -> None:
        try:
            self._run = self._begun(goes_on)
        except self._wandb.errors.CommError as error:
            logger.warning(
                "Weights & Biases did not take the run (%s); it is kept offline", _one_line(error)
            )
            self._mode = "offline"
            self._wandb.teardown()  # or the name is in use
            self._run = self._begun(goes_on)
        except self._wandb.errors.UsageError as error:
            raise _unusable(error) from error
        if self._mode == "offline":
            where = Path(self._run.dir).parent
            logger.info("Weights & Biases, offline; send it with: wandb sync %s", where)
        for row in _logged(self._folder / LOG) if goes_on else ():
            self.row(row)

    def _begun(self, goes_on: bool) -> Any:
        if self._mode == "offline":
            for earlier in (self._folder / "wandb").glob(f"offline-run-*-{self._id}"):
                shutil.rmtree(earlier)
        known = self._wandb.setup().settings
        settings = self._wandb.Settings(
            console="off",  # what the run prints is its own
            silent=True,
            init_timeout=min(known.init_timeout, _PATIENCE),
            finish_timeout=known.finish_timeout or _PATIENCE,
        )
        return self._wandb.init(
            project=known.project or "hambench",
            id=self._id,
            name=self._title,
            config=dict(self._spec),
            dir=str(self._folder),
            mode=self._mode,
            resume="allow" if goes_on and self._mode == "online" else None,
            settings=settings,
        )


def _mode(wandb: Any) -> str:
    """Online or offline, or what the environment asks for; never a question at the terminal."""
    try:
        asked = str(wandb.setup().settings.mode)
        has_key = wandb.api.api_key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    except (ValueError, wandb.errors.UsageError) as error:
        raise _unusable(error) from error
    mode = {"dryrun": "offline", "run": "online"}.get(asked, asked)  # older names
    if mode not in ("online", "shared") or has_key:
        return mode
    if os.environ.get("WANDB_MODE"):
        raise ConfigError(
            f"WANDB_MODE={os.environ['WANDB_MODE']} needs a key of Weights & Biases and none is "
            "configured; set WANDB_API_KEY, run `wandb login`, or leave WANDB_MODE out to keep the "
            "run offline"
        )
    return "offline"


def _values(row: Row) -> dict[str, float]:
    """What there is to plot of a row."""
    return {name: value for name, value in row.items() if name != "step" and value is not None}


def _logged(path: Path) -> Iterator[Row]:
    """The rows of ``log.jsonl``, if there is one."""
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _unusable(error: Exception) -> ConfigError:
    return ConfigError(
        f"the settings of Weights & Biases are refused ({_one_line(error)}); mend the variables "
        "WANDB_... of the environment, or leave out tracker=wandb"
    )


def _missing(what: str) -> ConfigError:
    return ConfigError(f"{what} is not installed; run `pip install 'hambench[trackers]'`")
