"""The mean block: right means, exact equivariance, and exact where symmetry leaves nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hambench.baselines import MeanBlock
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.graph import collate
from hambench.errors import DataError
from hambench.learn.weights import cast
from hambench.scoring import score

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 8, 16, 17])
Label = Callable[[list[int], np.ndarray, str], Molecule]


def prepared(molecules: list[Molecule]) -> MeanBlock:
    model = MeanBlock(BASIS)
    model.prepare(molecules)
    return model


def predict(model: MeanBlock, molecules: list[Molecule]) -> list[np.ndarray]:
    return [h.numpy() for h in model(collate(molecules, model.graph)).matrices()]


def test_rotations_and_reflections(molecules: list[Molecule]) -> None:
    model = prepared(molecules)
    before = predict(model, molecules)
    turn = Rotation.random(rng=8).as_matrix()
    after = predict(model, [replace(m, positions=m.positions @ turn.T) for m in molecules])
    for m, a, b in zip(molecules, before, after, strict=True):
        matrix = ao_rotation(m.numbers, BASIS, turn)
        assert np.abs(b - matrix @ a @ matrix.T).max() < 1e-12
    inverted = predict(model, [replace(m, positions=-m.positions) for m in molecules])
    for m, a, b in zip(molecules, before, inverted, strict=True):
        parity = [(-1) ** l for z in m.numbers.tolist() for l in BASIS.shells[z].l
                  for _ in range(2 * l + 1)]  # fmt: skip
        assert np.abs(b - np.outer(parity, parity) * a).max() < 1e-12


def test_means_do_not_depend_on_orientation(molecules: list[Molecule]) -> None:
    """Labels turned by the representation of the orbitals give the same means."""
    model = prepared(molecules)
    turned = []
    for k, m in enumerate(molecules):
        turn = Rotation.random(rng=k).as_matrix()
        matrix = ao_rotation(m.numbers, BASIS, turn)
        turned.append(
            replace(
                m, positions=m.positions @ turn.T, hamiltonian=matrix @ m.hamiltonian @ matrix.T
            )
        )
    other = prepared(turned)
    assert (model.on_site - other.on_site).abs().max() < 1e-12
    assert (model.pair - other.pair).abs().max() < 1e-12


def test_on_site_means_by_hand(molecules: list[Molecule]) -> None:
    """Oxygen in def2-SVP is 3s2p1d: s elements are plain means, p-p blocks a third of the trace."""
    waters = molecules[:3]
    (matrix,) = predict(prepared(waters), waters[:1])
    label = np.mean([m.hamiltonian[:14, :14] for m in waters], axis=0)
    assert np.abs(matrix[:3, :3] - label[:3, :3]).max() < 1e-12
    for a, b in ((3, 3), (3, 6), (6, 6)):
        block = matrix[a : a + 3, b : b + 3]
        expected = np.trace(label[a : a + 3, b : b + 3]) / 3 * np.eye(3)
        assert np.abs(block - expected).max() < 1e-12
    assert np.abs(matrix[:3, 3:14]).max() == 0
    assert np.abs(matrix[9:14, 9:14] - np.trace(label[9:, 9:]) / 5 * np.eye(5)).max() < 1e-12


def test_a_linear_molecule_has_no_more_to_tell(label: Label) -> None:
    """The pair blocks of HCl are invariant to turns about the bond: one label tells all of them.

    The other label is computed afresh with the molecule lying elsewhere, so this also proves the
    directions of edges and harmonics on real matrices.
    """
    direction = np.array([0.48, -0.6, 0.64])
    seen = label([1, 17], np.array([[0, 0, 0], [0, 0, 1.28]]), "z")
    unseen = label([17, 1], np.array([0.3, 1, -2]) + np.outer([0, 1.28], direction), "turned")
    found = score(predict(prepared([seen]), [unseen]), [unseen])
    assert found["h_mae_offdiag"].value < 1e-8
    assert found["h_mae_diag"].value > 1e-4  # the on-site blocks feel the bond


def test_pairs_of_both_orders(molecules: list[Molecule]) -> None:
    """The block of (i, j) is the transpose of (j, i) before anything is made symmetric."""
    model = prepared(molecules)
    for matrix in model(collate(molecules, model.graph)).raw_matrices():
        assert (matrix - matrix.T).abs().max() < 1e-13


def test_atoms_in_another_order(molecules: list[Molecule]) -> None:
    model = prepared(molecules)
    water = molecules[0]
    swapped = replace(water, numbers=water.numbers[[1, 0, 2]], positions=water.positions[[1, 0, 2]],
                      hamiltonian=None)  # fmt: skip
    (one,), (other,) = predict(model, [water]), predict(model, [swapped])
    place = np.r_[14:19, 0:14, 19:24]
    assert np.abs(other - one[np.ix_(place, place)]).max() < 1e-13


def test_batches_change_nothing(molecules: list[Molecule]) -> None:
    model = prepared(molecules)
    for m, together in zip(molecules, predict(model, molecules), strict=True):
        assert np.abs(predict(model, [m])[0] - together).max() < 1e-13


def test_what_was_never_seen_is_zero(molecules: list[Molecule]) -> None:
    model = prepared(molecules[:3])
    (matrix,) = predict(model, molecules[3:4])  # H S H: H alone is known, and pairs of H
    sulphur = np.arange(5, 23)
    assert np.abs(matrix[sulphur]).max() == 0
    assert np.abs(matrix[:5, :5]).max() > 0.1
    assert np.abs(matrix[:5, 23:]).max() > 1e-3


def test_is_a_model_without_parameters(molecules: list[Molecule]) -> None:
    model = prepared(molecules)
    assert model.count_parameters() == 0
    copy = MeanBlock(BASIS)
    copy.load_state_dict(model.state_dict())
    for one, other in zip(predict(model, molecules), predict(copy, molecules), strict=True):
        assert (one == other).all()
    batch = collate(molecules, model.graph)
    loss = model.loss(model(batch), batch)
    assert torch.isfinite(loss.value())
    assert loss.counts.item() == sum(m.hamiltonian.size for m in molecules)


def test_better_than_nothing(molecules: list[Molecule]) -> None:
    """The mean over the waters beats predicting zero by a factor of five."""
    waters = molecules[:3]
    floor = score(predict(prepared(waters[:2]), waters[2:]), waters[2:])["h_mae"].value
    zero = np.abs(waters[2].hamiltonian).mean()
    assert floor < 0.2 * zero


def test_needs_labels(molecules: list[Molecule]) -> None:
    with pytest.raises(DataError, match="'0' has no Hamiltonian to take the mean of"):
        prepared([replace(molecules[0], hamiltonian=None)])


def test_no_precision_asked_for_changes_them(molecules: list[Molecule]) -> None:
    model = prepared(molecules)
    before = predict(model, molecules)
    cast(model, torch.float32)
    assert all(map(np.array_equal, predict(model, molecules), before))
