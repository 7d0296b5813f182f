"""All benchmarks, one after the other, each in a process of its own; ends with the list of the targets that were missed."""

import json
import subprocess
import sys
import time

from experiments.benchmarks.common import settings
from experiments.commands import show

QUESTIONS = (
    *("start_up", "batches", "padding", "validation", "steps", "users", "item_loss", "sampled"),
    *("memory", "top_k", "scoring", "one_pass", "loading", "prepare", "gpu"),
)


if __name__ == "__main__":
    given, rows, failed = settings(__doc__), [], []
    for name in QUESTIONS:
        began = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"experiments.benchmarks.{name}", *sys.argv[1:]]).returncode:
            failed.append(name)
            continue
        show(f"{name} took {time.monotonic() - began:.0f} s")
        rows += json.loads((given.output / f"{name}.json").read_text())["rows"]
    found = {met: [row["question"] for row in rows if row["met"] is met] for met in (True, False, None)}
    show(f"\n{len(found[True])} of {len(rows)} targets met, {len(found[None])} not run")
    show("".join(f"MISSED {one}\n" for one in found[False]))
    if failed:
        sys.exit(f"these ended in an error: {', '.join(failed)}")
