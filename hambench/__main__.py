"""``python -m hambench`` is the same as the ``hambench`` command."""

from __future__ import annotations

from hambench.cli import main

if __name__ == "__main__":
    main()
