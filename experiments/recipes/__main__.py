"""From the published files of a data set to dataset folders, one per seed of protocol A.

    python -m experiments.recipes ml-100k --original ml-100k.zip --output datasets/ml-100k

ORIGINAL is the zip file or the folder of the published files, or a folder of republished tables
(interactions.tsv.gz, items.tsv.gz). datasets/README.md says where each set is published.

Writes to OUTPUT: interactions.tsv.gz, items.tsv.gz, split_A.tsv.gz (one column per seed), the dataset
folders seed0, seed1, ..., recipe.json and manifest.json. Prints counts and the SHA-256 of each split. If they
are not as expected, it ends in one line and writes nothing.

An earlier OUTPUT is replaced as a whole: its dataset folders of other seeds go. It stays as it is until the
new one is complete, and if it holds any other file.
"""

import contextlib
import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from cllm4rec import prepare
from cllm4rec.commands.entry import run, say
from cllm4rec.files.folders import check_folder, replace_folder
from cllm4rec.files.locks import locked
from cllm4rec.files.manifest import write_manifest
from experiments.commands import Seeds, argument_parser
from experiments.recipes.originals import open_original
from experiments.recipes.protocol_a import PAIR, split_column, split_hash, split_parts
from experiments.recipes.recipe import EVENTS, ITEMS, Counts, is_republished
from experiments.recipes.sets import RECIPES

MARKER = "recipe.json"  # of a folder that a recipe wrote, and may replace
SPLIT = "split_A.tsv"


def main(argv: Sequence[str]) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("set", choices=list(RECIPES), help="the data set")
    parser.add_argument("--original", type=Path, required=True, help="zip file or folder")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write, or to replace as a whole"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", action=Seeds, default=[0, 1, 2], help="all seeds of the folder"
    )
    arguments = parser.parse_args(argv)
    with locked(Path(os.path.realpath(arguments.output))):
        check_folder(arguments.output, MARKER)
        make(arguments.set, arguments.original, arguments.output, arguments.seeds)


def make(name: str, original: Path, output: Path, seeds: Sequence[int]) -> None:
    """Write the tables and dataset folders of a data set.

    Raises:
        ValueError: the original is not the data set, or the output cannot be replaced.
    """
    recipe = RECIPES[name]
    with open_original(original, (recipe.event_file, recipe.item_file)) as folder:
        try:
            events, items = recipe.read(folder)
        except ValueError as error:
            raise ValueError(str(error).replace(str(folder), str(original))) from error
        republished = is_republished(folder)
    ordered = recipe.ordered(events)
    kept = recipe.kept(ordered)
    counts = Counts(len(events), len(kept), kept["user_id"].n_unique(), kept["item_id"].n_unique())
    expected = recipe.republished if republished else recipe.published
    if counts != expected:
        raise ValueError(f"{original} is not {recipe.title}: {counts}; expected: {expected}")
    split = kept.select(PAIR).with_columns(split_parts(kept, seed) for seed in seeds)
    hashes = {seed: split_hash(split, seed) for seed in seeds}
    for seed, sha256 in hashes.items():
        known = recipe.known_hash(seed)
        if known not in (None, sha256) and (republished or recipe.confirmed):
            reason = "its rows are not those of the data set, or in another order"
            raise ValueError(
                f"{original}: split of seed {seed}: SHA-256 {sha256}; expected: {known}: {reason}"
            )
    say(f"{recipe.title}, {'republished tables' if republished else 'published files'}: {counts}")
    for seed, sha256 in hashes.items():
        say(f"split of seed {seed}: SHA-256 {sha256}{draw(sha256, recipe.known_hash(seed))}")
    about = {"set": name, "republished": republished, "counts": asdict(counts), "split_sha256": hashes}
    items = items.filter(pl.col("item_id").is_in(ordered["item_id"].unique().implode()))
    write_folder(output, about, {EVENTS: ordered, ITEMS: items, SPLIT: split}, seeds)


def draw(sha256: str, known: str | None) -> str:
    """Whether a split is that of the reported results, as a clause; "" if its hash is not listed."""
    if known is None:
        return ""
    return f", {'the' if sha256 == known else 'another draw than the'} split of the reported results"


def write_folder(
    folder: Path, about: dict[str, object], tables: dict[str, pl.DataFrame], seeds: Sequence[int]
) -> None:
    """Replace a folder by the tables and the dataset folder of each seed."""
    with replace_folder(folder, MARKER) as new:
        for name, table in tables.items():
            text = table.write_csv(separator="\t", quote_style="never")
            (new / f"{name}.gz").write_bytes(gzip.compress(text.encode(), compresslevel=6, mtime=0))
        # The datasets record and print relative names: `new` is renamed.
        with contextlib.chdir(new):
            for seed in seeds:
                prepare_seed(seed)
        (new / MARKER).write_text(json.dumps(about, indent=2) + "\n")
        write_manifest(new)


def prepare_seed(seed: int) -> None:
    """Make the dataset folder of a seed from the tables of the current folder."""
    tables = ["--interactions", f"{EVENTS}.gz", "--items", f"{ITEMS}.gz"]
    split = ["--split", f"{SPLIT}.gz", "--split-column", split_column(seed)]
    flags = [*tables, *split, "--output", f"seed{seed}"]
    say(f"\n$ cllm4rec prepare {' '.join(flags)}")
    prepare.main(flags)


if __name__ == "__main__":
    run(main)
