"""Initial guesses: what is learned beyond them, what is added back, the file that keeps them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data.content import content_hash
from hambench.data.graph import Batch, GraphSpec, Normalisation, build_graph, collate, pair_labels
from hambench.data.guess import FOLDER, Guess, guess_of
from hambench.data.loader import Loader
from hambench.data.padding import padded
from hambench.data.store import Store, write_store
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.model import Prediction
from hambench.tasks.schnorb import SchnorbDatabase

BASIS = OrbitalBasis.load("def2-svp", [1, 8])
HF = Theory("hf", "def2-svp")
GUESS = Guess(HF, "toy")
WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the files of guesses, in a folder of its own for every test."""
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path))
    return tmp_path / FOLDER


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Molecule]:
    """Molecules whose guesses were asked of PySCF, which is left out: it takes its time."""
    asked: list[Molecule] = []

    def made_up(molecule: Molecule, theory: Theory) -> np.ndarray:
        asked.append(molecule)
        seed = int.from_bytes(content_hash(molecule, ())[:4], "little")
        matrix = np.random.default_rng([seed, len(theory.xc)]).normal(size=(2, *nao_of(molecule)))
        return matrix[0] + matrix[0].T

    monkeypatch.setattr(dft, "initial_fock", made_up)
    return asked


def nao_of(molecule: Molecule) -> tuple[int, int]:
    nao = BASIS.nao(molecule.numbers)
    return nao, nao


def molecules(count: int, labelled: bool = True) -> list[Molecule]:
    """Distorted waters, hydroxide ions and oxygen atoms with random symmetric matrices."""
    rng = np.random.default_rng(7)
    found = []
    for k in range(count):
        atoms, charge = (3, 0) if k % 3 == 0 else (2, -1) if k % 3 == 1 else (1, 0)
        positions = WATER[:atoms] + rng.normal(scale=0.05, size=(atoms, 3))
        bare = Molecule(np.array([8, 1, 1])[:atoms], positions, charge, basis="def2-svp", id=str(k))
        matrix = rng.normal(size=nao_of(bare))
        found.append(replace(bare, hamiltonian=matrix + matrix.T) if labelled else bare)
    return found


def spec_of(**settings: object) -> GraphSpec:
    given = {"space": "uncoupled", "guess": GUESS, **settings}
    return GraphSpec(BASIS, **given)  # type: ignore[arg-type]


def at_the_labels(batch: Batch, spec: GraphSpec) -> Prediction:
    """What a model puts out that has learned the labels by heart, and nonsense for padding."""
    size, real = spec.layout.size, batch.real
    node, edge = (torch.zeros(n * size, dtype=spec.dtype) for n in (real.atoms, real.edges))
    node[batch.node_places] = batch.node_values
    places, values = pair_labels(batch)
    edge[places] = values
    more = batch.num_nodes - real.atoms, batch.num_edges - real.edges
    blocks = [
        torch.cat([known.view(-1, size), torch.full((rest, size), 9.0, dtype=spec.dtype)])
        for known, rest in zip((node, edge), more, strict=True)
    ]
    return Prediction(batch, spec, *blocks)


def nothing(batch: Batch, spec: GraphSpec) -> Prediction:
    size = spec.layout.size
    shapes = (batch.num_nodes, size), (batch.num_edges, size)
    return Prediction(batch, spec, *(torch.zeros(shape, dtype=spec.dtype) for shape in shapes))


def check_whole(found: Sequence[torch.Tensor], expected: Sequence[np.ndarray | None]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.numpy() - other).max() < 1e-12


def test_the_guess_is_the_fock_matrix_of_minao() -> None:
    """By PySCF itself, for a molecule, an ion and an atom; kept, it is the same to the bit."""
    for molecule in molecules(3):
        first = GUESS.matrix(molecule)
        assert np.abs(first - dft.initial_fock(molecule, HF)).max() < 1e-12
        assert np.array_equal(GUESS.matrix(molecule), first)


@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.usefixtures("computed")
def test_labels_and_guess_are_the_hamiltonian(space: str, scaled: bool) -> None:
    mols = molecules(5)
    scaling = None
    if scaled:
        size = GraphSpec(BASIS).layout.size
        mean, std = (torch.rand(2, 9, size, dtype=torch.float64) + 0.5).unbind()
        scaling = Normalisation(mean, std)
    spec = spec_of(space=space, normalisation=scaling)
    batch = collate(mols, spec)
    check_whole(at_the_labels(batch, spec).matrices(), [m.hamiltonian for m in mols])
    check_whole([torch.from_numpy(GUESS.residual(m).hamiltonian) for m in mols],
                [m.hamiltonian - GUESS.matrix(m) for m in mols])  # fmt: skip


