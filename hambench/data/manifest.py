"""What `hambench data verify` found in a data file, kept as JSON for those who use the file.

It stands beside the file as ``<name>.manifest.json``, or under the cache folder (see
`hambench.data.sidecar`), and holds for the file's size and time of change at that moment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hambench.data import sidecar
from hambench.data.conventions import Conventions, Unit

SUFFIX: Final = ".manifest.json"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Section):
    """One check over the sample.

    Attributes:
        title: what was compared.
        residual: the worst value found, None where no row could be checked.
        allowed: limit of the residual (a lower limit for the gap).
        unit: of both.
        rows: rows it was made on.
        skipped: reasons why it was not made, with their numbers of rows.
    """

    title: str
    residual: float | None
    allowed: float
    unit: str
    rows: int
    skipped: dict[str, int] = {}


class Manifest(_Section):
    """A data file that passed all checks.

    Attributes:
        version: of this schema.
        rows: molecules in the file.
        sample: ids of the rows that were checked.
        sha256: over the content of those rows as they are delivered.
        unit: unit of the positions in the file; None where the format itself says it.
        order: order of the orbitals in the file, as `unit`.
        checks: by name, see `hambench.data.verify`.
        theory: level of theory of the Fock matrices that were rebuilt, as computed; or None.
        versions: of what computed.
    """

    version: Literal[1] = 1
    rows: Annotated[int, Field(gt=0)]
    sample: tuple[str, ...]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    unit: Unit | None
    order: str | None
    checks: dict[str, Check]
    theory: dict[str, Any] | None
    versions: dict[str, str]

    @property
    def conventions(self) -> Conventions | None:
        """Unit and order of the file, where the format does not say them."""
        if self.unit is None or self.order is None:
            return None
        return Conventions(self.unit, self.order)


def find(path: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of a data file; None where there is none, or the file has changed since."""
    content = sidecar.find(path, SUFFIX)
    try:
        return None if content is None else Manifest.model_validate(content)
    except ValidationError:  # of another version of hambench
        return None


def write(path: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Write the manifest of a data file and say where; RunError where nothing can be written."""
    return sidecar.write(path, SUFFIX, manifest.model_dump(mode="json"))
