"""The model card of an export: what a model is, what it can do, and what it cannot.

Names, notes and numbers come from files that others may have written: whatever they hold, they
stay text at their place.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

from hambench import __version__
from hambench.chem.molecule import SYMBOLS
from hambench.energy_model import EnergyModel
from hambench.results import Domain, Result
from hambench.scoring import Score, format_score
from hambench.trained import Trained

_LIBRARIES: Final = ("torch", "e3nn", "numpy", "pyscf")  # the versions of which are worth a line

_PREDICT: Final = """\
```
hambench predict FOLDER my.xyz
```

```python
from pathlib import Path

import hambench

report = hambench.predict("FOLDER", Path("my.xyz"))
print(report.rows[0].properties.gap)  # Eh
model = hambench.load_trained("FOLDER").model  # a torch.nn.Module
```"""

_CALCULATE: Final = """\
```python
import ase.io

import hambench

atoms = ase.io.read("my.xyz")
atoms.calc = hambench.calculator("FOLDER")
print(atoms.get_potential_energy(), atoms.get_forces())  # eV, eV/Angstrom
model = hambench.load_trained("FOLDER").model  # a torch.nn.Module
```"""


def card(trained: Trained, result: Result, license: str | None) -> str:
    """The whole of ``README.md``, Markdown behind the front matter of Hugging Face.

    Args:
        trained: the run, its task and its model.
        result: of the run.
        license: of the weights, an SPDX expression; None: nobody said.

    Raises:
        RegistryError: the result names splits that the task does not have.
    """
    energies = isinstance(trained.model, EnergyModel)
    sections = {
        "What it predicts": _predicts(trained, energies),
        "Using it": f"FOLDER is this folder; no data and no run directory are needed.\n\n"
        f"{_CALCULATE if energies else _PREDICT}",
        "Training": _table(_training(trained, result)),
        f"Errors on the {_text(result.split)} split": _metrics(result),
        "Cost": _table(_cost(result)),
        "What it was not trained for": _limits(trained, result.domain, energies),
        "Licences": _table(_licences(trained, license)),
        "Citation": f"Of the task: {_text(trained.task.spec.citation)}",
        "Versions and files": _versions(result),
    }
    title = f"# {_text(result.preset)} of {_text(result.task)} v{result.task_version}"
    body = [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n\n".join([_front_matter(result, energies, license) + title, *body]) + "\n"


def _front_matter(result: Result, energies: bool, license: str | None) -> str:
    """YAML as Hugging Face reads it; its license is one known name, or other and a name."""
    said: dict[str, Any] = {}
    if license is not None:
        single = re.fullmatch(r"[\w.-]+", license) and not license.startswith("LicenseRef")
        said = {"license": license.lower()} if single else {
            "license": "other", "license_name": license
        }  # fmt: skip
    said |= {
        "library_name": "hambench",
        "tags": [
            "chemistry", "density-functional-theory", "energy" if energies else "hamiltonian",
            _line(result.task), _line(result.preset),
        ],
    }  # fmt: skip
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=10**6)}---\n\n"


def _predicts(trained: Trained, energies: bool) -> str:
    task, model = trained.task, trained.model
    level = f"{task.level.xc}/{task.level.basis}"
    what = (
        "The total energy of a molecule (Eh), and forces as its derivative"
        if energies
        else "The Hamiltonian (Fock matrix) of a molecule in the basis of atomic orbitals: "
        "symmetric, in Eh, its orbitals in the order that `basis.json` tells"
    )
    settings = ", ".join(f"{key}={value}" for key, value in task.theory.items())
    known = " ".join(SYMBOLS[z] for z in model.basis.elements)
    residual = (
        " It predicts what is to be added to an initial guess, which PySCF computes."
        if model.graph.guess is not None
        else ""
    )
    return (
        f"{what}, at {_text(level)}, for molecules of {known}. Positions are in Angstrom.{residual}"
        f"\n\nThe task: {_text(task.title)}. Its labels: {_text(task.spec.labels)}; settings: "
        f"{_text(settings)}."
    )


def _training(trained: Trained, result: Result) -> dict[str, str]:
    rows = result.training_rows
    if rows is None:
        splits = trained.task.spec.with_variant(result.variant).splits
        split = splits.get(result.training_split)
        rows = None if split is None else split.size
    domain = result.domain
    seen = {} if domain is None else {
        "Elements": _text(" ".join(domain.elements)),
        "Charges": _text(_listed(domain.charges)),
        "Largest molecule": f"{domain.atoms} atoms",
    }  # fmt: skip
    pretraining = result.pretraining
    return {
        "Model": f"{_text(result.preset)} ({_text(result.model)})",
        "Parameters": f"{result.parameters:,}",
        "Split": f"{_text(result.training_split)} (splits: {_text(result.variant)})",
        "Rows": "not recorded" if rows is None else f"{rows:,}",
        **seen,
        "Data": f"{result.source}, fingerprint {_text(result.fingerprint)}",
        "Pretraining": ""
        if pretraining is None
        else f"{_text(result.strategy)}, after {pretraining.steps:,} steps on "
        f"{_text(pretraining.task)} v{pretraining.task_version}, fingerprint "
        f"{_text(pretraining.fingerprint)}",
        "Seed": str(result.seed),
        "Run": _text(result.run_id),
    }


def _metrics(result: Result) -> str:
    rows = [
        (_text(name), _text(format_score(Score(**metric.model_dump()), name)), f"{metric.n:,}")
        for name, metric in result.metrics.items()
    ]
    intervals = (
        "Values have 95 % intervals where there is one; `hambench list metrics` defines them."
    )
    return f"{_rows(('metric', 'value', 'n'), rows)}\n\n{intervals}"


def _cost(result: Result) -> dict[str, str]:
    cost, speed = result.cost, result.cost.inference
    return {
        "Training": f"{cost.steps:,} steps, {cost.wall_s:,.0f} s on {_text(cost.device)} "
        f"(stopped by {_text(cost.stopped_by)})",
        "Predicting": ""
        if speed is None
        else f"{speed.molecules_per_s:.3g} molecules/s in batches, {speed.flops / 1e6:.3g} MFLOP "
        "per molecule",
    }


def _limits(trained: Trained, domain: Domain | None, energies: bool) -> str:
    """What is known to lie outside of the training set, one line each."""
    said = []
    if domain is None:
        said.append("What the training set was made of is not recorded.")
    else:
        seen = set(domain.elements)
        unseen = [s for z in trained.model.basis.elements if (s := SYMBOLS[z]) not in seen]
        if unseen:
            said.append(f"It takes {' '.join(unseen)}, and saw none of them in training.")
        said += [
            f"It saw charges {_text(_listed(domain.charges))} alone.",
            f"It saw no molecule of more than {domain.atoms} atoms.",
        ]
    if not energies:
        said.append("It predicts for closed shells alone.")
    said += [
        "It knows one level of theory, whose errors it has too.",
        "Predictions name in what a molecule lies beyond the training set; nothing named is no "
        "promise.",
    ]
    return "\n".join(f"- {line}" for line in said)


def _licences(trained: Trained, license: str | None) -> dict[str, str]:
    return {
        "Weights": "none stated; ask whoever made this folder" if license is None
        else _text(license),
        "Data": _text(trained.task.spec.license),
    }  # fmt: skip


def _versions(result: Result) -> str:
    made = result.provenance
    found = {name: made.libraries[name] for name in _LIBRARIES if name in made.libraries}
    libraries = ", ".join(f"{name} {_text(version)}" for name, version in found.items())
    plugins = ", ".join(f"{_text(n)} {_text(v)}" for n, v in sorted(made.plugins.items()))
    code = "" if made.commit is None else f" (commit {_text(made.commit)})"
    return (
        f"Trained with hambench {_text(made.package)}{code}, Python {_text(made.python)}, "
        f"{libraries}; models and tasks of {plugins or 'no package'}. Exported with hambench "
        f"{__version__}.\n\n"
        "`model.safetensors` are the weights, byte for byte those of the run; `config.yaml` and "
        "`result.json` are those of the run without paths, devices and the command line of the "
        "machine it was trained on; `basis.json` are the shells of every element; `manifest.json` "
        "has the checksums of all files, which are verified when the model is loaded."
    )


def _table(rows: dict[str, str]) -> str:
    return _rows(("", ""), [(name, value) for name, value in rows.items() if value])


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(charges: Iterable[int]) -> str:
    return ", ".join(f"{charge:+d}" if charge else "0" for charge in charges)


def _line(value: object) -> str:
    """Text on one line, of characters that show."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _text(value: object) -> str:
    """Text that Markdown shows as it is, wherever in a line it stands."""
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(_line(value), quote=False))
