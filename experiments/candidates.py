"""LLaRA's protocol: one item that came next among 20 candidates, on its own splits.

    python -m experiments.candidates --data lastfm-llara --output runs/lastfm
    python -m experiments.candidates --data ml-100k --output runs/ml-100k-llara

HitRatio@1 and ValidRatio on the test rows, means over seeds of training and draws of candidates, with 95 % intervals over rows.
What lies in OUTPUT is taken up.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.evaluation import bootstrap_interval
from experiments.commands import command, show, table

TABLES = {
    "lastfm-llara": ("train_sequences.tsv.gz", "heldout.tsv.gz"),
    "ml-100k": ("interactions.tsv.gz", "llara_split.tsv.gz"),
}
ROWS = {  # name -> run, how a candidate is chosen
    "SASRec": ("sasrec", "scores"),
    "RSLLM, C_user": ("rsllm", "scores"),
    "RSLLM, likelihood of titles": ("rsllm", "likelihood"),
    "RSLLM, free generation": ("rsllm", "generation"),
}
PUBLISHED = {"lastfm-llara": 0.5246, "ml-100k": 0.4526}  # LLaRA with a 7B Llama


def train(data: Path, folder: Path, seed: int, candidates: int, epochs: tuple[int, int]) -> None:
    """SASRec, and RSLLM on it, whose prompts name candidates."""
    sasrec, rsllm = folder / "sasrec", folder / "rsllm"
    given = ["--dataset", data, "--seed", seed]
    command("pretrain", "--system", "sasrec", "--output", sasrec, *given, "--resume")
    naming = ["--sequential", sasrec, "--candidates", candidates]
    command("pretrain", "--system", "rsllm", "--output", rsllm, *given, *naming, "--epochs", epochs[0], "--resume")
    command("finetune", "--run", rsllm, "--epochs", epochs[1], "--seed", seed, "--resume")


def main(data: str, shared: Path, seeds: list[int], draws: int, candidates: int, epochs: tuple[int, int], output: Path) -> None:
    source, prepared = shared / "data" / data, output / "dataset"
    interactions, split = (source / name for name in TABLES[data])
    output.mkdir(parents=True, exist_ok=True)
    if not prepared.is_dir():
        command("prepare", "--interactions", interactions, "--items", source / "items.tsv.gz", "--split", split,
                "--output", prepared)  # fmt: skip
    hits: dict[str, list[pl.DataFrame]] = {name: [] for name in ROWS}
    for seed in seeds:
        folder = output / f"seed{seed}"
        train(prepared, folder, seed, candidates, epochs)
        for name, (run, by) in ROWS.items():
            values = folder / f"{run}-{by}.parquet"
            if not values.is_file():
                command("evaluate", "--run", folder / run, "--candidates", candidates, "--draws", draws, "--by", by,
                        "--json", values.with_suffix(".json"), "--per-user", values)  # fmt: skip
            hits[name].append(pl.read_parquet(values))
    rows, ratios = [], {}
    for name, found in hits.items():
        ratio, valid = (np.mean([one[metric].to_numpy() for one in found], axis=0) for metric in ("hit_ratio@1", "valid_ratio"))
        ratios[name] = ratio
        low, high = bootstrap_interval(ratio)
        by_seed = [float(one["hit_ratio@1"].mean()) for one in found]  # type: ignore[arg-type]
        error = ratio.std(ddof=1) / np.sqrt(len(ratio))
        spread = f"{min(by_seed):.4f} to {max(by_seed):.4f}"
        rows.append([name, f"{ratio.mean():.4f}", f"{error:.4f}", f"[{low:.4f}, {high:.4f}]", spread, f"{valid.mean():.4f}"])
    text = table(["system", "HitRatio@1", "standard error", "95 % over rows", "over seeds", "ValidRatio"], rows)
    gap = ratios["RSLLM, C_user"] - ratios["SASRec"]
    low, high = bootstrap_interval(gap)
    text += f"\n\nRSLLM, C_user minus SASRec, paired over rows: {gap.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
    (output / "table.md").write_text(text + "\n")
    n = len(hits["SASRec"][0])
    protocol = json.loads((output / f"seed{seeds[0]}" / "sasrec-scores.json").read_text())["protocol"].split("; chosen")[0]
    show(f"\n{data}, {n} test rows, training seeds {', '.join(map(str, seeds))}: {protocol}.")
    show(f"Published, LLaRA with a 7B Llama: {PUBLISHED[data]:.4f}.\n\n{text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="lastfm-llara", choices=list(TABLES), help="folder under SHARED/data")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("CLLM4REC_SHARED", "../shared")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of training")
    parser.add_argument("--draws", type=int, default=5, help="sets of candidates a row")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 15], help="of stage 1, and most of stage 2")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    given = parser.parse_args()
    main(given.data, given.shared, given.seeds, given.draws, given.candidates, tuple(given.epochs), given.output)
