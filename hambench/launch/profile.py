"""Cluster profiles: what a site's SLURM is to be asked for, in one YAML file that is written once.

``cluster=NAME`` is ``clusters/NAME.yaml`` in the working folder, else the same below
``~/.config/hambench``; ``cluster=slurm`` without such a file takes the site's own defaults.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
)

from hambench.config import plainly
from hambench.errors import ConfigError, nearest
from hambench.launch.yamlfile import read_yaml
from hambench.settings import Count

SLURM: Final = "slurm"
HERE: Final = {
    "local": "this machine: every cell a process of its own, some at a time",
    "debug": "this very process: cell after cell, for a debugger",
}
"""Places without a profile."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", re.IGNORECASE)
_IN_MB = {"K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}
_OWN_OPTIONS = {
    "array", "chdir", "dependency", "error", "gpus", "gpus-per-task", "job-name",
    "kill-on-invalid-dep", "no-requeue", "nodes", "ntasks", "ntasks-per-node",
    "open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap",
}  # fmt: skip
_KEY_OF = {"mem": "memory", "gpus-per-node": "ask_gpus"}  # options of sbatch that are keys here


def minutes_of(time: str) -> int:
    """Whole minutes of a time as SLURM writes it, rounded up.

    Args:
        time: ``MINUTES``, ``MINUTES:SECONDS``, ``HOURS:MINUTES:SECONDS``, ``DAYS-HOURS``,
            ``DAYS-HOURS:MINUTES`` or ``DAYS-HOURS:MINUTES:SECONDS``.

    Raises:
        ValueError: it is none of these, or zero.
    """
    days, dash, rest = time.strip().rpartition("-")
    parts = rest.split(":")
    units = (3600, 60, 1) if dash else {1: (60,), 2: (60, 1)}.get(len(parts), (3600, 60, 1))
    words = [*parts, *([days] if dash else [])]
    if len(parts) > len(units) or not all(word.isdecimal() for word in words):
        raise ValueError("expected a time, e.g. 2:30:00 (hours), 90 (minutes) or 1-12 (days-hours)")
    seconds = sum(int(part) * unit for part, unit in zip(parts, units, strict=False))
    seconds += 86400 * int(days or 0)
    if seconds == 0:
        raise ValueError("expected a time longer than zero")
    return math.ceil(seconds / 60)


def _time(value: object) -> object:
    if not isinstance(value, str | int):
        raise ValueError("expected a time, e.g. 2:30:00")
    minutes_of(str(value))
    return str(value)


def _memory(value: object) -> object:
    """``--mem`` of SLURM: whole MB."""
    found = _MEMORY.fullmatch(str(value).strip())
    if found is None:
        raise ValueError("expected an amount with its unit, e.g. 64GB or 500MB")
    return f"{math.ceil(float(found[1]) * _IN_MB[found[2].upper()])}M"


def _extra(options: dict[str, Any]) -> dict[str, Any]:
    """Options by their names in sbatch, without dashes before them."""
    named = {name.lstrip("-").replace("_", "-"): value for name, value in options.items()}
    for name, value in named.items():
        key = _KEY_OF.get(name, name.replace("-", "_"))
        if name in _OWN_OPTIONS:
            raise ValueError(f"{name} is set by hambench itself; leave it out")
        if key in Profile.model_fields:
            raise ValueError(f"{name} is no further option: use the key {key} of the profile")
        if name == "gres" and "gpu" in re.split("[:,/]", str(value)):
            raise ValueError("GPUs are asked for by the key ask_gpus (gres) of the profile")
        if value is False:
            raise ValueError(f"{name} is not to be set; leave it out")
        if len(name) < 2:
            raise ValueError(f"'{name}' is no long name of an option of sbatch")
    return named


Text = Annotated[str, Field(min_length=1)]


class Profile(BaseModel):
    """What every job of a sweep asks SLURM for; a key that is left out is the site's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    title: str = Field("", description="one line for `hambench list clusters`")
    partition: Text | None = Field(None, description="partition, or several with commas")
    account: Text | None = Field(None, description="whom the time is charged to")
    qos: Text | None = Field(None, description="quality of service")
    constraint: Text | None = Field(None, description="features a node must have")
    exclude: Text | None = Field(None, description="nodes not to use")
    nodelist: Text | None = Field(None, description="nodes to use")
    ask_gpus: Literal["gpus-per-node", "gres", "none"] = Field(
        "gpus-per-node", description="how GPUs are asked for; none: the cluster has none"
    )
    gpu_type: Text | None = Field(None, description="kind of GPU, as in gpu:a100:4")
    cpus_per_task: Count | None = Field(None, description="processor cores of each process")
    memory: Annotated[str, BeforeValidator(_memory)] | None = Field(
        None, description="main memory of each node, with its unit: 64GB"
    )
    time: Annotated[str, BeforeValidator(_time)] = Field(
        "1:00:00", description="limit of a job; one that reaches it goes on in another"
    )
    exclusive: bool = Field(False, description="whole nodes")
    at_once: Count = Field(256, description="jobs of an array that may run at the same time")
    signal_delay: Count = Field(
        120, description="seconds before the limit at which a job writes its checkpoint"
    )
    mail_user: Text | None = Field(None, description="address of mails about jobs")
    mail_type: Text | None = Field(None, description="occasions of mails, e.g. END,FAIL")
    comment: Text | None = Field(None, description="comment of every job")
    wckey: Text | None = Field(None, description="workload characterisation key")
    setup: list[Text] = Field([], description="lines of bash before the job: module load, export")
    python: Text | None = Field(
        None, description="command instead of this Python, e.g. apptainer exec --nv IMAGE python"
    )
    srun_args: list[Text] = Field([], description="further words for srun")
    extra: Annotated[dict[str, Text | StrictBool], AfterValidator(_extra)] = Field(
        {}, description="any other option of sbatch: {nice: 100, contiguous: true}"
    )

    @property
    def minutes(self) -> int:
        """The limit of a job."""
        return minutes_of(self.time)

    def changed(self, changes: Mapping[str, Any], where: str) -> Profile:
        """The profile with some keys replaced; ConfigError for an unknown key or an unfit value."""
        return _validated(self.model_dump() | dict(changes), where)


def load_profile(name: str) -> Profile:
    """The profile of a name, or of a path that ends in ``.yaml``.

    Raises:
        ConfigError: there is none, or something in it is wrong (file and key are named).
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else profiles().get(name)
    if path is None and name == SLURM:
        return Profile.model_construct()
    if path is None:
        places = " and ".join(map(str, _folders()))
        known = [*HERE, SLURM, *profiles()]
        raise ConfigError(
            f"no cluster '{name}': there is no {name}.yaml in {places}.{nearest(name, known)}"
        )
    content = read_yaml(path, "cluster profile")
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} is no cluster profile: expected lines like 'partition: gpu'")
    return _validated(content or {}, str(path))


def profiles() -> dict[str, Path]:
    """Files of all profiles there are, by name; the nearest of a name."""
    found: dict[str, Path] = {}
    for folder in reversed(_folders()):
        found |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {name: path for name, path in sorted(found.items()) if name not in HERE}


def _folders() -> tuple[Path, Path]:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path("clusters"), Path(home).expanduser() / "hambench" / "clusters"


def _validated(content: Mapping[str, Any], where: str) -> Profile:
    try:
        return Profile.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = nearest(key, Profile.model_fields)
            raise ConfigError(f"unknown key '{key}' in {where}.{hint}") from error
        given = " ".join(str(first["input"]).split())
        raise ConfigError(f"{key}={given:.60} in {where}: {plainly(first)}") from error
