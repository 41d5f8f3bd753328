"""Errors a user can cause or mend, each with the exit code the command line returns.

A message names what was wrong (with its value), where, what was expected, and how to mend it,
in one sentence. The command line prints the message alone; a traceback means a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 24  # names in a message


class HambenchError(Exception):
    """Base of all errors with a message meant for the user; exit code 1 (the run failed)."""

    exit_code = 1


class RunError(HambenchError):
    """The run itself failed: non-finite loss, full disk, lost folder (exit code 1)."""


class ConfigError(HambenchError):
    """Wrong usage or configuration: an override, an element a model was not built for (2)."""

    exit_code = 2


class RegistryError(ConfigError):
    """A task, model, metric or basis name that nobody provides (2)."""


class CheckpointError(ConfigError):
    """A checkpoint of another model, width or format version (2)."""


class DataError(HambenchError):
    """Data missing, corrupt, foreign, or not what the task says it is (3)."""

    exit_code = 3


class VerificationError(HambenchError):
    """Data or results that were read, and failed a check of their content (4)."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest of ``known`` to ``name``, or the list of them all."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    if not known:
        return " None is installed."
    rest = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f" Known: {', '.join(known[:_SHOWN])}{rest}."


def first_of(names: Iterable[str]) -> str:
    """``'a'``, or ``'a' and 3 more`` where there are more, the first of them sorted."""
    known = sorted(names)
    return f"'{known[0]}'" + (f" and {len(known) - 1} more" if len(known) > 1 else "")
