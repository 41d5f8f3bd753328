"""The tutorial: its code runs in a real kernel; the outputs it is shown with are of that code."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "own_model.ipynb"


def executed(out: Path, steps: int, *options: str) -> NotebookNode:
    """The tutorial after a run in a fresh kernel, whose models see this checkout."""
    command = [sys.executable, "scripts/run_notebook.py", str(NOTEBOOK), "--out", str(out)]
    environment = {name: v for name, v in os.environ.items() if name != "HAMBENCH_MODELS"} | {
        "HAMBENCH_TUTORIAL_STEPS": str(steps),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(out, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: NotebookNode) -> str:
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "\n".join(o.text for o in outputs if o.output_type == "stream")


def check_outputs(notebook: NotebookNode) -> None:
    """In order, without an error or a warning, and with a picture."""
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == [n + 1 for n in range(len(cells))]
    kinds = [output.get("name", output.output_type) for cell in cells for output in cell.outputs]
    assert set(kinds) == {"stdout", "display_data"}
    (picture,) = [o for c in cells for o in c.outputs if o.output_type == "display_data"]
    assert base64.b64decode(picture.data["image/png"]).startswith(b"\x89PNG")
    assert str(ROOT) not in printed(notebook)


def errors(notebook: NotebookNode) -> dict[str, float]:
    """The last h_mae of every model that the notebook compared ours with, and ours, uEh."""
    pattern = r"^(\w+): (\d+) uEh, bond_net: (\d+) uEh$"
    found = re.findall(pattern, printed(notebook), re.MULTILINE)
    return {name: float(theirs) for name, theirs, _ in found} | {"bond_net": float(found[0][2])}


def test_a_short_run_learns_and_is_on_the_board(tmp_path: Path):
    notebook = executed(tmp_path / "out.ipynb", 40, "--without-slow")
    check_outputs(notebook)
    found = errors(notebook)
    assert set(found) == {"mean_block", "bond_net"}
    assert found["bond_net"] < 0.75 * found["mean_block"]
    text = printed(notebook)
    assert re.search(r"^ +1 +a +bond_net ", text, re.MULTILINE)
    assert re.search(r"^HOMO +-0\.\d+", text, re.MULTILINE)


@pytest.mark.slow
def test_the_whole_tutorial_beats_the_initial_guess(tmp_path: Path):
    notebook = executed(tmp_path / "out.ipynb", 300)
    check_outputs(notebook)
    found = errors(notebook)
    assert set(found) == {"mean_block", "minao", "helm_small", "bond_net"}
    assert found["bond_net"] < 0.5 * found["minao"]


def test_the_outputs_that_are_shown_are_of_this_code():
    """After a change: ``make notebook``."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check_outputs(notebook)
    sources = "\0".join(cell.source for cell in code(notebook))
    assert notebook.metadata["code_sha256"] == hashlib.sha256(sources.encode()).hexdigest()
    found = errors(notebook)
    assert found["bond_net"] < 0.2 * found["minao"]
    assert NOTEBOOK.stat().st_size < 200_000
