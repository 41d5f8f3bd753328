"""``hambench submit``: results for the public leaderboard."""

from __future__ import annotations

from pathlib import Path

import click

from hambench.cli.group import Group, WordsCommand
from hambench.cli.table import as_json

_MARKS = {"ok": "ok", "warning": "note", "error": "REFUSED"}


@click.group(cls=Group)
def submit() -> None:
    """Check results before they are handed in; docs/submitting.md is the guide.

    \b
    Examples:
      hambench submit check runs/water_mini
      hambench submit pack theirs.h5 theirs.yaml --out theirs
    """


@submit.command(cls=WordsCommand)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Where the data of the tasks are.  [default: where tasks look by themselves]",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of text.")
def check(files: tuple[Path, ...], data: Path | None, json_: bool) -> None:
    """Check results: result.json files, run directories, or folders above them.

    Each must follow the schema and be of the task, data and cell it says. Metrics are computed
    again from the scores of molecules and from the predictions that lie beside it; one that does
    not agree is refused, and the exit code is 4. Nothing of a submission is run or unpickled.

    \b
    Examples:
      hambench submit check leaderboard/results
      hambench submit check runs/qh9_stable/mine --data QH9Stable.db
    """
    from hambench import submission
    from hambench.errors import VerificationError

    checked = submission.check(files, data)
    if json_:
        content = [
            {"run": c.name, "accepted": c.accepted, "findings": [f._asdict() for f in c.findings]}
            for c in checked
        ]
        click.echo(as_json(content))
    else:
        for one in checked:
            click.echo(one.name)
            for finding in one.findings:
                click.echo(f"  {_MARKS[finding.level]}: {finding.text}")
    refused = [one.name for one in checked if not one.accepted]
    if refused:
        raise VerificationError(
            f"{len(refused)} of {len(checked)} results are refused: {', '.join(refused[:5])}"
            f"{' ...' if len(refused) > 5 else ''}; mend what is said of them"
        )
    if not json_:
        click.echo(f"{len(checked)} results can be handed in")


@submit.command(cls=WordsCommand)
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("description", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the result."
)
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Where the data of the task are.  [default: where the task looks by itself]",
)  # fmt: skip
def pack(predictions: Path, description: Path, out: Path, data: Path | None) -> None:
    """Make a result of another code's predictions.

    PREDICTIONS is a file as `hambench score` takes it, DESCRIPTION a YAML file that says what was
    trained and what it took. The folder holds all that `hambench submit check` asks for.

    \b
    Examples:
      hambench submit pack theirs.h5 theirs.yaml --out theirs
      hambench submit pack theirs.npz theirs.yaml --out theirs --data QH9Stable.db
    """
    from hambench import submission

    click.echo(f"written: {submission.pack(predictions, description, out, data)}")


@submit.command()
def schema() -> None:
    """Print the JSON Schema of result.json."""
    from hambench.results import Result

    click.echo(as_json(Result.model_json_schema()))
