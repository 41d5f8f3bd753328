"""UMA: its messages; and, slow, fairchem itself with a checkpoint of random weights."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hambench.baselines.uma.model import Uma
from hambench.chem.orbitals import OrbitalBasis
from hambench.environments import environment
from hambench.errors import ConfigError, DataError, RunError
from hambench.learn import Recipe
from hambench.registry import RECIPES, load_task


class TestUmaMessages:
    basis = OrbitalBasis.load("def2-svp", [1, 8])

    def test_weights_must_be_named_and_be_there(self, tmp_path: Path):
        recipe = Recipe.parse(RECIPES.preset("uma").content)
        with pytest.raises(ConfigError, match="from its owners, and name it with"):
            Uma(self.basis).check(recipe, 1)
        with pytest.raises(ConfigError, match=r"none.pt is no file"):
            Uma(self.basis, weights=str(tmp_path / "none.pt")).check(recipe, 1)
        (tmp_path / "some.pt").write_bytes(b"")
        with pytest.raises(ConfigError, match="make it with: hambench env make uma"):
            Uma(self.basis, weights=str(tmp_path / "some.pt")).check(recipe, 1)

    def test_other_weights_than_those_of_the_run_are_refused(self, tmp_path: Path):
        (tmp_path / "other.pt").write_bytes(b"other")
        folder = tmp_path / "external"
        with pytest.raises(DataError, match=r"references.json"):
            Uma(self.basis).predict(
                [load_task("water_mini").split("train")[0]], folder, device="cpu", progress=False
            )
        folder.mkdir()
        (folder / "references.json").write_text('{"weights": "abc", "references": [0, 0]}')
        with pytest.raises(ConfigError, match="another file than the run"):
            Uma(self.basis, weights=str(tmp_path / "other.pt")).predict(
                [load_task("water_mini").split("train")[0]], folder, device="cpu", progress=False
            )


RANDOM = """
import copy, sys
import hydra, torch
from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

torch.manual_seed(0)
uma, units = "fairchem.core.models.uma.escn_md", "fairchem.core.units.mlip_unit.mlip_unit"
sizes = dict.fromkeys(["sphere_channels", "hidden_channels", "edge_channels"], 8)
config = {
    "_target_": "fairchem.core.models.base.HydraModel",
    "pass_through_head_outputs": True,
    "backbone": {
        "model": f"{uma}.eSCNMDBackbone", **sizes, "num_layers": 1, "num_distance_basis": 16,
        "otf_graph": True, "always_use_pbc": False, "direct_forces": False,
        "dataset_mapping": {"omol": "omol"},
    },
    "heads": {"all": {"module": f"{uma}.MLP_EFS_Head"}},
}
model = hydra.utils.instantiate(copy.deepcopy(config))
tasks = [
    {
        "_target_": f"{units}.Task", "name": name, "level": level, "property": name,
        "out_spec": {"_target_": f"{units}.OutputSpec", "dim": [size], "dtype": "float32"},
        "normalizer": {
            "_target_": "fairchem.core.modules.normalization.normalizer.Normalizer",
            "mean": 0.0, "rmsd": 1.0,
        },
        "datasets": ["omol"],
    }
    for name, level, size in (("energy", "system", 1), ("forces", "atom", 3))
]
ema = torch.optim.swa_utils.AveragedModel(model).state_dict()
torch.save(MLIPInferenceCheckpoint(config, model.state_dict(), ema, tasks), sys.argv[1])
print(sum(p.numel() for p in model.parameters()))
"""


@pytest.mark.slow
def test_a_checkpoint_of_random_weights_is_predicted_with_and_its_references_fitted(tmp_path: Path):
    """fairchem's own classes and loader; published weights are not to be had by a test."""
    made = environment("uma")
    if made.state != "ready":
        pytest.skip("environment uma is not made: hambench env make uma (2.4 GB)")
    weights = tmp_path / "random.pt"
    script = [made.require(), "-I", "-c", RANDOM, str(weights)]
    asked = subprocess.run(script, capture_output=True, text=True, check=True)
    train = load_task("water_mini").split("train")
    molecules = [train[k] for k in range(8)]
    turned = [replace(m, positions=m.positions @ rotation(1.0).T) for m in molecules]
    model = Uma(TestUmaMessages.basis, weights=str(weights))
    recipe = Recipe.parse(RECIPES.preset("uma").content)
    options = {"device": "cpu", "progress": False}
    fitted = model.fit(molecules, [], recipe, tmp_path, seed=0, reporters=[], **options)
    assert (fitted.steps, fitted.stopped_by) == (0, "nothing to train")
    assert model.parameters == int(asked.stdout.split()[-1])
    energies = model.predict(molecules, tmp_path, **options)
    labels = np.array([m.energy for m in molecules])
    assert abs((energies - labels).mean()) < 1e-9  # one composition: the mean is fitted exactly
    assert np.ptp(energies) > 0
    assert np.abs(model.predict(turned, tmp_path, **options) - energies).max() < 1e-6
    with pytest.raises(RunError, match="has no head 'omat', it has omol"):
        Uma(TestUmaMessages.basis, weights=str(weights), head="omat").predict(
            molecules, tmp_path, **options
        )


def rotation(angle: float) -> np.ndarray:
    """About an axis that is none of the frame's."""
    return Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8])).as_matrix()
