"""Groups and commands of the command line that understand more than click's."""

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


class WordsCommand(click.Command):
    """A command whose options may also be given as ``KEY=VALUE``, as those of ``run`` are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words behind the command's name."""
        names = {name.strip("-") for p in self.params for name in p.opts if name.startswith("--")}
        words = []
        for word in args:
            key, equals, value = word.partition("=")
            option = key.replace("_", "-")
            words.append(f"--{option}={value}" if equals and option in names else word)
        return super().parse_args(ctx, words)
