"""A group of commands that suggests the nearest name."""

from __future__ import annotations

import click

from hambench.errors import nearest


class Group(click.Group):
    """Commands in the order they were added; a mistyped one gets the nearest name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the words ask for."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(f"no command '{name}'.{nearest(name, self.commands)}", ctx)
        return super().resolve_command(ctx, args)
