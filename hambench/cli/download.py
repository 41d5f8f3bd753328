"""``hambench data download``: published data files of tasks, from their URLs or mirrors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hambench.cli.complete import complete_task
from hambench.cli.group import WordsCommand

if TYPE_CHECKING:
    from hambench.data.download.catalogue import FileEntry
    from hambench.data.task import Task


def _complete(ctx: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
    """Names of tasks and of files."""
    from hambench.registry import DOWNLOADS

    catalogues = [preset.content.get("files", {}) for preset in DOWNLOADS.presets.values()]
    files = sorted(str(name) for files in catalogues for name in files)
    tasks = complete_task(ctx, param, start)
    return tasks + [CompletionItem(name) for name in files if name.startswith(start)]


@click.command(cls=WordsCommand)
@click.argument("what", metavar="TASK|FILE", shell_complete=_complete)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Folder for the files.  [default: HAMBENCH_DATA, else ~/.cache/hambench]",
)
@click.option(
    "--mirrors",
    type=click.Path(path_type=Path),
    help="Your own catalogue: URLs that are tried first, and files of your own.  "
    "[default: mirrors.yaml in the folder HAMBENCH_DATA, if there is one]",
)
@click.option("--offline", is_flag=True, help="Use no network; fail if a file is not here.")
def download(what: str, to: Path | None, mirrors: Path | None, offline: bool) -> None:
    """Download the published files of a task, or one file by its name.

    A stopped or killed download goes on where it was with the same command. Sizes and checksums
    are verified as far as they are published; archives are unpacked. Options may be given as
    KEY=VALUE too.

    \b
    Examples:
      hambench data download md17_water
      hambench data download train_2k.db --to /scratch/nabla2dft --mirrors mirrors.yaml
    """
    from hambench.data.download.fetch import fetch
    from hambench.data.location import data_folder

    for entry in _wanted(what, _catalogue(mirrors)):
        done = fetch(entry, to or data_folder(), offline=offline)
        state = "downloaded" if done.fetched else "is there"
        click.echo(f"{done.path}: {state} ({done.checked})")


def _catalogue(mirrors: Path | None) -> dict[str, FileEntry]:
    """All files of all installed packages, and those of the user."""
    from hambench.data.download.catalogue import merged, with_mirrors
    from hambench.registry import DOWNLOADS

    presets = DOWNLOADS.presets.values()
    return with_mirrors(merged({preset.path: preset.content for preset in presets}), mirrors)


def _wanted(what: str, known: dict[str, FileEntry]) -> list[FileEntry]:
    """Entries of the files of a task, or of one file.

    Raises:
        ConfigError: the labels of the task are generated, or no catalogue has one of its files.
        RegistryError: neither a task nor a file has that name.
    """
    from hambench.data.task import GeneratedTask
    from hambench.errors import ConfigError, RegistryError, nearest
    from hambench.registry import load_task, task_names

    if what not in task_names():
        if what not in known:
            names = [*task_names(), *known]
            raise RegistryError(f"no task or file '{what}'.{nearest(what, names)}")
        return [known[what]]
    task = load_task(what)
    if isinstance(task, GeneratedTask):
        raise ConfigError(
            f"the labels of task '{what}' are generated, not published; make them with: "
            f"{task.obtain}"
        )
    if lacking := [name for name in files_of(task) if name not in known]:
        raise ConfigError(
            f"no catalogue says where to get {', '.join(lacking)} of task '{what}'; describe it in "
            "a file for --mirrors"
        )
    return [known[name] for name in files_of(task)]


def files_of(task: Task) -> list[str]:
    """Names of the published data files of a task."""
    return [file.name for file in task.spec.files.values()]
