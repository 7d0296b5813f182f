"""All benchmarks, one after the other; ends with the list of the targets that were missed."""

import importlib

from experiments.benchmarks.common import settings
from experiments.commands import show

QUESTIONS = (
    *("start_up", "batches", "padding", "validation", "steps", "users", "item_loss", "sampled"),
    *("memory", "top_k", "scoring", "one_pass", "loading", "prepare"),
)


if __name__ == "__main__":
    given = settings(__doc__)
    rows = [row for name in QUESTIONS for row in importlib.import_module(f"experiments.benchmarks.{name}").main(given)]
    missed = [row.question for row in rows if not row.met]
    show(f"\n{len(rows) - len(missed)} of {len(rows)} targets met" + "".join(f"\nMISSED {one}" for one in missed))
