"""`Uma`: a published potential as it is, compared on labels it was not trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.references import element_references
from hambench.errors import ConfigError, DataError
from hambench.external import ExternalModel, FitResult, Recipe, Reporter
from hambench.files import atomic_write, sha256_of

_FITTED = "references.json"


class Uma(ExternalModel):
    """A UMA or eSEN checkpoint of ``fairchem-core`` (Wood et al., arXiv 2506.23971), evaluated.

    Nothing of the network is trained. Its energies are of the level of theory of its own training
    data and the zero of its references, so per element one number is fitted, by least squares, to
    ``E_label - E_checkpoint`` on the training set, and added: what is left is the error of energy
    differences, the difference between the two levels of theory included. It saw molecules like
    those of the test set; a comparison with models trained here has to say so.

    Args:
        basis: of the task.
        weights: file of the checkpoint, which its owners give out to those who accept their terms.
        head: of the checkpoint, named after the data set it was trained on.
    """

    environment = "uma"
    worker = Path(__file__).with_name("worker.py")

    def __init__(self, basis: OrbitalBasis, *, weights: str = "", head: str = "omol") -> None:
        super().__init__(basis)
        self.weights, self.head = weights, head

    def check(self, recipe: Recipe, rows: int) -> None:
        """Besides the environment: the file of weights must be there."""
        self._check_weights()
        super().check(recipe, rows)

    def fit(
        self,
        train: Sequence[Molecule],
        validation: Sequence[Molecule],
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        device: str,
        progress: bool,
        reporters: Sequence[Reporter],
    ) -> FitResult:
        """Fit the energies of the elements to what the checkpoint leaves over."""
        began = time.monotonic()
        self._check_weights()
        energies = super().predict(train, folder, device=device, progress=progress)
        left = [
            replace(molecule, energy=None if molecule.energy is None else molecule.energy - energy)
            for molecule, energy in zip(train, energies.tolist(), strict=True)
        ]
        references, _ = element_references(left, max(self.basis.elements) + 1)
        with atomic_write(folder / _FITTED) as file:
            fitted = {
                "weights": sha256_of(self.weights),
                "references": references.tolist(),
            }
            json.dump(fitted, file)
        return FitResult(
            steps=0,
            epochs=0.0,
            metric="e_mae",
            best_value=None,
            best_step=0,
            wall_s=time.monotonic() - began,
            steps_per_s=None,
            molecules_per_s=None,
            peak_memory=self.memory,
            stopped_by="nothing to train",
            restarts=0,
        )

    def predict(
        self, molecules: Sequence[Molecule], folder: Path, *, device: str, progress: bool
    ) -> NDArray[np.float64]:
        """(molecules,) energies of the checkpoint, and those of the elements, in Eh."""
        references = self._references(folder)
        energies = super().predict(molecules, folder, device=device, progress=progress)
        return energies + np.array([references[m.numbers].sum() for m in molecules])

    def prediction_job(self, folder: Path) -> dict[str, Any]:
        """The checkpoint and its head."""
        return {"weights": self.weights, "head": self.head}

    def _references(self, folder: Path) -> NDArray[np.float64]:
        """(Z,) Eh, as `fit` left them."""
        try:
            fitted = json.loads((folder / _FITTED).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read {folder / _FITTED}: {error}; run the cell anew with overwrite=true"
            ) from error
        self._check_weights()
        if sha256_of(self.weights) != fitted["weights"]:
            raise ConfigError(
                f"{self.weights} is another file than the run in {folder.parent} had; give it that "
                "one, or start anew with overwrite=true"
            )
        return np.array(fitted["references"])

    def _check_weights(self) -> None:
        if not self.weights:
            raise ConfigError(
                "model 'uma' is evaluated with weights of yours: get a checkpoint of UMA or eSEN "
                "from its owners, and name it with model.hyperparameters.weights=FILE"
            )
        if not Path(self.weights).is_file():
            raise ConfigError(
                f"model.hyperparameters.weights={self.weights} is no file; give the path of a UMA "
                "or eSEN checkpoint"
            )
