"""The leaderboard: from many result.json files to one ranking, as text, Markdown and a page.

``collect(paths)`` reads, ``table(board)`` prints for a terminal, ``write(board, folder)`` makes
the files; ``build(paths, folder)`` does both ends at once.
"""

from __future__ import annotations

from hambench.leaderboard.collect import Board, collect
from hambench.leaderboard.text import table
from hambench.leaderboard.write import build, write

__all__ = ["Board", "build", "collect", "table", "write"]
