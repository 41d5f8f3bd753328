"""A board for the tests of the site, harmless or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

from board_case import metric, put

from hambench.results import Cost, Metric

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table></script><h1>won</h1>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)//\u2028&lt;b&gt;",
    "../../../etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
)
"""Names that mean something to a browser, a template, or a file system."""


def cost(**changes: Any) -> Cost:
    """What a run took, with fields changed."""
    content = {"device": "cpu", "wall_s": 200, "steps": 60, "epochs": 1, "steps_per_s": None,
               "molecules_per_s": None, "stopped_by": "max_steps"}  # fmt: skip
    return Cost(**content | changes)


def log(folder: Path) -> None:
    """Write the log of a training of 60 steps, validated every 10."""
    rows: list[dict[str, float]] = []
    for step in range(1, 61):
        row = {"step": step, "epoch": 0, "elapsed_s": 0.5 * step}
        rows.append(row | {"train_loss": 2.0 / step, "lr": 1e-3})
        if step % 10 == 0:
            rows.append(row | {"val_h_mae": 1e-3 / step, "val_loss": 3.0 / step})
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def harmless(runs: Path) -> Path:
    """Two tasks, five models of two seeds each, two devices, a log each; one more without."""
    for task in ("water_mini", "organic_mini"):
        for k, preset in enumerate(("helm_small", "qhnet_small", "sphnet_small", "minao", "toy")):
            for seed in (0, 1):
                folder = runs / task / preset / f"seed{seed}"
                metrics = {"h_mae": metric(9.0 * 3**k + seed), "homo": metric(5.0 + 90 * (k % 2))}
                device = ("cpu", "cuda")[k % 2]
                put(folder, task=task, preset=preset, seed=seed, metrics=metrics,
                    cost=cost(device=device), parameters=1000 * (5 - k))  # fmt: skip
                log(folder)
    partial = {"h_mae": metric(1.0), "failure_rate": Metric(value=0.1, unit="1", ci95=None, n=100)}
    put(runs / "failing", preset="failing", metrics=partial)
    return runs


def hostile(runs: Path, names: Sequence[str] = HOSTILE, settings: int = 1) -> Path:
    """For each hostile name runs that say it wherever a result can say something."""
    for k, (name, setting) in enumerate(product(names, range(settings))):
        folder = runs / f"run{k}"
        put(
            folder, task=name, preset=name, model=name, split=name, training_split=name,
            fingerprint=name, run_id=name, variant=name, reproduce=name,
            hyperparameters={name: name, "setting": setting}, recipe={name: {name: [name]}},
            metrics={"h_mae": metric(100.0), name: metric(1.0, unit=name)}, primary="h_mae",
            cost=cost(device=name, stopped_by=name), scoring={name: {name: name}},
        )  # fmt: skip
        lines = [
            f'{{"step": 1, "val_loss": 2, {json.dumps(name)}: 1}}',
            name,
            "[]",
            '{"step": "1"}',
        ]
        lines += ['{"step": 2, "val_loss": NaN}', '{"step": 3, "val_loss": 1e999}', "[" * 9999]
        (folder / "log.jsonl").write_text("\n".join(lines))
    return runs


class Page(HTMLParser):
    """Tags with attributes, in order, and the text outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)

    def links(self) -> list[str]:
        """Everything a page refers to."""
        return [str(a[key]) for _, a in self.tags for key in ("href", "src") if key in a]
