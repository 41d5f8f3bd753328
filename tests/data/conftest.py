"""Modules beside these tests can be imported by name; a real HTTP server for downloads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from download_case import NAME
from file_server import FileServer

from hambench.data.download.catalogue import FileEntry
from hambench.data.download.fetch import Outcome, fetch
from hambench.data.download.transfer import Patience


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """An HTTP server on this machine, without files yet; no proxy is asked for it."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    """Pauses that were made, in seconds (none is waited for)."""
    return []


@pytest.fixture
def get(tmp_path: Path, waits: list[float]):
    """Fetches the file of some URLs into the test's folder."""

    def call(*urls: str, stall: float = 5.0, attempts: int = 4, **fields: Any) -> Outcome:
        offline = fields.pop("offline", False)
        entry = FileEntry(name=NAME, urls=urls, **fields)
        patience = Patience(attempts=attempts, stall=stall, wait=waits.append)
        return fetch(entry, tmp_path, offline=offline, patience=patience, progress=False)

    return call
