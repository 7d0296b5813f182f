"""The benchmarks that need no further flags in turn, each in a process of its own.

    python -m experiments.benchmarks --output bench [--short]

Data: that of the questions.

Prints the table of each question and the list of missed targets; OUTPUT holds a JSON file per question.
"""

import json
import subprocess
import sys
import time
from typing import Any

from cllm4rec.commands.entry import say
from experiments.benchmarks.results import Settings, parse_settings
from experiments.commands import ends_in_one_line

BENCHMARKS = (
    *("start_up", "batches", "padding", "validation", "steps", "texts", "users", "item_loss", "sampled"),
    *("memory", "top_k", "scoring", "one_pass", "loading", "prepare", "gpu"),
)


def main(settings: Settings) -> list[str]:
    """Run all benchmarks and print what they found; the names of those that ended in an error."""
    rows: list[dict[str, Any]] = []
    failed = []
    for name in BENCHMARKS:
        start = time.monotonic()
        command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *sys.argv[1:]]
        if subprocess.run(command).returncode:
            failed.append(name)
            continue
        say(f"{name} took {time.monotonic() - start:.0f} s")
        rows += json.loads((settings.output / f"{name}.json").read_text())["rows"]
    questions = {met: [row["question"] for row in rows if row["met"] is met] for met in (True, False, None)}
    say(f"\n{len(questions[True])} of {len(rows)} targets met, {len(questions[None])} not run")
    say("".join(f"MISSED {question}\n" for question in questions[False]))
    return failed


if __name__ == "__main__":
    with ends_in_one_line():
        failed_names = main(parse_settings(__doc__))
    if failed_names:
        raise SystemExit(f"error: these ended in an error: {', '.join(failed_names)}")
