"""Commands of SLURM that say what a test wants, and write down how they were called."""

from __future__ import annotations

from pathlib import Path

_COMMANDS = {
    "squeue": 'cat "$here/queue"',
    "sacct": 'cat "$here/accounting"',
    "scontrol": '[ "$1" = show ] && cat "$here/config"; exit 0',
    "scancel": "true",
    "srun": "true",
    "sbatch": """
for word in "$@"; do file="$word"; done
if [ "$1" = --test-only ]; then cp "$file" "$here/tested.sh"; exit 0; fi
number=$(( $(cat "$here/number") + 1 ))
echo $number > "$here/number"
cp "$file" "$here/script-$number.sh"
echo "Submitted batch job $number"
""",
}


class StandIn:
    """A folder of commands, for PATH.

    Attributes:
        folder: of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "number").write_text("100")
        (folder / "config").write_text("MaxArraySize            = 1001\n")
        self.queue()
        self.accounting()
        for name, body in _COMMANDS.items():
            self.command(name, body)

    def command(self, name: str, body: str) -> None:
        """What a command does from now on."""
        path = self.folder / name
        lines = ["#!/bin/bash", f"here='{self.folder}'", f'echo "{name} $*" >> "$here/calls"', body]
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)

    def queue(self, *lines: str) -> None:
        """What squeue prints: ``12_3|RUNNING|n1|1:00|None``."""
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))

    def accounting(self, *lines: str) -> None:
        """What sacct prints: ``12_3|COMPLETED|n1|00:01:00``."""
        (self.folder / "accounting").write_text("".join(f"{line}\n" for line in lines))

    def script(self, number: int) -> str:
        """The script that was submitted as this job."""
        return (self.folder / f"script-{number}.sh").read_text()

    def calls(self, name: str = "") -> list[str]:
        """How a command, or all, were called, one line each."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line for line in lines if line.startswith(name)]
