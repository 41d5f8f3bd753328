"""Modules beside these tests can be imported by name; runs to rank."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))

from board_case import Compile, Write, put

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
\input{board.tex}
\end{document}
"""


@pytest.fixture
def run(tmp_path: Path) -> Write:
    """Writes a result below ``runs`` and returns that folder."""

    def write(name: str, value: float | None = None, **changes: Any) -> Path:
        put(tmp_path / "runs" / name, value, **changes)
        return tmp_path / "runs"

    return write


@pytest.fixture
def compile_latex(tmp_path: Path) -> Compile:
    """Makes a PDF of tables in LaTeX with the packages they name; gives its text."""
    if shutil.which("pdflatex") is None or shutil.which("pdftotext") is None:
        pytest.skip("pdflatex or pdftotext is not installed (texlive-latex-recommended, poppler)")

    def made(source: str) -> str:
        (tmp_path / "board.tex").write_text(source, encoding="utf-8")
        (tmp_path / "paper.tex").write_text(DOCUMENT)
        words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        shown = ["pdftotext", "-layout", "paper.pdf", "-"]
        return subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True).stdout

    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; skips a test where it is not installed.

    HAMBENCH_TEST_BROWSER=0 skips it anyhow; with =1 it is an error that it is not installed.
    """
    wanted = os.environ.get("HAMBENCH_TEST_BROWSER", "")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if wanted == "0":
        pytest.skip("HAMBENCH_TEST_BROWSER=0")
    if found is None and wanted != "1":
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Its sandbox does not work for root; pages are those of these tests.
        yield driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
