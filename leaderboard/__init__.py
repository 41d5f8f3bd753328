"""The leaderboard: from many result.json files to ranked tables, pictures and a web site.

``collect(paths)`` reads, ``table(board)`` prints for a terminal, ``write(board, folder, formats)``
makes files; ``build(paths, folder)`` does both ends at once.
"""

from __future__ import annotations

from hambench.leaderboard.about import About
from hambench.leaderboard.collect import Board, collect
from hambench.leaderboard.text import table
from hambench.leaderboard.write import build, write

__all__ = ["About", "Board", "build", "collect", "table", "write"]
