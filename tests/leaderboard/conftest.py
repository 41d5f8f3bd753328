"""Modules beside these tests can be imported by name; runs to rank."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
