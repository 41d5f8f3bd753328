"""What a result says of the code it was made with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hambench import provenance


def test_a_copy_without_history_states_the_commit_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "hambench" / "provenance.py"))
    for said, stated in ((commit, commit), ("", None), ("main; rm -r", None), (commit[:8], None)):
        monkeypatch.setenv(provenance.COMMIT_VARIABLE, said)
        found = provenance.provenance(datetime.now(UTC), 0, {})
        assert (found.commit, found.dirty) == (stated, None)
