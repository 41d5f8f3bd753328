"""Modules beside these tests can be imported by name; a real HTTP server for downloads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from file_server import FileServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """An HTTP server on this machine, without files yet; no proxy is asked for it."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as running:
        yield running
