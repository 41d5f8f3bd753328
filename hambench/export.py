"""`export`: the model of a finished run in one folder that others can load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from hambench import __version__
from hambench.chem.orbitals import OrbitalBasis
from hambench.config import RunConfig
from hambench.errors import ConfigError
from hambench.exported import (
    BASIS,
    CARD,
    FILES,
    MANIFEST,
    WEIGHTS,
    File,
    Manifest,
    is_export,
    read_manifest,
)
from hambench.files import atomic_folder
from hambench.learn.loop import BEST
from hambench.model_card import card
from hambench.results import Result, read_result, write_result
from hambench.rundir import CHECKPOINTS, CONFIG
from hambench.trained import load_trained

COMMAND: Final = f"hambench run --config {CONFIG}"
"""Stands in an export for the command line of a run that does not say how to repeat it."""

_OF_THIS_MACHINE: Final = (
    "device", "root", "run_dir", "overwrite", "save_predictions", "tracker", "workers", "nodes",
    "gpus", "cuda_graph", "data", "energies", "pretrained",
)  # fmt: skip

_CONVENTIONS: Final = {
    "order": "atoms as in the molecule; of an atom its shells as listed under l; of a shell "
    "m = -l, ..., l",
    "functions": "real spherical harmonics with the signs of e3nn and PySCF: p as y, z, x",
    "shells": "by atomic number: l of every shell; appended: l of those that the file of the basis "
    "set lists after all others (each the last of its l); core: electrons in an effective core "
    "potential",
    "units": {"hamiltonian": "Eh", "energy": "Eh", "positions": "Angstrom"},
}


def export(
    run_dir: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    license: str | None = None,
) -> Path:
    """Pack the best weights of a finished run, and all that tells what they are, into a folder.

    Kept are the weights as they are, and configuration and result without what is of the machine
    they were made on: paths, device, numbers of processes, the command line. The run's id and all
    else stay. The folder is written whole or not at all, and was loaded once.

    Args:
        run_dir: of ``hambench run``.
        out: the folder; one that holds an export of the same run is replaced. None: one in the
            current folder, named after task, model, seed and id.
        license: of the weights, an SPDX expression such as ``MIT``; None: none is stated.

    Returns:
        The folder.

    Raises:
        ConfigError: a model in an environment of its own; a folder that holds anything else; no
            SPDX expression; or a model that needs a file of this machine.
        DataError, CheckpointError: as `load_trained`.
        RunError: the folder cannot be written.
    """
    source = Path(run_dir)
    if is_export(source):
        raise ConfigError(f"{source} is an export already; copy it, or give the run directory")
    license = None if license is None else _spdx(license)
    trained = load_trained(source)
    folder = trained.folder
    config, result = portable(trained.config), _portable_result(read_result(folder))
    for name, tree in (("config", config), ("result", result)):
        _check_no_paths(tree.model_dump(mode="json"), name, folder)
    target = Path(config.title.replace("/", "-")) if out is None else Path(out)
    _check_place(target, config.run_id)
    with atomic_folder(target) as new:
        shutil.copyfile(folder / CHECKPOINTS / BEST, new / WEIGHTS)
        (new / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        write_result(new, result)
        _write_json(new / BASIS, described(trained.model.basis))
        (new / CARD).write_text(card(trained, result, license), encoding="utf-8")
        files = {name: File.of(new / name) for name in FILES}
        made = Manifest(hambench=__version__, run_id=config.run_id, files=files)
        _write_json(new / MANIFEST, made.model_dump(mode="json"))
        load_trained(new)  # whoever gets it can
    return target


def portable(config: RunConfig) -> RunConfig:
    """A configuration without what is of one machine or one start; its ``run_id`` stays."""
    changes: dict[str, Any] = {
        name: RunConfig.model_fields[name].default for name in _OF_THIS_MACHINE
    }
    if config.pretraining is not None:
        changes["pretraining"] = portable(config.pretraining)
    return config.model_copy(update=changes)


def described(basis: OrbitalBasis) -> dict[str, Any]:
    """The content of ``basis.json``; `OrbitalBasis.from_dict` reads its ``basis``."""
    return {"basis": basis.to_dict(), "conventions": _CONVENTIONS}


def _portable_result(result: Result) -> Result:
    made = result.provenance.model_copy(update={"command": result.reproduce or COMMAND})
    return result.model_copy(update={"provenance": made})


def _check_no_paths(tree: Mapping[str, Any], name: str, folder: Path) -> None:
    """ConfigError where a path is left, e.g. that of a file which a model was built from."""
    here = {str(path.resolve()) for path in (Path.home(), Path.cwd(), folder)} - {"/"}
    for key, text in _texts(tree, name):
        if text.startswith(("/", "~")) or any(path in text for path in here):
            raise ConfigError(
                f"{key}={text:.60} names a path of this machine, and an export is for any; train "
                "the model without it"
            )


def _texts(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Dotted keys and texts of what JSON can hold."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _texts(str(name), f"{key}.{name}")
            yield from _texts(value, f"{key}.{name}")
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _texts(value, f"{key}.{place}")


def _check_place(target: Path, run_id: str) -> None:
    """ConfigError for a folder that cannot be, or must not be, replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise ConfigError(f"--out={target} is no folder; name another one")
    names = sorted(path.name for path in target.iterdir())
    if not names:
        return
    foreign = [name for name in names if name not in (*FILES, MANIFEST)]
    if foreign or not is_export(target):
        raise ConfigError(
            f"--out={target} holds other files ({', '.join((foreign or names)[:3])}); choose an "
            "empty or new folder"
        )
    if read_manifest(target).run_id != run_id:
        raise ConfigError(
            f"--out={target} holds the export of another run; choose an empty or new folder"
        )


def _spdx(license: str) -> str:
    """The licence in SPDX's own spelling; ConfigError for what is none."""
    try:
        return canonicalize_license_expression(license)
    except InvalidLicenseExpression as error:
        raise ConfigError(
            f"--license={license!r:.60} is no SPDX expression; give one such as MIT or CC-BY-4.0, "
            "or LicenseRef-NAME for a licence of your own"
        ) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
