"""From the first argument of `cllm4rec` to its command; the page of `cllm4rec --help`."""

import difflib
import importlib
from collections.abc import Sequence

from cllm4rec import __version__
from cllm4rec.commands.entry import say
from cllm4rec.messages import shorten

COMMANDS = ("prepare", "pretrain", "finetune", "evaluate", "recommend", "vectors", "extend", "serve")
HELP = """\
usage: cllm4rec COMMAND [flags]

Recommenders on language models (CLLM4Rec, RSLLM) and baselines: from events and titles to lists.

Commands, in the order of use:
  prepare    make a dataset folder from tables of events, items and users
  pretrain   train the first stage of a system into a run folder
  finetune   train the second stage, which recommends (CLLM4Rec and RSLLM only)
  evaluate   measure the run on held-out events
  recommend  write top-k lists with the ids and titles of the tables
  vectors    write a vector for each item, read from its text by a language model
  extend     add items, users and events to a run, or take users out
  serve      serve the lists of a run over HTTP, with a page

Example: events.csv has the columns user_id, item_id, timestamp; items.csv has item_id, title.
  cllm4rec prepare --interactions events.csv --items items.csv --output data
  cllm4rec pretrain --dataset data --output run
  cllm4rec finetune --run run
  cllm4rec evaluate --run run
  cllm4rec recommend --run run --all --output lists.csv

More:
  cllm4rec prepare --help     the flags of prepare, as for each command (--version: the version)
  python -m cllm4rec COMMAND  the same, where the script is not on the path"""


def dispatch(argv: Sequence[str]) -> None:
    """Run a command.

    Args:
        argv: the command and its flags; without any, `--help`.

    Raises:
        ValueError: there is no such command, or the command was refused.
    """
    command, *flags = argv or ["--help"]
    if command in ("-h", "--help"):
        say(HELP)
    elif command == "--version":
        say(f"cllm4rec {__version__}")
    elif command in COMMANDS:
        # Launchers leave `--` in: torchrun -m cllm4rec finetune -- --run RUN
        importlib.import_module(f"cllm4rec.{command}").main(flags[1:] if flags[:1] == ["--"] else flags)
    else:
        nearest = difflib.get_close_matches(command.lower(), COMMANDS, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(
            f"{shorten(repr(command))} is not a command{hint} (cllm4rec --help lists the commands)"
        )
