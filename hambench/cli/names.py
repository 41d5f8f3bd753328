"""Options that take several names or numbers."""

from __future__ import annotations

import math
from typing import Any

import click


class Names(click.ParamType):
    """Names separated by commas, each once: ``h_mae,psi`` -> ``["h_mae", "psi"]``."""

    name = "text"

    def convert(
        self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """The names; a usage error where one is empty."""
        if isinstance(value, list):
            return value
        names = [name.strip() for name in value.split(",")]
        if "" in names:
            self.fail(f"'{value}' has an empty name; separate names by one comma each.", param, ctx)
        return list(dict.fromkeys(names))


class Numbers(click.ParamType):
    """Whole numbers from 1 on, separated by commas, each once: ``3,9,20`` -> ``[3, 9, 20]``."""

    name = "integers"

    def convert(
        self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The numbers; a usage error where one is none."""
        if isinstance(value, list):
            return value
        words = [word.strip() for word in value.split(",")]
        for word in words:
            if not word.isdecimal() or int(word) < 1:
                self.fail(f"'{word}' is no whole number from 1 on.", param, ctx)
        return list(dict.fromkeys(map(int, words)))


class Finite(click.FloatRange):
    """A number in a range; neither infinite nor none at all."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; a usage error where it is out of the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number
