"""The benchmarks that need no further flags in turn, each in a process of its own.

    python -m experiments.benchmarks --output bench [--short]

Data: that of the questions.

Prints the table of each question and the list of missed targets; OUTPUT holds a JSON file per question.
"""

import json
import subprocess
import sys
import time

from cllm4rec.commands.entry import say
from experiments.benchmarks.results import parse_settings

BENCHMARKS = (
    *("start_up", "batches", "padding", "validation", "steps", "texts", "users", "item_loss", "sampled"),
    *("memory", "top_k", "scoring", "one_pass", "loading", "prepare", "gpu"),
)


if __name__ == "__main__":
    settings, rows, failed = parse_settings(__doc__), [], []
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
    if failed:
        sys.exit(f"these ended in an error: {', '.join(failed)}")
