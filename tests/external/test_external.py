"""What goes to and comes from another interpreter."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.data.xyz import read_frames
from hambench.environments import Environment
from hambench.errors import DataError, RunError
from hambench.external.exchange import read_energies, write_molecules
from hambench.external.process import run_worker
from hambench.external.training import Course
from hambench.learn import Interrupted
from hambench.learn.reporters import Reporter, Row
from hambench.units import HARTREE_EV


class TestExchange:
    def test_labels_go_out_in_ev_and_come_back_the_same(
        self, waters: list[Molecule], tmp_path: Path
    ):
        molecules = waters
        write_molecules(tmp_path / "m.extxyz", molecules, energies=True, forces=True)
        lines = (tmp_path / "m.extxyz").read_text().splitlines()
        assert "REF_forces:R:3" in lines[1]
        energies = [float(line.partition("REF_energy=")[2]) for line in lines[1::5]]
        assert np.allclose(energies, [m.energy * HARTREE_EV for m in molecules], rtol=0, atol=1e-9)
        rows = np.array(
            [line.split()[1:] for k in range(3) for line in lines[5 * k + 2 : 5 * k + 5]]
        )
        positions = np.vstack([m.positions for m in molecules])
        forces = np.vstack([m.forces for m in molecules])
        assert np.array_equal(rows[:, :3].astype(float), positions)
        assert np.allclose(rows[:, 3:].astype(float) / HARTREE_EV, forces, rtol=0, atol=1e-15)

    def test_charge_and_spin_go_along(self, waters: list[Molecule], tmp_path: Path):
        ion = replace(waters[0], charge=1, multiplicity=2)
        write_molecules(tmp_path / "m.extxyz", [ion])
        (frame,) = read_frames(tmp_path / "m.extxyz")
        assert (frame.molecule.charge, frame.molecule.multiplicity) == (1, 2)
        assert np.array_equal(frame.molecule.numbers, ion.numbers)
        assert np.array_equal(frame.molecule.positions, ion.positions)

    def test_a_label_that_lacks_is_named_and_nothing_is_written(
        self, waters: list[Molecule], tmp_path: Path
    ):
        bare = replace(waters[0], forces=None)
        with pytest.raises(DataError, match=f"'{bare.id}' has no forces"):
            write_molecules(tmp_path / "m.extxyz", [bare], energies=True, forces=True)
        assert list(tmp_path.iterdir()) == []

    def test_predictions_are_read_in_any_order(self, tmp_path: Path):
        path = tmp_path / "p.csv"
        path.write_text(f"row,energy_ev\n1,{-2 * HARTREE_EV!r}\n0,nan\n")
        found = read_energies(path, 2)
        assert np.isnan(found[0])
        assert found[1] == pytest.approx(-2, abs=1e-15)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("row,energy\n0,1.0\n", "no CSV of row and energy_ev"),
            ("row,energy_ev\n0,one\n", "no CSV of row and energy_ev"),
            ("row,energy_ev\n0,1.0\n", "expected each of 0 to 1 once"),
            ("row,energy_ev\n0,1.0\n0,1.0\n", "expected each of 0 to 1 once"),
        ],
    )
    def test_predictions_that_are_none_are_refused(self, tmp_path: Path, text: str, said: str):
        path = tmp_path / "p.csv"
        path.write_text(text)
        with pytest.raises(RunError, match=said):
            read_energies(path, 2)


class TestProcess:
    def test_events_come_in_order_and_the_units_are_ours(
        self, made: Environment, worker: Path, tmp_path: Path
    ):
        events: list[int] = []
        job = {"action": "predict", "out": str(tmp_path / "out.csv")}
        run_worker("tiny", worker, job, tmp_path, lambda event: events.append(event["molecules"]))
        assert events == [1, 2, 3]
        assert read_energies(tmp_path / "out.csv", 3) == pytest.approx([0, 1, 2], abs=1e-14)
        assert "said by a library" in (tmp_path / "worker.log").read_text()

    @pytest.mark.parametrize(
        ("job", "said"),
        [
            ({"action": "refuse", "thing": "tea"}, "no such thing as tea"),
            ({"action": "crash"}, "ZeroDivisionError: division by zero"),
            ({"action": "die"}, "killed by signal 9"),
        ],
    )
    def test_a_failure_is_told_with_the_log(
        self, made: Environment, worker: Path, tmp_path: Path, job: dict, said: str
    ):
        with pytest.raises(RunError, match=said) as told:
            run_worker("tiny", worker, job, tmp_path, lambda event: None)
        assert str(tmp_path / "worker.log") in str(told.value)

    def test_a_signal_stops_the_worker_and_says_so(
        self, made: Environment, worker: Path, tmp_path: Path
    ):
        heard: list[float] = []

        def hear(event: dict) -> None:
            heard.append(time.monotonic())
            if len(heard) == 5:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted, match="SIGTERM"):
            run_worker("tiny", worker, {"action": "train"}, tmp_path, hear)
        assert heard[-1] - heard[4] < 5


class Heard(Reporter):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.begun: list[int] = []

    def start(self, step: int, elapsed_s: float) -> None:
        self.begun.append(step)

    def row(self, row: Row) -> None:
        self.rows.append(row)


def test_the_course_is_logged_as_that_of_any_model_and_cut_where_it_goes_on(tmp_path: Path):
    log, heard = tmp_path / "log.jsonl", Heard()
    for begin in (0, 4):
        course = Course(log, 2, [heard])
        course.hear({"event": "start", "step": begin, "seconds": float(begin)})
        for step in range(begin + 1, begin + 7):
            place = {"step": step, "epoch": step // 2, "seconds": float(step)}
            course.hear({"event": "step", **place, "loss": 0.1, "molecules": 10 * step})
            if step % 2 == 0:
                course.hear({"event": "validation", **place, "mae": HARTREE_EV, "loss": 0.2})
            course.hear({"event": "kept", **place})
        course.close()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [row["step"] for row in rows if "val_e_mae" in row]
    assert steps == [2, 4, 6, 8, 10]  # 6 of the first start was cut off
    assert all(row["val_e_mae"] == 1.0 for row in rows if "val_e_mae" in row)
    speeds = [row["molecules_per_s"] for row in rows if "molecules_per_s" in row]
    assert speeds
    assert all(speed == 10 for speed in speeds)
    assert heard.begun == [0, 4]
