"""The command line: thin, and light until a command runs (no torch for ``--help`` or ``list``)."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

import hambench
from hambench.cli.bench import bench
from hambench.cli.compare import compare
from hambench.cli.curves import curves
from hambench.cli.data import data
from hambench.cli.download import download
from hambench.cli.embed import embed
from hambench.cli.env import env
from hambench.cli.export import export
from hambench.cli.generate import generate
from hambench.cli.group import Group
from hambench.cli.jobs import cancel, logs, retry, status
from hambench.cli.leaderboard import leaderboard
from hambench.cli.predict import predict
from hambench.cli.run import evaluate, run
from hambench.cli.score import score
from hambench.cli.show import completion, doctor, list_
from hambench.cli.submit import submit
from hambench.cli.sweep import sweep
from hambench.errors import HambenchError
from hambench.learn.interrupts import termination_as_interrupt

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed (status.json in its folder says why)
  2    wrong usage or configuration
  3    data missing or corrupt
  4    a verification failed
  130  interrupted; the same command goes on from the last checkpoint"""


@click.group(
    cls=Group,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(hambench.__version__, prog_name="hambench", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (at any place).")
def cli(debug: bool) -> None:
    """Train and compare machine-learned Hamiltonians of molecules.

    \b
    Examples:
      hambench list
      hambench run task=water_mini model=helm_small seed=0
      hambench sweep task=water_mini model=helm_small seed=0,1,2
      hambench evaluate runs/water_mini/helm_small/seed0-1a2b3c4d
      hambench score predictions.h5 task=water_mini
      hambench predict runs/water_mini/helm_small/seed0-1a2b3c4d water.xyz
      hambench leaderboard runs
    """


_RUNS = (
    run,
    sweep,
    status,
    logs,
    cancel,
    retry,
    evaluate,
    score,
    predict,
    export,
    embed,
    compare,
    leaderboard,
    submit,
    curves,
)
for _command in (*_RUNS, data, env, bench, list_, doctor, completion):
    cli.add_command(_command)
for _command in (download, generate):
    data.add_command(_command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        argv: words behind the program's name; None: those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # Threads of torch that spin while they wait slow a busy machine down a hundredfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # nothing of torch's profiler
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("hambench").setLevel(logging.INFO)
    try:
        with termination_as_interrupt():
            code = cli.main(words, prog_name="hambench", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "hambench"
        code = _say(f"{error.format_message()} See `{command} --help`.", error.exit_code)
    except click.ClickException as error:
        code = _say(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort) as error:  # click makes the one of the other
        code = _say(str(error.__cause__ or error) or "the same command goes on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except HambenchError as error:
        if debug:
            traceback.print_exc()
        code = _say(str(error), error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _say(
            f"this is a defect of hambench ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); please report it with the traceback in the run's "
            "traceback.txt, or shown by --debug",
            1,
        )
    sys.exit(code or 0)


def _say(message: str, code: int) -> int:
    prefix = "interrupted" if code == 130 else "error"
    click.echo(f"{prefix}: {message}", err=True)
    return code
