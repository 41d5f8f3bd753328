"""Which rows belong to a split: index lists, and the rules of published splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hambench.data.rows import Rows
from hambench.data.spec import Bound, SplitSpec, TaskSpec
from hambench.errors import DataError
from hambench.files import sha256_of

Places = NDArray[np.int64]
Rule = Callable[[Rows, SplitSpec], Places]
"""From the rows of a file and a split's description to places in the file, from 0."""


def as_stored(rows: Rows, split: SplitSpec) -> Places:
    """Rows ``start`` to ``stop`` in the order of the file."""
    return part(np.arange(len(rows)), split)


def permutation(rows: Rows, split: SplitSpec) -> Places:
    """Places ``start`` to ``stop`` of ``numpy.random.RandomState(seed).permutation(rows)``."""
    return part(np.random.RandomState(split.seed).permutation(len(rows)), split)


def permutation_of_ids(rows: Rows, split: SplitSpec) -> Places:
    """As `permutation`, of the ids in sorted order, for files whose order may be another."""
    in_order = np.argsort(np.array(rows.ids, dtype=object), kind="stable")
    return part(in_order[np.random.RandomState(split.seed).permutation(len(rows))], split)


def molecules(rows: Rows, split: SplitSpec) -> Places:
    """As `permutation`, of molecules: all conformers of one are in the same split."""
    names = [molecule_of(row) for row in rows.ids]
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    order = by_appearance[np.random.RandomState(split.seed).permutation(len(first))]
    return np.flatnonzero(np.isin(group, part(order, split)))


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {rule.__name__: rule for rule in (as_stored, permutation, permutation_of_ids, molecules)}
)
"""Rules every task can use; the class of a task may have more."""


def part(order: Places, split: SplitSpec) -> Places:
    """``order[start:stop]``; fractions are of its length, rounded."""
    return order[slice(*(_place(bound, len(order)) for bound in (split.start, split.stop)))]


def molecule_of(row: str) -> str:
    """Name of the molecule in a row id ``"<molecule>-<conformer>"``; else the id itself."""
    molecule, dash, conformer = row.rpartition("-")
    return molecule if dash and molecule and conformer.isdigit() else row


def clusters(rows: Sequence[str]) -> dict[str, str]:
    """What a bootstrap draws as one, by row id: the molecule a conformer belongs to.

    Rows that are all of one molecule, as in MD17, stand for themselves.
    """
    found = {row: molecule_of(row) for row in rows}
    return found if len(set(found.values())) > 1 else {row: row for row in rows}


def digest(places: Places) -> str:
    """sha256 of places, one a line, as `hambench.data.spec.Known` has it."""
    return hashlib.sha256("".join(f"{place}\n" for place in places.tolist()).encode()).hexdigest()


def apply_rule(rule: Rule, rows: Rows, split: SplitSpec, name: str) -> Places:
    """The places a rule gives, which must be those it is known to give for so many rows.

    Raises:
        DataError: they are not, or there are none.
    """
    places = rule(rows, split)
    known = split.known.get(len(rows))
    if not len(places):
        raise DataError(f"{rows!r} leaves no row for split '{name}'; give the full data")
    if known is None:
        return places
    wrong = known.sha256 is not None and known.sha256 != digest(places)
    if wrong or known.count != len(places):
        raise DataError(
            f"rule '{split.rule}' of split '{name}' gives {len(places)} rows of {rows!r} that are "
            f"not the {known.count} published ones; the order of its rows is another: fetch the "
            "file again"
        )
    return places


def check_disjoint(splits: Mapping[str, Sequence[str]], spec: TaskSpec) -> None:
    """See that no row is in two splits, and no molecule in training and a test of unseen ones.

    Args:
        splits: row ids by split.
        spec: the description, whose splits say what each is ``within`` and has ``unseen``.

    Raises:
        DataError: one is; or a split is no part of the one it should be within.
    """
    seen: dict[str, str] = {}
    for name, ids in splits.items():
        whole = spec.splits[name].within
        if whole is not None and whole in splits:
            if beyond := sorted(set(ids) - set(splits[whole])):
                raise DataError(
                    f"task '{spec.name}': row '{beyond[0]}' of split '{name}' is not in "
                    f"'{whole}', of which it should be a part"
                )
            continue
        for row in ids:
            if row in seen:
                raise DataError(
                    f"task '{spec.name}': row '{row}' is in split '{name}' and in "
                    f"'{seen[row]}' too; splits must not overlap"
                )
            seen[row] = name
    training = spec.protocol.training_split
    trained = {molecule_of(row) for row in splits.get(training, ())}
    for name, ids in splits.items():
        if spec.splits[name].unseen == "molecules":
            for row in ids:
                if molecule_of(row) in trained:
                    raise DataError(
                        f"task '{spec.name}': the molecule of row '{row}' of split '{name}' is in "
                        f"'{training}' too, where it must not be seen"
                    )


def read_list(path: Path, split: SplitSpec) -> tuple[str, ...]:
    """The ids of an index list.

    Raises:
        DataError: it is missing, or not the list that the task was defined with.
    """
    mend = "install hambench again, or restore the file"
    if not path.is_file():
        raise DataError(f"no index list {path}; {mend}")
    ids = tuple(path.read_text("utf-8").split())
    if sha256_of(path) != split.sha256 or len(ids) != split.count:
        raise DataError(
            f"{path} ({len(ids)} rows) is not the list of {split.count} rows the task was defined "
            f"with (sha256 differs); {mend}"
        )
    return ids


def _place(bound: Bound | None, total: int) -> int | None:
    return round(bound * total) if isinstance(bound, float) else bound
