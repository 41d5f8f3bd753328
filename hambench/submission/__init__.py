"""Results that are handed in: packed from the predictions of other codes, and checked."""

from __future__ import annotations

from hambench.submission.check import Checked, Finding, check
from hambench.submission.pack import pack

__all__ = ["Checked", "Finding", "check", "pack"]
