"""Where the data files of a task are: those published, or labels of our own in their place."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from hambench.data.spec import TaskSpec
from hambench.data.store import Store
from hambench.errors import ConfigError

DATA_VARIABLE: Final = "HAMBENCH_DATA"
"""Environment variable naming the folder of data files; default ``~/.cache/hambench``."""

GENERATED: Final = "generated"
"""Source of labels of our own, and the variant of splits for them."""


def data_folder() -> Path:
    """Where data files are looked for and made, if nothing else was said; see `DATA_VARIABLE`."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "hambench"


class Location:
    """Where the files of a task are, or should be.

    Args:
        spec: the description of the task.
        given: a data file, or the folder the files are in. None: data shipped in ``home``, else
            `data_folder`.
        home: folder of the task's code.
    """

    def __init__(self, spec: TaskSpec, given: Path | None, home: Path) -> None:
        self.spec, self.given, self.home = spec, given, home

    @cached_property
    def source(self) -> Literal["generated", "published"]:
        """Whose labels these are: our own where the published ones are not here, but they are."""
        if self.spec.source == GENERATED:
            return "generated"
        if self.given is not None and self.given.is_file():
            return "generated" if Store.recognises(self.given) else "published"
        main = next(iter(self.spec.files))
        ours = self.generated.exists() and not self._published(main).exists()
        return "generated" if ours else "published"

    @property
    def generated(self) -> Path:
        """File of labels of our own."""
        name = self.spec.generated
        if self.given is not None:
            return self.given / name if self.given.is_dir() else self.given
        shipped = self.home / name
        return shipped if shipped.exists() else data_folder() / name

    def of(self, file: str) -> Path:
        """A file by its name in the description.

        Raises:
            ConfigError: a lone file was given that is none of the several the task has.
        """
        return self.generated if self.source == GENERATED else self._published(file)

    @property
    def present(self) -> list[Path]:
        """All files that are here."""
        return [path for path in dict.fromkeys(map(self.of, self.spec.files)) if path.exists()]

    def _published(self, file: str) -> Path:
        names = {key: described.name for key, described in self.spec.files.items()}
        if self.given is None:
            return data_folder() / names[file]
        if self.given.is_dir():
            return self.given / names[file]
        if len(names) == 1:
            return self.given
        if self.given.name not in names.values():
            raise ConfigError(
                f"task '{self.spec.name}' has several files and {self.given} is none of them; give "
                f"the folder of {', '.join(names.values())}"
            )
        return self.given.parent / names[file]
