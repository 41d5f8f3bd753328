"""``hambench embed``: embeddings of atoms, side by side, with numbers and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.group import WordsCommand
from hambench.cli.table import align

if TYPE_CHECKING:
    from hambench.analysis.numbers import Findings
    from hambench.scoring import Score


@click.command(cls=WordsCommand)
@click.argument(
    "run_dirs", nargs=-1, required=True, metavar="RUN_DIR...", type=click.Path(path_type=Path)
)
@click.option("--split", default="test", show_default=True, help="Split whose atoms are embedded.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("embeddings"), show_default=True,
    help="Folder for the files; earlier ones are replaced.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True,
    help="Of the draw of atoms, the parts of the probes, and UMAP.",
)  # fmt: skip
@click.option("--norms", is_flag=True, help="Append the norms of the features of l > 0.")
@click.option("--untrained", is_flag=True, help="Add the models as they were before training.")
@click.option("--device", default="auto", show_default=True, help="Where the models run.")
def embed(
    run_dirs: tuple[Path, ...],
    split: str,
    out: Path,
    seed: int,
    norms: bool,
    untrained: bool,
    device: str,
) -> None:
    """Per-atom embeddings of finished runs side by side: vectors, numbers, a picture.

    All models embed the molecules of the first run's task. Written are embeddings.h5 (of every
    atom its element, environment and vector), .json (the numbers), and a UMAP picture as .png and
    .svg. A picture alone proves nothing, and an untrained network separates elements too: numbers
    are of the vectors themselves, probes are asked about molecules they were not fitted to, and
    environments are told apart within one element, beside naming the most frequent one.

    \b
    Examples:
      hambench embed RUN_DIR --untrained
      hambench embed DIRECT_RUN FROZEN_RUN FINETUNED_RUN --split test --out figures
    """
    from hambench.embedding import embed as run

    found = run(
        run_dirs, out, split=split, seed=seed, norms=norms, untrained=untrained, device=device
    )
    drawn = "" if found.analysed == found.atoms else f", numbers of {found.analysed:,} drawn ones"
    click.echo(f"{found.molecules:,} molecules of split '{split}', {found.atoms:,} atoms{drawn}\n")
    click.echo(_table(found.findings) + "\n")
    for path in found.files:
        click.echo(f"written: {path}")


def _table(findings: dict[str, Findings]) -> str:
    head = (
        "model",
        "silhouette elements",
        "silhouette environments",
        "environment told",
        "most frequent",
        "on-site energy R2",
    )
    return align([head, *((name, *map(_text, found[:5])) for name, found in findings.items())])


def _text(score: Score | None) -> str:
    from hambench.scoring import format_score

    return "-" if score is None else format_score(score)
