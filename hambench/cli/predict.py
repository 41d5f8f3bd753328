"""``hambench predict``: what a trained model says of molecules of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hambench.cli.group import WordsCommand
from hambench.cli.table import align, as_json

if TYPE_CHECKING:
    from hambench.inference.predict import Predicted, Report

_AROUND = 5  # orbitals shown on either side of the gap
_DEGENERATE = 1e-5  # Eh; a gap below is none


@click.command(cls=WordsCommand)
@click.argument("checkpoint", metavar="RUN_DIR|EXPORT", type=click.Path(path_type=Path))
@click.argument("molecules", metavar="MOLECULES", type=click.Path(path_type=Path))
@click.option("--charge", type=int, help="Of all molecules.  [default: as the file says, else 0]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write: matrices (.npz, .h5), orbitals (.molden), or the table (.csv).",
)
@click.option(
    "--pyscf-order", is_flag=True, help="Matrices in PySCF's order (p as x, y, z), not canonical."
)
@click.option(
    "--molden", type=click.Path(path_type=Path), help="Molden file of the orbitals, beside --out."
)
@click.option("--no-energy", is_flag=True, help="Leave out E[D], which takes longest.")
@click.option("--device", default="auto", show_default=True, help="Where the model predicts.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    help="Of the model.  [default: that of its training]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Molecules predicted together.  [default: as in training]",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON, with all orbital energies.")
def predict(
    checkpoint: Path,
    molecules: Path,
    charge: int | None,
    out: Path | None,
    pyscf_order: bool,
    molden: Path | None,
    no_energy: bool,
    device: str,
    precision: Literal["float32", "float64"] | None,
    batch_size: int | None,
    json_: bool,
) -> None:
    """Predict the Hamiltonians of molecules with a trained model.

    It is that of a finished run, or of a folder that `hambench export` made. MOLECULES is an xyz or
    extended xyz file of one or many (keys charge, multiplicity and id of the comment line count),
    or any data file. Shown are orbital energies, gap, dipole moment and E[D], the energy of the
    density that one diagonalisation gives, at the level of theory of the task; and in what a
    molecule lies beyond what the model was trained on. Many molecules make a table.

    \b
    Examples:
      hambench predict RUN_DIR water.xyz
      hambench predict RUN_DIR/checkpoints/best.safetensors water.xyz --out h.npz --pyscf-order
      hambench predict RUN_DIR hydroxide.xyz --charge -1 --molden orbitals.molden
      hambench predict RUN_DIR many.extxyz --no-energy --out h.h5
      hambench predict RUN_DIR many.extxyz --json
    """
    from hambench.inference.predict import predict as run

    report = run(
        checkpoint, molecules, charge=charge, out=out, molden=molden,
        order="pyscf" if pyscf_order else None, energy=not no_energy, device=device,
        precision=precision, batch_size=batch_size,
    )  # fmt: skip
    if json_:
        click.echo(as_json(report.to_dict()))
        return
    click.echo(_heading(report))
    click.echo(_single(report.rows[0]) if len(report.rows) == 1 else _table(report.rows))
    for line in _warnings(report):
        click.echo(f"warning: {line}")
    for path in report.files:
        click.echo(f"written: {path}")


def _heading(report: Report) -> str:
    trained = report.trained
    theory = trained.task.level
    return (
        f"{trained.config.model['name']} of {trained.task.name} v{trained.task.version} "
        f"({theory.xc}/{theory.basis}), {trained.folder}\n"
    )


def _single(row: Predicted) -> str:
    """One molecule: orbitals around the gap, and the numbers of the whole."""
    found = row.to_dict()
    lines = [
        f"{found['id']}: {found['formula']}, charge {found['charge']}, "
        f"{found['electrons']} electrons in {row.properties.pairs} orbitals\n"
    ]
    if row.properties.levels is not None:
        lines += [_levels(row), ""]
    if found["gap"] is not None:
        lines.append(f"gap     {_both(found['gap'])}")
    if found["dipole"] is not None:
        x, y, z = found["dipole_vector"]
        origin = ", from the centre of the nuclear charges" if found["charge"] else ""
        lines.append(f"dipole  {found['dipole']:.4f} D  ({x:.4f}, {y:.4f}, {z:.4f}){origin}")
    if found["energy"] is not None:
        lines.append(f"E[D]    {found['energy']:.8f} Eh")
    return "\n".join(lines)


def _levels(row: Predicted) -> str:
    from hambench.units import HARTREE_EV

    levels, pairs = row.properties.levels, row.properties.pairs
    assert levels is not None  # the caller asked
    table = [("orbital", "energy / Eh", "energy / eV", "electrons")]
    first, last = max(pairs - _AROUND, 0), min(pairs + _AROUND, len(levels))
    for place in range(last - 1, first - 1, -1):
        occupied = place < pairs
        away = pairs - 1 - place if occupied else place - pairs
        name = ("HOMO" if occupied else "LUMO") + (
            f"{'-' if occupied else '+'}{away}" if away else ""
        )
        level = float(levels[place])
        table.append(
            (name, f"{level:11.6f}", f"{level * HARTREE_EV:11.4f}", "2" if occupied else "0")
        )
    return align(table)


def _both(value: float) -> str:
    from hambench.units import HARTREE_EV

    return f"{value:.6f} Eh = {value * HARTREE_EV:.4f} eV"


def _table(rows: list[Predicted]) -> str:
    head = (
        "id", "formula", "charge", "HOMO / Eh", "LUMO / Eh", "gap / Eh", "dipole / D", "E[D] / Eh",
        "beyond training",
    )  # fmt: skip
    return align([head, *map(_cells, rows)]) + "\n"


def _cells(row: Predicted) -> tuple[str, ...]:
    found = row.to_dict()
    digits = {"homo": 6, "lumo": 6, "gap": 6, "dipole": 4, "energy": 8}
    numbers = ("-" if found[k] is None else f"{found[k]:.{n}f}" for k, n in digits.items())
    said = "failed" if row.failed else "; ".join(row.beyond or ())
    return found["id"], found["formula"], str(found["charge"]), *numbers, said


def _warnings(report: Report) -> list[str]:
    """What a user should not miss."""
    said = [report.remark] if report.remark else []
    failed = sum(row.failed for row in report.rows)
    if failed:
        said.append(
            f"{failed} of {len(report.rows)} predictions hold NaN or infinity and say nothing"
        )
    gaps = [row.properties.gap for row in report.rows]
    if closed := sum(gap is not None and gap < _DEGENERATE for gap in gaps):
        said.append(
            f"{closed} of {len(gaps)} molecules have no gap: which of the degenerate orbitals are "
            "occupied is arbitrary, and so are dipole moment and E[D]; a closed shell is not their "
            "ground state"
        )
    if report.domain is None:
        said.append(
            "what the model was trained on is not known: the run is of an earlier version, and its "
            "data are not here"
        )
    outside = [row for row in report.rows if row.beyond]
    if len(report.rows) == 1:
        said += [f"beyond training: {what}" for row in outside for what in row.beyond or ()]
    elif outside:
        said.append(f"{len(outside)} of {len(report.rows)} molecules lie beyond the training set")
    return said
