"""The command line: help, listings, messages with exit codes, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import hambench
from hambench import cli, registry
from hambench.errors import HambenchError
from hambench.scoring import METRICS

HELP = Path(__file__).parent / "help"
COMMANDS = [
    "", "run", "sweep", "status", "logs", "cancel", "retry", "evaluate", "score", "predict",
    "export", "embed", "compare", "leaderboard", "submit", "submit check", "submit pack",
    "submit schema", "curves", "data", "data list", "data info", "data download",
    "data generate", "data verify", "env", "env list", "env make", "env remove",
    "bench", "bench data", "bench model", "bench scaling", "bench harness", "bench products",
    "bench inference",
    "list", "doctor", "completion",
]  # fmt: skip


@pytest.fixture
def hambench_(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command line in this process and in an empty folder: (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_all_commands_are_known_here():
    def walk(command: click.Command, name: str = "") -> list[str]:
        inner = command.commands.items() if isinstance(command, click.Group) else ()
        return [name, *(n for key, c in inner for n in walk(c, f"{name} {key}".strip()))]

    assert sorted(walk(cli.cli)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_recorded(hambench_, command: str):
    """To record it anew: HAMBENCH_RECORD_HELP=1 pytest tests/cli"""
    code, out, _ = hambench_(*command.split(), "--help")
    assert code == 0
    assert "Examples:" in out or command in ("data list", "env list", "doctor", "submit schema")
    recorded = HELP / f"{command.replace(' ', '_') or 'hambench'}.txt"
    if "HAMBENCH_RECORD_HELP" in os.environ:
        recorded.write_text(out)
    assert out == recorded.read_text()


def test_exit_codes_are_documented_and_are_those_of_the_errors(hambench_):
    _, out, _ = hambench_("--help")
    codes = {0, 130} | {kind.exit_code for kind in [HambenchError, *HambenchError.__subclasses__()]}
    for code in codes:
        assert f"\n    {code:<3}" in out


@pytest.mark.parametrize("words", [(), ("data",)])
def test_a_group_without_a_command_shows_its_help(hambench_, words: tuple[str, ...]):
    code, out, err = hambench_(*words)
    assert (code, out) == (2, "")
    assert err == hambench_(*words, "--help")[1]


def test_version(hambench_):
    assert hambench_("--version") == (0, f"hambench {hambench.__version__}\n", "")


def test_list_shows_everything(hambench_):
    code, out, _ = hambench_("list", "--json")
    listing = json.loads(out)
    assert code == 0
    names = {kind: [row["name"] for row in rows] for kind, rows in listing.items()}
    assert names["tasks"] == registry.task_names()
    assert names["models"] == registry.model_names()
    assert names["recipes"] == registry.RECIPES.names
    assert names["metrics"] == list(METRICS)
    code, table, _ = hambench_("list")
    assert code == 0
    assert all(name in table for rows in names.values() for name in rows)


def test_cfg_prints_what_would_run_and_runs_nothing(hambench_, tmp_path: Path):
    code, out, _ = hambench_("run", "task=water_mini", "model=helm_main_md17", "seed=4", "--cfg")
    assert code == 0
    assert out.startswith("# run directory: runs/water_mini/helm_main_md17/seed4-")
    assert "seed: 4" in out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rnu"], 2, "no command 'rnu'. Did you mean 'run'?"),
        (["data", "generte"], 2, "Did you mean 'generate'?"),
        (["data", "generate", "water_mini", "--n", "501", "--to", "x.h5"], 2, "500 geometries"),
        (["run", "task=water_mini", "model=helm", "model.hyperparameters.channels=-4"], 2, "is -4"),
        (["run", "--nope"], 2, "No such option"),
        (["evaluate"], 2, "Missing argument 'RUN_DIR'"),
        (["embed"], 2, "Missing argument 'RUN_DIR...'"),
        (["embed", "nowhere"], 3, "nowhere is no run directory"),
        (["list", "tusks"], 2, "'tusks' is not one of"),
        (["run"], 2, "which task?"),
        (["run", "task=water_mini", "model=helmsmall"], 2, "Did you mean 'helm_small'?"),
        (["run", "task=watermini", "model=helm_small"], 2, "Did you mean 'water_mini'?"),
        (["run", "task=water_mini", "model=helm_main_md17", "sede=1"], 2, "Did you mean 'seed'?"),
        (["run", "task=water_mini", "model=helm_main_md17", "data=no.h5"], 3, "no.h5"),
        (["run", "task=water_mini", "model=helm_main_md17", "device=cuda:9"], 2, "cuda:9"),
        (["evaluate", "nowhere"], 3, "nowhere is no run directory"),
        (["leaderboard", "nowhere"], 3, "there is no nowhere"),
        (["data", "info", "watermini"], 2, "Did you mean 'water_mini'?"),
        (["data", "generate", "water_mini", "n=2", "workers=0"], 2, "'--workers'"),
        (["data", "generate", "water_mini", "part=17/16"], 2, "part=17/16 is no share"),
        (["data", "generate", "water_mini", "seed=3"], 2, "name it with from=FILE"),
        (["data", "generate", "water_mini", "from=x.xyz"], 2, "write labels of others elsewhere"),
        (
            ["data", "generate", "water_mini", "from=no.xyz", "to=x.h5"],
            3,
            "there is no file no.xyz",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_an_exit_code(
    hambench_, tmp_path: Path, words: list[str], code: int, said: str
):
    found, out, err = hambench_(*words)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not any(tmp_path.iterdir())


def test_foreign_files_are_named(hambench_, tmp_path: Path):
    (tmp_path / "x.h5").write_text("not HDF5")
    code, _, err = hambench_("data", "info", "x.h5")
    assert (code, err.count("\n")) == (3, 1)
    code, _, err = hambench_("run", "task=water_mini", "model=helm_main_md17", "data=x.h5")
    assert (code, err.count("\n")) == (3, 1)
    assert "x.h5" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


def test_data_list_and_info(hambench_):
    code, out, _ = hambench_("data", "list", "--json")
    assert code == 0
    (about,) = [row for row in json.loads(out) if row["name"] == "water_mini"]
    assert about["available"]
    assert about["splits"] == {"train": 300, "validation": 100, "test": 100}
    code, out, _ = hambench_("data", "info", "water_mini", "--json")
    assert json.loads(out)["fingerprint"] == registry.load_task("water_mini").fingerprint
    code, out, _ = hambench_("data", "info", str(registry.load_task("water_mini").path))
    assert code == 0
    assert "molecules: 500" in out
    assert "hamiltonian" in out
    for words in (("data", "list"), ("data", "info", "water_mini")):
        code, out, _ = hambench_(*words)
        assert code == 0
        assert "water_mini" in out


def test_doctor_says_what_is_missing_for_what(hambench_, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    monkeypatch.setenv("PATH", "")
    code, out, _ = hambench_("doctor", "--json")
    assert code == 0
    found = {row["name"]: row for row in json.loads(out)}
    assert found["torch"]["ok"]
    assert not found["pyscf"]["ok"]
    assert "hambench[pyscf]" in found["pyscf"]["mend"]
    assert not found["slurm"]["ok"]
    assert found["data water_mini"]["ok"]
    code, table, _ = hambench_("doctor")
    assert code == 0
    assert all(name in table for name in found)


def test_run_evaluate_and_leaderboard(hambench_, toy: str, tmp_path: Path):
    words = ("run", "task=water_mini", f"model={toy}", "device=cpu", "max_steps=5")
    code, first, _ = hambench_(*words)
    assert code == 0
    (result,) = tmp_path.glob("runs/water_mini/toy/seed0-*/result.json")
    assert str(result.relative_to(tmp_path)) in first
    assert "h_mae" in first
    code, again, _ = hambench_(*words)
    assert code == 0
    assert "finished already" in again
    table = first.split("\n\n")[0].splitlines()[-4:]
    code, scored, _ = hambench_("evaluate", str(result.parent))
    assert code == 0
    assert all(line in scored for line in table)
    code, scores, _ = hambench_("evaluate", str(result.parent), "--metrics", "h_max", "--json")
    assert list(json.loads(scores)) == ["h_max"]
    code, board, _ = hambench_("leaderboard", "runs", "--out", "site")
    assert code == 0
    assert "toy" in board
    assert (tmp_path / "site" / "index.html").is_file()
    code, packed, said = hambench_("export", str(result.parent), "--out", "mine")
    assert code == 0, said
    assert "no licence of the weights is stated" in packed
    assert packed.endswith("exported: mine\n")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "model.safetensors", "config.yaml", "result.json", "basis.json", "README.md",
        "manifest.json",
    }  # fmt: skip
    code, _, said = hambench_("export", str(result.parent), "--out", "site")
    assert (code, said.startswith("error: --out=site holds other files")) == (2, True)


def test_a_defect_is_told_shortly_and_in_full_with_debug(
    hambench_, monkeypatch: pytest.MonkeyPatch
):
    def broken(overrides: object) -> None:
        raise ZeroDivisionError("of\nours")

    monkeypatch.setattr("hambench.compose.compose", broken)
    code, _, err = hambench_("run")
    assert (code, err.count("\n")) == (1, 1)
    assert "a defect of hambench (ZeroDivisionError: of ours)" in err
    code, _, err = hambench_("run", "--debug")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.parametrize("said", ["", "5 of 10 are kept; start the same command again to go on"])
def test_ctrl_c_leaves_with_130(hambench_, monkeypatch: pytest.MonkeyPatch, said: str):
    def stopped(overrides: object) -> None:
        raise KeyboardInterrupt(*([said] if said else []))

    monkeypatch.setattr("hambench.compose.compose", stopped)
    code, _, err = hambench_("run")
    assert code == 130
    assert err == f"\ninterrupted: {said or 'the same command goes on'}\n"


def test_python_m_and_a_closed_pipe():
    process = subprocess.Popen(
        [sys.executable, "-m", "hambench", "list", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(hambench_, shell: str):
    code, out, _ = hambench_("completion", shell)
    assert code == 0
    assert f"_HAMBENCH_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["hambench", "ru"], {"run"}),
        (["hambench", "run", "ta"], {"task="}),
        (["hambench", "run", "task=wat"], {"task=water_mini"}),
        (["hambench", "run", "task", "=", "wat"], {"water_mini"}),
        (["hambench", "run", "precision", "="], {"float32", "float64", "tf32"}),
        (["hambench", "run", "task=water_mini", "model=helm_sm"], {"model=helm_small"}),
        (["hambench", "data", "info", "wat"], {"water_mini"}),
        (["hambench", "data", "download", "train_2k.d"], {"train_2k.db"}),
        (["hambench", "list", "mo"], {"models"}),
    ],
    ids=lambda given: " ".join(sorted(given) if isinstance(given, set) else given),
)
def test_completion(words: list[str], expected: set[str]):
    environment = {
        **os.environ,
        "_HAMBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from hambench.cli import main; main()"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == expected, done.stderr
