"""Run a notebook in a fresh kernel and an empty folder, and keep its outputs in it.

python scripts/run_notebook.py docs/own_model.ipynb [--out EXECUTED.ipynb] [--without-slow]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, help="keep the outputs there instead")
    parser.add_argument("--without-slow", action="store_true", help="leave out cells tagged slow")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    if options.without_slow:
        notebook.cells = [c for c in notebook.cells if "slow" not in c.metadata.get("tags", ())]
    # commands in cells are those of this environment, whether or not it is activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        # a kernel on sockets of files, not on a port that others on the machine can reach
        private = {"transport": "ipc", "ip": str(Path(sockets, "kernel"))}
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=1200,
            record_timing=False,
            coalesce_streams=True,
            config=Config({"KernelManager": private}),
            resources={"metadata": {"path": folder}},
        )
        client.execute()
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output.output_type == "stream":  # no path of this machine
                    output.text = output.text.replace(f"{folder}/", "")
    notebook.metadata["code_sha256"] = digest(notebook)
    nbformat.write(notebook, options.out or options.notebook)


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code that the outputs belong to."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


if __name__ == "__main__":
    main()
