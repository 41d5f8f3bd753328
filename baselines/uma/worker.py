"""Predicts with a UMA or eSEN checkpoint, under the interpreter of fairchem's own environment.

`hambench/external/host.py` calls `predict` there; nothing of hambench is imported. Energies are in
eV.
"""

from __future__ import annotations

from typing import Any


def predict(job: dict[str, Any], host: Any) -> None:
    """Energies of the molecules of an extxyz file, one after the other."""
    import ase.io
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import load_predict_unit

    device = host.device(job["device"])
    if ":" in device:
        host.fail(f"device={device}: fairchem takes cpu or cuda; choose a GPU by its environment")
    # "batch" is for molecules that differ: nothing is merged or compiled for one composition
    unit = load_predict_unit(job["weights"], inference_settings="batch", device=device)
    heads = sorted(unit.dataset_to_tasks)
    if job["head"] not in heads:
        host.fail(
            f"{job['weights']} has no head '{job['head']}', it has {', '.join(heads)}; choose one "
            "with model.hyperparameters.head=NAME"
        )
    calculator = FAIRChemCalculator(unit, task_name=job["head"])
    frames = ase.io.read(job["molecules"], index=":")
    energies = []
    for atoms in frames:
        atoms.info["spin"] = atoms.info["multiplicity"]  # fairchem's name for 2S+1
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
        host.tell("predicted", molecules=len(energies))
    host.write_predictions(job["out"], [atoms.info["row"] for atoms in frames], energies)
    parameters = sum(p.numel() for p in unit.model.parameters())
    host.tell("model", parameters=parameters, **host.resources(device))
