"""Profiles of clusters: times and amounts, where a profile is found, and what is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hambench.errors import ConfigError
from hambench.launch.again import place_of
from hambench.launch.profile import Profile, load_profile, minutes_of, profiles

NUMBERS = some.integers(0, 200)
FORMS = ("{m}", "{m}:{s}", "{h}:{m}:{s}", "{d}-{h}", "{d}-{h}:{m}", "{d}-{h}:{m}:{s}")
KEYS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder, and a folder of settings, of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(text: str, path: Path = Path("clusters/site.yaml")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        place_of(words)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


def seconds_by_grammar(text: str) -> int | None:
    """As the manual of sbatch lists the forms of a time; None where it is none of them."""
    for form in FORMS:
        pattern = re.sub(r"\{(\w)\}", r"(?P<\1>[0-9]+)", form)
        if found := re.fullmatch(pattern, text):
            parts = {KEYS[name]: int(value) for name, value in found.groupdict().items()}
            return int(timedelta(**parts).total_seconds())
    return None


@given(
    some.one_of(
        some.builds(
            lambda form, d, h, m, s: form.format(d=d, h=h, m=m, s=s),
            some.sampled_from(FORMS), NUMBERS, NUMBERS, NUMBERS, NUMBERS,
        ),
        some.text("0123:-. ", max_size=9).map(str.strip),
    )
)  # fmt: skip
def test_times_are_what_the_manual_says(text: str):
    seconds = seconds_by_grammar(text)
    if not seconds:
        with pytest.raises(ValueError, match="expected a time"):
            minutes_of(text)
        return
    minutes = minutes_of(text)
    assert 60 * (minutes - 1) < seconds <= 60 * minutes
    assert Profile.model_validate({"time": text}).minutes == minutes


@given(
    some.decimals("0.001", "4096", places=3), some.sampled_from("KMGTkmgt"),
    some.sampled_from(["", " "]), some.sampled_from(["", "B", "iB", "b"]),
)  # fmt: skip
def test_amounts_of_memory_are_whole_mb_and_no_less(amount, unit, space, end):
    profile = Profile.model_validate({"memory": f"{amount}{space}{unit}{end}"})
    exact = Fraction(amount) * 1024 ** UNITS[unit.upper()] / 1024**2
    found = re.fullmatch(r"([0-9]+)M", profile.memory or "")
    assert found is not None
    assert exact <= int(found[1]) < exact + 1
    assert profile.changed({}, "") == profile


def test_yaml_means_what_it_says():
    write(
        "# of our site\ntime: 2:30:00\naccount: 00123\npartition: no\nmemory: 64GB\n"
        "cpus_per_task: 8\nexclusive: true\nconstraint: null\nwckey: 2026-01-01\n"
        "extra: {nice: 100, --begin: now+1hour, contiguous: true, cpu_freq: low}\n"
        "setup: [module load cuda/12]\n"
    )
    profile = load_profile("site")
    assert profile.time == "2:30:00"
    assert profile.minutes == 150
    assert (profile.account, profile.partition, profile.wckey) == ("00123", "no", "2026-01-01")
    assert (profile.memory, profile.cpus_per_task) == ("65536M", 8)
    assert profile.exclusive
    assert profile.constraint is None
    assert profile.setup == ["module load cuda/12"]
    assert profile.extra == {
        "nice": "100", "begin": "now+1hour", "contiguous": True, "cpu-freq": "low",
    }  # fmt: skip
    assert profile.changed({"time": 90}, "") == profile.model_copy(update={"time": "90"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin: gpu", "unknown key 'partitoin' in {}. Did you mean 'partition'?"),
        ("time: 2 hours", "time=2 hours in {}: expected a time"),
        ("time: 1:2:3:4", "time=1:2:3:4 in {}: expected a time"),
        ("time: 0:00", "time=0:00 in {}: expected a time longer"),
        ("time: 1.5", "time=1.5 in {}: expected a time"),
        ("time: true", "time=True in {}: expected a time"),
        ("time: [1]", "time=[1] in {}: expected a time"),
        ("memory: 64", "memory=64 in {}: expected an amount with its unit"),
        ("memory: 64XB", "memory=64XB in {}: expected an amount with its unit"),
        ("memory: {a: 1}", "in {}: expected an amount with its unit"),
        ("cpus_per_task: 0", "cpus_per_task=0 in {}: "),
        ("cpus_per_task: many", "cpus_per_task=many in {}: "),
        ("ask_gpus: gpus", "ask_gpus=gpus in {}: expected 'gpus-per-node', 'gres' or 'none'"),
        ("account: ''", "account= in {}: "),
        ("partition: [a, b]", "in {}: "),
        ("setup: module load x", "setup=module load x in {}: expected a valid list"),
        ("setup: ['']", "setup.0= in {}: "),
        ("exclusive: maybe", "exclusive=maybe in {}: "),
        ("extra: {array: 1-3}", "in {}: array is set by hambench itself"),
        ("extra: {--ntasks_per_node: 3}", "in {}: ntasks-per-node is set by hambench itself"),
        ("extra: {no-requeue: true}", "in {}: no-requeue is set by hambench itself"),
        ("extra: {gpus: 4}", "in {}: gpus is set by hambench itself"),
        ("extra: {partition: gpu}", "in {}: partition is no further option: use the key partition"),
        ("extra: {mem: 3G}", "in {}: mem is no further option: use the key memory"),
        ("extra: {mail-type: END}", "in {}: mail-type is no further option: use the key mail_type"),
        ("extra: {gpus-per-node: 4}", "use the key ask_gpus"),
        ("extra: {gres: 'gpu:4'}", "in {}: GPUs are asked for by the key ask_gpus"),
        ("extra: {gres: 'disk:1,gpu:a100:4'}", "in {}: GPUs are asked for by the key ask_gpus"),
        ("extra: {p: gpu}", "in {}: 'p' is no long name"),
        ("extra: {hold: false}", "in {}: "),
        ("time: 1\ntime: 2", "{}, line 2: 'time' stands here twice"),
        ("a: b: c", "{}, line 1: mapping values are not allowed here"),
        ("setup: [a\ntime: 1", "{}, line 2: "),
        ("- a\n- b", "{} is no cluster profile: expected lines like 'partition: gpu'"),
        ("[]", "{} is no cluster profile"),
        ("0", "{} is no cluster profile"),
        ("1: 2", "{}"),
        ("comment: !!python/object:os.system x", "{}, line 1: could not determine"),
        ("a: \x00", "cannot read the cluster profile {}"),
    ],
)  # fmt: skip
def test_a_wrong_profile_is_refused_in_one_sentence(text: str, said: str):
    path = write(text)
    assert said.format(path) in refused("cluster=site")


def test_a_file_that_is_no_text_is_refused():
    path = write("")
    path.write_bytes(b"\xff\xfe\x00")
    assert f"cannot read the cluster profile {path}" in refused("cluster=site")
    path.unlink()
    path.mkdir()
    assert "Is a directory" in refused("cluster=site")
    assert "cannot read the cluster profile no.yaml: No such file" in refused("cluster=no.yaml")


def test_an_empty_profile_is_that_of_the_site():
    write("# nothing\n")
    assert load_profile("site") == load_profile("slurm") == Profile.model_validate({})


def test_the_nearest_profile_of_a_name_counts():
    home = Path("config/hambench/clusters")
    for name in ("site", "other", "local"):
        write(f"title: home {name}", home / f"{name}.yaml")
    assert load_profile("site").title == "home site"
    write("title: here", Path("clusters/site.yaml"))
    write("title: by path", Path("elsewhere/site.yml"))
    assert load_profile("site").title == "here"
    assert load_profile("other").title == "home other"
    assert load_profile("elsewhere/site.yml").title == "by path"
    assert list(profiles()) == ["other", "site"]
    assert "no cluster 'sit': there is no sit.yaml in clusters and " in refused("cluster=sit")
    assert "Did you mean 'site'?" in refused("cluster=sit")
    write("title: ours", Path("clusters/slurm.yaml"))
    assert load_profile("slurm").title == "ours"


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["cluster.time=2:30:00"], {"time": "2:30:00"}),
        (["cluster.time=90", "cluster.exclusive=true"], {"time": "90", "exclusive": True}),
        (["cluster.account=007", "cluster.memory=1.5GB"], {"account": "007", "memory": "1536M"}),
        (["cluster.setup=[a b,c]"], {"setup": ["a b", "c"]}),
        (["cluster.extra={nice:1,hold:true}"], {"extra": {"nice": "1", "hold": True}}),
        (["cluster.partition=null"], {"partition": None}),
    ],
)  # fmt: skip
def test_words_change_the_profile(words: list[str], changed: dict[str, Any]):
    write("partition: gpu\ntime: 1:00")
    where = place_of(words, "site")
    assert where.cluster == "site"
    assert where.profile == load_profile("site").model_copy(update=changed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster=slurm", "cluster.tim=3"], "unknown key 'tim' in cluster.tim=3. Did you mean"),
        (["cluster=slurm", "cluster.time=x"], "time=x in cluster.time=x: expected a time"),
        (["cluster=slurm", "cluster.time=1,2"], "'cluster.time=1,2' names several values"),
        (["cluster.time=3"], "'cluster.time=3' is for jobs of a cluster: add cluster=slurm"),
        (["cluster=debug", "cluster.time=3"], "'cluster.time=3' is for jobs of a cluster"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: list[str], said: str):
    assert said in refused(*words)


def test_the_last_cluster_of_the_words_counts():
    assert place_of(["cluster=slurm", "cluster=local"]) == place_of([])
    assert place_of([]).profile is None
    assert place_of([], "debug").cluster == "debug"
