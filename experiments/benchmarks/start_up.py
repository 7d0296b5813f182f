"""Time of `--help` of every command.

    python -m experiments.benchmarks.start_up --output bench

Data: none.

Prints the seconds of the slowest command. Comparator: `import polars, numpy`.
"""

import subprocess
import sys
from functools import partial
from statistics import median

from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

COMMANDS = ("prepare", "pretrain", "finetune", "evaluate", "recommend", "extend", "serve", "vectors")


def run_python(*arguments: str) -> None:
    """Run the interpreter without output."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main(settings: Settings) -> list[Row]:
    commands = {name: partial(run_python, "-m", f"cllm4rec.{name}", "--help") for name in COMMANDS}
    imports = {"imports": partial(run_python, "-c", "import polars, numpy")}
    times = side_by_side({**commands, **imports}, 3 if settings.short else 9)
    slowest = max(COMMANDS, key=lambda command: times[command])
    middle = median(times[command] for command in COMMANDS)
    question = "--help of every command, the slowest: seconds"
    measured = f"{times[slowest]:.2f} s ({slowest}); median {middle:.2f} s"
    comparator = f"import polars, numpy {times['imports']:.2f} s"
    return report("start_up", [Row(question, measured, comparator, times[slowest], 1, True)], settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
