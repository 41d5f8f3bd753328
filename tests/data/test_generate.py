"""Generation of labels with real PySCF on tiny molecules: kills, resumption, failures."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory
from hambench.data import generate as module
from hambench.data import labels
from hambench.data.generate import Part, generate
from hambench.data.labels import Job, do, jobs_of, noise_of
from hambench.data.spec import TaskSpec
from hambench.data.store import Store, write_store
from hambench.data.task import GeneratedTask
from hambench.errors import ConfigError, DataError

pytest.importorskip("pyscf")

THEORY = Theory("pbe", "sto-3g", grid_level=0)
ROWS = 40  # so many that a signal arrives before the last, on a busy machine too
SPEC = TaskSpec.from_dict(
    {
        "name": "hydrogen",
        "version": 1,
        "title": "hydrogen molecules",
        "citation": "none",
        "license": "MIT",
        "family": "hydrogen",
        "source": "generated",
        "files": {"main": {"name": "hydrogen.h5"}},
        "generated": "hydrogen.h5",
        "basis": "sto-3g",
        "elements": ["H", "Li"],
        "labels": "the tests",
        "theory": THEORY.to_dict(),
        "splits": {
            name: {"list": name, "sha256": "0" * 64, "count": 1}
            for name in ("train", "validation", "test")
        },
        "targets": [{"name": "hamiltonian", "unit": "Eh", "shape": "nao x nao"}],
        "metrics": [{"name": "h_mae", "direction": "lower"}],
    }
)


class Hydrogen(GeneratedTask):
    """Cheap molecules."""

    molecules = tuple(
        Molecule([1, 1], [[0, 0, 0], [0.1, 0.2, 0.7 + 0.02 * i]], id=f"h2-{i}") for i in range(ROWS)
    )

    @property
    def recipe(self) -> dict[str, Any]:
        return {"sampler": "none"}

    def geometries(self, n: int | None = None) -> list[Molecule]:
        return list(self.molecules)[:n]


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
from test_generate import Hydrogen, Part, SPEC, generate
if __name__ == "__main__":  # and not in the workers
    part = Part.parse(sys.argv[3])
    generate(Hydrogen(SPEC), workers=2, part=part, to=sys.argv[2], progress=False)
"""


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def _start(target: Path, part: str = "1/1") -> subprocess.Popen[str]:
    """`generate` in a process of its own, as a user has it."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(target), part],
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def _parts(target: Path) -> list[Path]:
    return sorted(target.parent.glob(f"{target.name}.parts/*/row-*.npz"))


def _wait_for_parts(target: Path, process: subprocess.Popen[str], count: int) -> None:
    while len(_parts(target)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def _assert_same_rows(a: Path, b: Path) -> None:
    one, other = Store(a), Store(b)
    assert one.ids == other.ids
    assert one.provenance == other.provenance
    for x, y in zip(one, other, strict=True):
        assert x.energy == y.energy
        for name in ("hamiltonian", "overlap", "forces", "positions"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted result of one worker."""
    target = tmp_path_factory.mktemp("reference") / "hydrogen.h5"
    return generate(Hydrogen(SPEC), workers=1, to=target, progress=False).path


def test_labels_are_those_of_calculate(reference: Path) -> None:
    store = Store(reference)
    assert store.ids == tuple(m.id for m in Hydrogen.molecules)
    assert store.theory == THEORY.to_dict()
    expected = dft.calculate(Hydrogen.molecules[4], THEORY).molecule
    assert store[4].energy == pytest.approx(expected.energy, abs=1e-11)
    np.testing.assert_allclose(store[4].hamiltonian, expected.hamiltonian, atol=1e-11)
    np.testing.assert_allclose(store[4].forces, expected.forces, atol=1e-11)
    assert not list(reference.parent.glob("*.parts"))


def test_provenance_says_how_exact_the_labels_are(reference: Path) -> None:
    provenance = Store(reference).provenance
    assert provenance["versions"]["pyscf"]
    assert provenance["left_out"] == {}
    assert provenance["convergence_noise_eh"]["h_max"] < 1e-8
    assert 1e-12 < provenance["orientation_noise_eh"]["h_max"] < 1e-2
    assert provenance["orientation_noise_eh"]["rows"] == 3


