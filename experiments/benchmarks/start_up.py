"""How long a person waits for --help."""

import subprocess
import sys
from functools import partial
from statistics import median

from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side

COMMANDS = ("prepare", "pretrain", "finetune", "evaluate", "recommend")


def main(given: Settings) -> list[Row]:
    def helped(command: str) -> object:
        return subprocess.run([sys.executable, "-m", f"cllm4rec.{command}", "--help"], check=True, capture_output=True)

    bare = {"bare": lambda: subprocess.run([sys.executable, "-c", "import polars, numpy"], check=True)}
    commands = {command: partial(helped, command) for command in COMMANDS}
    times = side_by_side({**commands, **bare}, 3 if given.short else 9)
    slowest = max(COMMANDS, key=lambda command: times[command])
    middle = median(times[command] for command in COMMANDS)
    ours = f"{times[slowest]:.2f} s ({slowest}); median {middle:.2f} s"
    what = "--help of every command, the slowest: seconds"
    return report("start_up", [Row(what, ours, f"import polars, numpy {times['bare']:.2f} s", times[slowest], 1, True)], given)


if __name__ == "__main__":
    main(settings(__doc__))
