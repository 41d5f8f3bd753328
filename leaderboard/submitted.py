"""Who handed in results: ``submission.yaml`` beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import yaml
from pydantic import Field, ValidationError

from hambench.errors import DataError
from hambench.results import Record

SUBMISSION: Final = "submission.yaml"
_LEVELS: Final = 5  # folders that are looked in, that of the run first


class Submission(Record):
    """The content of ``submission.yaml``, which is of all runs in its folder and below.

    Attributes:
        authors: names.
        url: of a paper, a repository, or weights.
        notes: whatever readers have to know.
    """

    authors: tuple[str, ...] = Field(min_length=1, max_length=100)
    url: str = Field(default="", max_length=500)
    notes: str = Field(default="", max_length=5000)


S = TypeVar("S", bound=Submission)


class Submissions:
    """Finds and reads them, each file once."""

    def __init__(self) -> None:
        self._known: dict[Path, Submission | None] = {}

    def of(self, folder: Path) -> Submission | None:
        """That of a run directory: its own, or of the nearest of a few folders above; else None.

        Raises:
            DataError: the file cannot be read or does not follow the schema.
        """
        place = folder.absolute()
        for _, where in zip(range(_LEVELS), [place, *place.parents], strict=False):
            if where not in self._known:
                path = where / SUBMISSION
                self._known[where] = read_record(path, Submission) if path.is_file() else None
            if (found := self._known[where]) is not None:
                return found
        return None


def read_record(path: Path, schema: type[S]) -> S:
    """A YAML file of people's, by its schema.

    Raises:
        DataError: it cannot be read, or does not follow the schema (the key is named).
    """
    try:
        return schema.model_validate(yaml.safe_load(path.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path}: {key:.60}: {first['msg']}; correct it (docs/submitting.md has the keys)"
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"cannot read {path}: {said:.200}; correct it") from error