@pytest.mark.usefixtures("computed")
def test_stored_matrices_too(tmp_path: Path) -> None:
    """The packed triangle of our own file; and ORCA's order, the full matrix, in float32."""
    mols = molecules(6)
    write_store(tmp_path / "store.h5", mols, basis=BASIS)
    pytest.importorskip("ase")
    public = Path(__file__).parent.parent / "fixtures" / "schnorb_water.db"
    for rows in (Store(tmp_path / "store.h5"), SchnorbDatabase(public)):
        spec = spec_of()
        for k in range(3):
            molecule, stored = rows.stored(k)
            assert stored is not None
            graph = build_graph(molecule, spec, stored)
            whole = build_graph(rows[k], spec)
            assert torch.equal(graph.guess, whole.guess)
            found = at_the_labels(collate([rows[k]], spec), spec).matrices()
            check_whole(found, [rows[k].hamiltonian])
            values = [torch.sort(g.pair_values.abs()).values for g in (graph, whole)]
            torch.testing.assert_close(*values, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("computed")
def test_predictions_are_beyond_the_guess() -> None:
    """For molecules without labels, beyond the model's cutoff, and in batches of any shape."""
    mols = molecules(7, labelled=False)
    expected = [GUESS.matrix(m) for m in mols]
    for cutoff in (None, 0.5):
        spec = spec_of(cutoff=cutoff, dtype=torch.float32)
        check_whole(nothing(collate(mols, spec), spec).matrices(), expected)
    loaded = list(Loader(mols, spec, batch_size=3, shuffle=False).once())
    parts = [nothing(item.batch, spec).matrices() for item in loaded]
    check_whole([h for part in parts for h in part], expected)


@pytest.mark.usefixtures("computed")
def test_padded_batches() -> None:
    mols, spec = molecules(5), spec_of()
    batch = padded([build_graph(m, spec) for m in mols], spec, max_edges=40)
    assert batch.num_edges == 40
    check_whole(at_the_labels(batch, spec).matrices(), [m.hamiltonian for m in mols])


@pytest.mark.usefixtures("computed")
def test_training_batches_leave_it_out() -> None:
    spec = spec_of()
    loader = Loader(molecules(2), spec, batch_size=2, guesses=False)
    (loaded,) = loader.once()
    assert "guess" not in loaded.batch
    with pytest.raises(ConfigError, match="carries no initial guesses"):
        nothing(loaded.batch, spec).matrices()
    assert spec.for_energies().guess is None
    assert spec.bare().guess is None
    references = Loader(molecules(2), spec, batch_size=2, shuffle=False, references=True)
    (loaded,) = references.once()
    flat = torch.cat([h.reshape(-1) for h in at_the_labels(loaded.batch, spec).matrices()])
    assert (flat - loaded.batch.reference).abs().max() < 1e-12


def test_each_is_computed_once(computed: list[Molecule]) -> None:
    mols = molecules(9)
    assert GUESS.missing(mols) == list(range(9))
    assert GUESS.complete(mols[:4]) == 4
    assert GUESS.complete(mols, show=lambda rows, label: rows) == 5
    assert len(computed) == 9
    assert all(m.hamiltonian is None for m in computed)
    again = Guess(HF, "another")
    assert again.missing(mols) == []
    assert again.complete(mols) == 0
    collate([replace(m, id="x", energy=-1.0) for m in mols], spec_of())
    assert len(computed) == 9


def test_what_is_another_guess(computed: list[Molecule], folder: Path) -> None:
    """Charge, place and theory make another; thresholds of an SCF, names and labels do not."""
    water = molecules(1)[0]
    first = GUESS.packed(water)
    Guess(replace(HF, conv_tol=1e-6, max_cycles=3, basis="DEF2-SVP")).packed(water)
    assert len(computed) == 1
    GUESS.packed(replace(water, charge=2))
    GUESS.packed(replace(water, positions=water.positions + 1e-12))
    assert len(computed) == 3
    assert len(list(folder.iterdir())) == 1
    other = Guess(Theory("pbe", "def2-svp")).packed(water)
    Guess(Theory("pbe", "def2-svp", fit="def2-universal-jfit")).packed(water)
    Guess(Theory("pbe", "def2-svp", grid_level=4)).packed(water)
    assert len(computed) == 6
    assert len(list(folder.iterdir())) == 4
    assert not np.array_equal(first, other)


def test_what_others_finish_meanwhile_is_not_computed(
    computed: list[Molecule], monkeypatch: pytest.MonkeyPatch
) -> None:
    mols, compute = molecules(12), dft.initial_fock

    def with_others(molecule: Molecule, theory: Theory) -> np.ndarray:
        monkeypatch.setattr(dft, "initial_fock", compute)
        for other in mols[:8]:
            GUESS.packed(other)
        return compute(molecule, theory)

    monkeypatch.setattr(dft, "initial_fock", with_others)
    assert 4 <= GUESS.complete(mols) <= 5
    assert GUESS.missing(mols) == []


def test_an_interruption_keeps_what_is_done(
    computed: list[Molecule], monkeypatch: pytest.MonkeyPatch
) -> None:
    mols, compute = molecules(12), dft.initial_fock

    def interrupted(molecule: Molecule, theory: Theory) -> np.ndarray:
        if len(computed) == 5:
            raise KeyboardInterrupt
        return compute(molecule, theory)

    monkeypatch.setattr(dft, "initial_fock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GUESS.complete(mols)
    assert len(GUESS.missing(mols)) == 7
    monkeypatch.setattr(dft, "initial_fock", compute)
    assert GUESS.complete(mols) == 7
    assert len({m.id for m in computed}) == 12


PROGRAM = """
import sys, time
import numpy as np
from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.data.guess import Guess
def slow(molecule, theory):
    time.sleep(0.05)
    return molecule.positions[0, 2] * np.ones((5, 5))
dft.initial_fock = slow
assert "torch" not in sys.modules
print("ready", flush=True)
sys.stdin.readline()
atoms = [Molecule(np.array([1]), np.array([[0, 0, float(k)]])) for k in range(60)]
print(Guess(dft.Theory("hf", "def2-svp")).complete(atoms, workers=1))
"""


def test_two_processes_at_once_and_one_is_killed(folder: Path) -> None:
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    atoms = [Molecule(np.array([1]), np.array([[0, 0, float(k)]])) for k in range(60)]
    while len(GUESS.missing(atoms)) > 40:
        time.sleep(0.02)
    pair[0].kill()
    pair[0].communicate()
    assert 20 <= int(pair[1].communicate()[0]) <= 60
    assert not GUESS.missing(atoms)
    for k, atom in enumerate(atoms):
        assert np.array_equal(GUESS.packed(atom), np.full(15, float(k)))
    assert len(list(folder.iterdir())) == 1


def test_several_workers_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ones, from the first molecule on."""
    monkeypatch.setattr("hambench.data.workers._WORTH", 0.0)
    mols = molecules(3)
    assert GUESS.complete(mols, workers=2) == 3
    for molecule in mols[1:3]:
        assert np.abs(GUESS.matrix(molecule) - dft.initial_fock(molecule, HF)).max() < 1e-10


def test_without_pyscf(computed: list[Molecule], monkeypatch: pytest.MonkeyPatch) -> None:
    mols = molecules(3)
    GUESS.complete(mols[:2])
    monkeypatch.setattr(engine, "is_installed", lambda: False)
    GUESS.check(mols[:2])
    with pytest.raises(ConfigError, match=r"toy learns beyond initial guesses, 1 of which .*PySCF"):
        GUESS.check(mols)


def test_options_of_a_model() -> None:
    assert guess_of("none", None, BASIS, "toy") is None
    assert guess_of("minao", HF.to_dict(), BASIS, "toy") == Guess(HF, "toy")
    with pytest.raises(RegistryError, match="unknown theory 'pbe/def2-sv'"):
        guess_of("minao", "pbe/def2-sv", BASIS, "toy")
    with pytest.raises(ConfigError, match="basis def2-tzvpd, expected def2-svp"):
        guess_of("minao", "wb97m-v/def2-tzvpd", BASIS, "toy")
    for unknown in (None, "${task.theory}", {}):
        found = guess_of("minao", unknown, BASIS, "toy")
        assert found is not None
        for ask in (found.packed, found.check, found.missing, found.complete):
            with pytest.raises(ConfigError, match="toy needs the level of theory of the labels"):
                ask(molecules(1)[0] if ask == found.packed else molecules(1))


def test_open_shells_are_named() -> None:
    radical = replace(molecules(2)[1], charge=0, id="radical")
    with pytest.raises(ConfigError, match=r"molecule 'radical': 9 electrons .* no closed shell"):
        collate([radical], spec_of())


@pytest.mark.usefixtures("computed")
def test_files_that_cannot_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (water,) = molecules(1)
    first = GUESS.packed(water)
    (path,) = folder.iterdir()
    assert sqlite3.connect(path).execute("SELECT theory FROM about").fetchone()[0].startswith("{")
    path.write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match=r"cannot read .*remove it, and the initial guesses"):
        GUESS.packed(water)
    path.unlink()
    folder.rmdir()
    folder.write_text("a file where the folder has to be")
    assert np.array_equal(GUESS.packed(water), first)
    assert "an initial guess is not kept" in caplog.text
    with pytest.raises(ConfigError, match="is a file"):
        GUESS.complete([water])
