"""Environments of their own: made once, whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hambench.environments import MARKER, Environment, environment, make, remove
from hambench.errors import ConfigError, RunError

Change = Callable[..., object]


@pytest.mark.slow
def test_one_that_cannot_be_made_is_half_made_until_it_is(
    tiny: None, describe: Change, require: Change
):
    found = environment("tiny")
    text = found.requirements.read_text()
    require(text.replace("tinylib==1.0", "tinylib==2.0"))
    with pytest.raises(RunError, match=r"tinylib==2\.0") as told:
        make("tiny")
    assert str(found.log) in str(told.value)
    assert found.state == "unfinished"
    with pytest.raises(ConfigError, match="half made; finish it with: hambench env make tiny"):
        found.require()
    require(text)
    describe("[tinylib]", "[tinylib.nothing]")
    with pytest.raises(RunError, match=r"ModuleNotFoundError: .*tinylib\.nothing"):
        make("tiny")
    assert found.state == "unfinished"
    (found.folder / "left").write_text("by that attempt")
    describe("a tiny one", "a tiny one")
    assert make("tiny").state == "ready"
    assert not (found.folder / "left").exists()


def test_one_is_made_once_and_its_library_is_its_own(made: Environment):
    assert made.state == "ready"
    assert made.versions["tinylib"] == "1.0"
    assert "Successfully installed tinylib" in made.log.read_text()
    code = "import tinylib, sys; print(sys.prefix)"
    asked = subprocess.run([made.require(), "-c", code], capture_output=True, text=True)
    assert Path(asked.stdout.strip()) == made.folder
    with pytest.raises(ImportError):
        import tinylib  # noqa: F401
    before = (made.folder / MARKER).stat().st_mtime_ns
    said: list[str] = []
    make("tiny", say=said.append)
    assert said == []
    assert (made.folder / MARKER).stat().st_mtime_ns == before


def test_one_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HAMBENCH_ENVS", str(tmp_path))
    assert environment("tiny").state == "missing"
    with pytest.raises(ConfigError) as told:
        environment("tiny").require()
    assert str(told.value) == (
        "model 'tiny' runs in an environment of its own; make it with: hambench env make tiny"
    )


def test_other_requirements_make_it_outdated(made: Environment, require: Change):
    require(made.requirements.read_text() + "# other\n")
    assert made.state == "outdated"
    with pytest.raises(ConfigError, match="other requirements; renew it with"):
        made.require()


def test_two_cannot_make_it_at_once(made: Environment):
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX)"
    code += "; print('held', flush=True); time.sleep(60)"
    lock = str(made.folder.parent / ".tiny.lock")
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RunError, match="another process is making"):
            make("tiny")
        other.kill()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("imports:", "import:", "imports: Field required"),
        ("tiny/requirements", "tiny/requirement", "which is no file"),
    ],
)
def test_a_description_is_checked(describe: Change, old: str, new: str, said: str):
    describe(old, new)
    with pytest.raises(ConfigError, match=said):
        environment("tiny")


def test_a_folder_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HAMBENCH_ENVS", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.tex").write_text("mine")
    for act in (make, remove):
        with pytest.raises(ConfigError, match="no virtual environment"):
            act("tiny")
    assert (tmp_path / "tiny" / "thesis.tex").read_text() == "mine"


def test_it_is_removed_whole(made: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    copied = shutil.copytree(made.folder, tmp_path / "tiny", symlinks=True)
    monkeypatch.setenv("HAMBENCH_ENVS", str(tmp_path))
    assert environment("tiny").state == "ready"
    assert remove("tiny")
    assert not copied.exists()
    assert not remove("tiny")
