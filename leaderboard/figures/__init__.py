"""Pictures of a board, a module for each kind: `album` says which it has, `draw` writes them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hambench.errors import RunError
from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.album import Album

logger = logging.getLogger(__name__)

_NAMES: Final = (
    "errors", "costs", "training", "learning_curves", "error_by_distance", "error_by_pair",
    "embeddings",
)  # fmt: skip


def album(board: Board) -> Album:
    """The pictures that a board has what it takes for, and what is in none of them, with reasons.

    Raises:
        ConfigError: pandas, matplotlib or seaborn is not installed.
    """
    from hambench.leaderboard.figures import costs, embeddings, errors, learning, parts, training

    return Album.of(
        [
            errors.pictures(board),
            costs.pictures(board),
            training.pictures(board),
            learning.pictures(board),
            parts.pictures(board),
            embeddings.pictures(board),
        ]
    )


def draw(board: Board, folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write the pictures of a board; what is in none is logged. The same board, the same bytes.

    Pictures of the same names and kinds that an earlier board left in the folder are replaced, or
    removed if this one has none.

    Args:
        board: from `collect`.
        folder: it is made.
        kinds: "png", "svg" or both.

    Returns:
        The files, named after their kind (``errors.png``, ``errors_2.png`` ...).

    Raises:
        ConfigError: pandas, matplotlib or seaborn is not installed.
        RunError: the folder cannot be written, or the disk is full.
    """
    from hambench.leaderboard.figures.style import drawing, saved

    with drawing():
        found = album(board)
        for name, why in found.left_out:
            logger.info("not in picture %s: %s", name, why)
        written = [
            saved(picture.make(), folder / f"{picture.name}.{kind}")
            for picture in found.pictures
            for kind in kinds  # each is made anew: saving a figure moves its panels a little
        ]
    _remove_earlier(folder, kinds, written)
    return written


def _remove_earlier(folder: Path, kinds: Sequence[str], written: Sequence[Path]) -> None:
    ours = re.compile(rf"({'|'.join(_NAMES)})(_\d+)?\.({'|'.join(kinds)})")
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path not in written:
            try:
                path.unlink()
            except OSError as error:
                raise RunError(f"cannot remove {path}: {error.strerror}") from error
