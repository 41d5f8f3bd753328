"""Charges of OMol_CSH molecules from the names of their groups.

A name ends in ``_{charge}_{multiplicity}`` (``aniBB_010_194018_0_1``) or in
``_{charge}_1_{frame}``; groups called ``step0`` and so on go by their parent. All molecules are
closed shells, so the multiplicity is 1 and the number of electrons even: that tells ``..._0_1_1``
(charge 0, frame 1, or charge 1) apart.
"""

from __future__ import annotations

import re
from typing import Final

_LARGEST: Final = 10  # |charge| in OMol25; larger numbers are part of the name
_BY_MULTIPLICITY: Final = re.compile(r"_(-?\d{1,2})_1$")
_BY_FRAME: Final = re.compile(r"_(-?\d{1,2})_1_\d+$")
_STEP: Final = re.compile(r"step_?\d+")


def charge_of_name(key: str, protons: int) -> int | None:
    """Charge that the path of a group tells; None where it tells none that is possible, or two.

    Args:
        key: path of the group in its file.
        protons: sum of the atomic numbers, for the parity of the electrons.
    """
    *_, parent, name = ["", *key.split("/")]
    names = [parent] if _STEP.match(name) else [name, parent]
    for candidate in names:
        found = _charges(candidate)
        if found:
            even = {charge for charge in found if (protons - charge) % 2 == 0}
            return even.pop() if len(even) == 1 else None
    return None


def _charges(name: str) -> set[int]:
    """All charges a single name can be read to tell."""
    matches = [pattern.search(name) for pattern in (_BY_MULTIPLICITY, _BY_FRAME)]
    charges = {int(match[1]) for match in matches if match}
    return {charge for charge in charges if abs(charge) <= _LARGEST}
