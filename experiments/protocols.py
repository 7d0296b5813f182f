"""Protocols of `experiments.full_ranking`: how events are split, and what a table of results shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cllm4rec.data.dataset import Dataset
from experiments.prepared import prepare_once
from experiments.ranking_rows import ENCODER, OF_SETS, TUNED, with_encoder
from experiments.recipes.recipe import EVENTS, ITEMS

SEED = "SEED"  # stands for the seed in the flags of prepare


@dataclass(frozen=True)
class Protocol:
    """How the events of a data set are split, and what a table of results shows.

    Attributes:
        title: above the table.
        rows: of the table by default.
        shown: main rows. Means and differences are over the seeds that all of them have.
        reference: the row that is compared with all others.
        metrics: columns of the table.
        compared: metrics of differences and slices; the first one orders the table.
        seeds: the default.
        split: flags of prepare; None: the recipe made the datasets.
    """

    title: str
    rows: tuple[str, ...]
    shown: tuple[str, ...]
    reference: str
    metrics: tuple[str, ...]
    compared: tuple[str, ...]
    seeds: tuple[int, ...]
    split: tuple[str, ...] | None = None

    def dataset(self, data: Path, seed: int, parent: Path) -> Path:
        """The dataset folder of a seed: one of a recipe, or one that `prepare` wrote under the same name.

        Args:
            data: folder that a recipe wrote.
            seed: of the split.
            parent: of a folder that is made, unless the recipe made it.

        Raises:
            SystemExit: the recipe made none, a table is missing, or the folder is of other tables.
        """
        if self.split is not None:
            tables = {"--interactions": data / f"{EVENTS}.gz", "--items": data / f"{ITEMS}.gz"}
            typed = self.split_flags(seed)
            flags: dict[str, object] = dict(zip(typed[::2], typed[1::2], strict=True))
            parent.mkdir(parents=True, exist_ok=True)
            prepare_once(parent / "dataset", tables, flags)
            return parent / "dataset"
        if not (data / f"seed{seed}").is_dir():
            raise SystemExit(
                f"error: {data} has no folder seed{seed}: experiments.recipes --seeds makes it; for your own "
                f"data, cllm4rec prepare --seed {seed} --output {data / f'seed{seed}'}"
            )
        return data / f"seed{seed}"

    def split_flags(self, seed: int) -> list[str]:
        """Flags of prepare for a seed; none if the recipe makes the datasets."""
        return [str(seed) if flag == SEED else flag for flag in self.split or ()]


def with_reference(
    protocol: Protocol, reference: str | None, rows: Sequence[str], encoders: Sequence[str]
) -> Protocol:
    """The protocol, with another reference if one is named.

    Args:
        protocol: of the tables.
        reference: name of a row; None: that of the protocol.
        rows: to measure; those with an encoder stand for one with each of `encoders`.
        encoders: names in the table.

    Raises:
        SystemExit: no row has this name.
    """
    if reference is None:
        return protocol
    names = [name.replace(ENCODER, encoder) for name in rows for encoder in encoders or [""]]
    if reference not in {form for name in names for form in (name, name + TUNED)}:
        raise SystemExit(f"error: --reference {reference}: the rows are {', '.join(dict.fromkeys(names))}")
    return replace(protocol, reference=reference)


def dataset_hashes(datasets: Sequence[Path]) -> list[dict[str, str]]:
    """Hashes of dataset folders: of the content and of the split of each."""
    return [asdict(Dataset.load(dataset).hashes) for dataset in datasets]


_NEXT_ITEM = (
    "CLLM4Rec, in order",
    "CLLM4Rec",
    "SASRec",
    "SASRec, texts",
    "BSARec",
    "BSARec, texts",
    "EASE with text prior, decayed",
    "EASE, decayed",
    "bag",
    "popularity",
)
_LAST = Protocol(
    title="each user's last event, order as it comes",
    rows=_NEXT_ITEM,
    shown=_NEXT_ITEM,
    reference="CLLM4Rec, in order",
    metrics=("hit_rate@10", "ndcg@10", "ndcg@100", "coverage@20"),
    compared=("ndcg@10", "hit_rate@10"),
    seeds=(0,),
    split=("--split", "leave-last-out"),
)
_SHOWN = ("CLLM4Rec", "bag", "EASE with text prior", "iALS", "EASE")
_RANDOM = Protocol(
    title="protocol A",
    rows=tuple(name for name in OF_SETS if not with_encoder(name)),
    shown=_SHOWN,
    reference="CLLM4Rec",
    metrics=("recall@20", "recall@40", "ndcg@100", "coverage@20"),
    compared=("ndcg@100", "recall@20"),
    seeds=(0, 1, 2),
)
PROTOCOLS = {
    "A": _RANDOM,
    "last": _LAST,
    "last-shuffled": replace(
        _LAST,
        title="each user's last event, order at random among events of one time",
        seeds=(0, 1),
        split=("--split", "leave-last-out", "--shuffle-ties", SEED),
    ),
    "time": replace(
        _RANDOM,
        title="events after one point in time",
        rows=(*_SHOWN, "ItemKNN", "popularity"),
        seeds=(0,),
        split=("--split", "time"),
    ),
}