def test_killed_run_goes_on_where_it_was(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "hydrogen.h5"
    process = _start(target)
    _wait_for_parts(target, process, 2)
    process.kill()
    process.wait()
    assert not target.exists()
    time.sleep(0.3)  # the orphaned workers end by themselves
    kept = _parts(target)
    time.sleep(0.3)
    assert _parts(target) == kept
    assert len(kept) >= 2
    with np.load(kept[0]) as part:  # a mark that shows whether the part is used or redone
        content = {**part, "energy": np.float64(12.5)}
    np.savez(kept[0], **content)
    generate(Hydrogen(SPEC), workers=2, to=target, progress=False)
    marked = int(kept[0].stem.split("-")[1])
    assert Store(target)[marked].energy == 12.5
    rows = [m if i != marked else Store(reference)[i] for i, m in enumerate(Store(target))]
    store = Store(target)
    write_store(
        target, rows, basis=store.basis, theory=THEORY.to_dict(), provenance=store.provenance
    )
    _assert_same_rows(target, reference)


def test_interrupt_says_how_to_go_on(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "hydrogen.h5"
    process = _start(target)
    _wait_for_parts(target, process, 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "are finished and kept; start the same command again to go on" in errors
    assert not target.exists()
    generate(Hydrogen(SPEC), workers=2, to=target, progress=False)
    _assert_same_rows(target, reference)


def test_finished_file_is_not_made_again(reference: Path) -> None:
    before = reference.stat().st_mtime_ns
    made = generate(Hydrogen(SPEC), to=reference, progress=False)
    assert (made.path, made.finished, made.complete) == (reference, ROWS, True)
    assert reference.stat().st_mtime_ns == before
    other = SPEC.model_copy(update={"theory": {**SPEC.theory, "grid_level": 1}})
    with pytest.raises(ConfigError, match=r"hydrogen\.h5 exists and holds 40 rows of another"):
        generate(Hydrogen(other), to=reference, progress=False)


def test_first_rows_only(reference: Path, tmp_path: Path) -> None:
    target = generate(Hydrogen(SPEC), n=2, to=tmp_path / "two.h5", progress=False).path
    store = Store(target)
    assert store.ids == ("h2-0", "h2-1")
    np.testing.assert_array_equal(store[1].hamiltonian, Store(reference)[1].hamiltonian)


def test_a_file_of_few_rows_is_added_to(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = generate(Hydrogen(SPEC), n=3, to=tmp_path / "some.h5", progress=False).path
    few = Store(target)
    assert few.provenance["first"] == 3
    with pytest.raises(ConfigError, match=r"holds 3 rows, more than the 2 asked for"):
        generate(Hydrogen(SPEC), n=2, to=target, progress=False)
    done: list[str] = []
    monkeypatch.setattr(module, "_run", _noting(module._run, done))
    generate(Hydrogen(SPEC), to=target, progress=False)
    store, whole = Store(target), Store(reference)
    assert store.ids == whole.ids
    assert "first" not in store.provenance
    assert not {"h2-0", "h2-1", "h2-2"} & set(done)
    for row, other in zip(store, whole, strict=True):
        np.testing.assert_array_equal(row.hamiltonian, other.hamiltonian)


def _noting(run: Callable[..., None], done: list[str]) -> Callable[..., None]:
    """``_run``, noting the rows that it has to compute."""

    def noted(jobs: Sequence[Job], *rest: Any) -> None:
        done.extend(j.molecule.id for j in jobs if j.kind == "row" and not j.part.exists())
        run(jobs, *rest)

    return noted


def test_parts_are_done_one_by_one_and_the_last_makes_the_file(
    reference: Path, tmp_path: Path
) -> None:
    target = tmp_path / "hydrogen.h5"
    for index in (1, 3):
        made = generate(Hydrogen(SPEC), part=Part(index, 3), to=target, progress=False)
        assert not made.complete
        assert not target.exists()
    done = [int(part.stem.split("-")[1]) for part in _parts(target)]
    assert done == [i for i in range(ROWS) if i % 3 != 1]
    assert (made.finished, made.total) == (len(done), ROWS)
    made = generate(Hydrogen(SPEC), part=Part(2, 3), to=target, progress=False)
    assert (made.finished, made.complete) == (ROWS, True)
    _assert_same_rows(target, reference)
    assert [p.name for p in tmp_path.iterdir()] == ["hydrogen.h5"]


@pytest.mark.slow
def test_killed_part_goes_on_and_the_merge_is_the_same(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "hydrogen.h5"
    process = _start(target, "2/3")
    _wait_for_parts(target, process, 2)
    process.kill()
    process.wait()
    time.sleep(0.3)  # the orphaned workers end by themselves
    kept = {part: part.stat().st_mtime_ns for part in _parts(target)}
    assert 2 <= len(kept) < ROWS // 3
    generate(Hydrogen(SPEC), part=Part(2, 3), to=target, progress=False)
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in _parts(target)}.items()
    generate(Hydrogen(SPEC), to=target, progress=False)  # merges, and does the other parts
    _assert_same_rows(target, reference)


@pytest.mark.slow
def test_parts_of_two_machines_are_copied_together(reference: Path, tmp_path: Path) -> None:
    here, there = (tmp_path / name / "hydrogen.h5" for name in ("here", "there"))
    for target, index in ((here, 1), (there, 2)):
        generate(Hydrogen(SPEC), part=Part(index, 2), to=target, progress=False)
    shutil.copytree(there.parent, here.parent, dirs_exist_ok=True)
    with np.load(_parts(here)[0]) as part:  # as if one of them had an older PySCF
        content = {**part, "versions": np.array('{"pyscf": "2.8.0"}')}
    np.savez(_parts(here)[0], **content)
    cut = _parts(here)[1]
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{cut.name} is damaged .* copy it again"):
        generate(Hydrogen(SPEC), to=here, progress=False)
    assert not here.exists()
    cut.write_bytes(whole)
    generate(Hydrogen(SPEC), to=here, progress=False)
    one, other = Store(here), Store(reference)
    assert one.ids == other.ids
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x.hamiltonian, y.hamiltonian)
    assert "2.8.0" in one.provenance["versions"]["pyscf"].split(", ")


def test_processes_at_the_same_rows_share_them(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "hydrogen.h5"
    running = [_start(target, part) for part in ("1/1", "1/1", "2/2")]
    written: dict[Path, int] = {}
    while any(process.poll() is None for process in running):
        for part in _parts(target):
            with contextlib.suppress(FileNotFoundError):  # they are removed at the end
                inode = part.stat().st_ino
                assert written.setdefault(part, inode) == inode, f"{part} was computed twice"
        time.sleep(0.002)
    for process in running:
        assert process.returncode == 0, process.communicate()[1]
    _assert_same_rows(target, reference)
    assert [p.name for p in tmp_path.iterdir()] == ["hydrogen.h5"]


def test_a_row_under_way_elsewhere_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    jobs = labels.jobs_of(Hydrogen.molecules[:1], THEORY, tmp_path)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from hambench.data.claims import Claims\n"
        "with Claims(Path(sys.argv[1])).claim(0, wait=False) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert labels.do(jobs[0], wait=False) == "taken"
    assert not jobs[0].part.exists()
    threading.Timer(0.3, holder.kill).start()
    assert labels.do(jobs[0], wait=True) == "done"
    holder.communicate()


def test_rows_that_do_not_converge_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = Molecule([3, 1], [[0, 0, 0], [0, 0, 3.2]], id="lih")
    monkeypatch.setattr(Hydrogen, "molecules", (Hydrogen.molecules[0], hard, Hydrogen.molecules[1]))
    few = SPEC.model_copy(update={"theory": replace(THEORY, max_cycles=2).to_dict()})
    made = generate(Hydrogen(few), to=tmp_path / "mixed.h5", progress=False)
    store = Store(made.path)
    assert store.ids == ("h2-0", "h2-1")
    assert list(store.provenance["left_out"]) == ["lih"]
    assert "did not converge" in store.provenance["left_out"]["lih"]
    assert made.left_out == store.provenance["left_out"]


def test_rows_that_are_no_ground_state_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"bound": 0.74, "broken": 2.0, "apart": 4.0}  # Angstrom
    molecules = tuple(Molecule([1, 1], [[0, 0, 0], [0, 0, r]], id=m) for m, r in places.items())
    monkeypatch.setattr(Hydrogen, "molecules", molecules)
    made = generate(Hydrogen(SPEC), to=tmp_path / "broken.h5", progress=False)
    assert Store(made.path).ids == ("bound",)
    assert "an open shell has a lower energy" in made.left_out["broken"]
    assert "gap between occupied and empty orbitals is 0.0" in made.left_out["apart"]


def test_no_noise_is_measured_on_rows_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretched = Molecule([1, 1], [[0, 0, 0], [0, 0, 4.0]], id="apart")
    row, *noise = jobs_of([stretched], THEORY, tmp_path)
    assert do(row, wait=True) == "failed"
    monkeypatch.setattr("hambench.data.labels.orientation_noise", None)  # nobody calls them
    monkeypatch.setattr("hambench.data.labels.convergence_noise", None)
    assert [job.kind for job in noise] == ["orientation", "convergence"]
    assert [do(job, wait=True) for job in noise] == ["failed", "failed"]
    assert noise_of([row, *noise]) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_slurm_array_shares_the_rows(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "hydrogen.h5"
    script = tmp_path / "make.py"
    script.write_text(SCRIPT)
    command = f"{sys.executable} {script} {Path(__file__).parent} {target} $SLURM_ARRAY_TASK_ID/3"
    subprocess.run(
        ["sbatch", "--wait", "--array=1-3", f"--output={tmp_path}/%a.log", "--wrap", command],
        check=True,
        env=_environment(),
        timeout=300,
    )
    _assert_same_rows(target, reference)
    assert not _parts(target)


@pytest.mark.parametrize("text", ["0/16", "17/16", "3", "a/b", "1/0", "-1/2", "3/16/2"])
def test_wrong_parts_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"part={text} is no share .* part=1/16 to part=16/16"):
        Part.parse(text)


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    task = Hydrogen(SPEC)
    with pytest.raises(ConfigError, match="0 workers cannot compute"):
        generate(task, workers=0, to=tmp_path / "a.h5")
    with pytest.raises(ConfigError, match="has 40 geometries, 41 were asked for"):
        generate(task, n=41, to=tmp_path / "a.h5")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; choose another"):
        generate(task, to=tmp_path / "file" / "a.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
