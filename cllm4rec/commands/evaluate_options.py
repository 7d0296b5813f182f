"""Flags of `cllm4rec evaluate`, and what they refuse."""

from dataclasses import dataclass

from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.files.writing import check_file, check_table_name
from cllm4rec.metrics import FAMILIES, KS, OF_CATALOGUE, requested_metrics
from cllm4rec.settings import setting


@dataclass
class EvaluateOptions:
    """Flags of evaluate."""

    run: str = setting(metavar="FOLDER", help="run folder")
    split: str = setting(
        "test",
        choices=["validation", "test"],
        help=(
            "held-out events to predict; the input is the training events and histories, and for test in "
            "splits in time the validation events too; known items are left out"
        ),
    )
    metrics: str | None = setting(
        None,
        metavar="NAMES",
        help=(
            f"metrics, separated by commas: {', '.join(FAMILIES)}, or one with a list length, as in "
            "ndcg@100; all by default"
        ),
    )
    ks: str | None = setting(
        None,
        metavar="NUMBERS",
        help=f"list lengths, separated by commas; {','.join(map(str, KS))} by default",
    )
    slices: bool = setting(
        False,
        help=(
            "also print the metrics by the user's input events, by the held-out item's training events, and "
            "by the days between the held-out event and an input event"
        ),
    )
    against: str | None = setting(
        None,
        metavar="FOLDER",
        help="another run on the dataset: also print the paired differences, this run minus the other",
    )
    diversity: float = setting(
        0.0,
        ge=0,
        le=1,
        help=(
            "measure lists as recommend --diversity makes them; without --against also print the paired "
            "differences from lists without it"
        ),
    )
    candidates: int | None = setting(
        None,
        ge=2,
        help=(
            "rank this many items for each held-out event, its item and random others; by default the full "
            "catalogue"
        ),
    )
    draws: int = setting(5, ge=1, lt=1_000_001, help="candidate sets per held-out event")
    by: str = setting(
        "scores",
        choices=["scores", "language", "likelihood", "generation", "constrained"],
        help=(
            "by scores; rsllm also by those of its language model alone (language). With candidates it also "
            "knows likelihood of titles, compared with that without the history, generation of a title, and "
            "constrained generation. Another run of --against that does not know it is measured by scores"
        ),
    )
    seed: int = setting(0, ge=0, help="seed of the candidate sets")
    audit: bool = setting(
        False, help="also print how many events were input, held out and masked, and the hashes of the data"
    )
    json: str | None = setting(None, metavar="FILE", help="also write the result to this file")
    per_user: str | None = setting(
        None, metavar="FILE", help="write the metrics of each user to this file (.parquet, .csv or .jsonl)"
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=DATASET)
    verify: bool = setting(False, help=VERIFY)
    backbone: str | None = setting(
        None, metavar="FOLDER", help=f"{BACKBONE}; also for --against, if that run has the same backbone"
    )


def check_options(options: EvaluateOptions) -> None:
    """Refuse what cannot be measured or written."""
    if options.per_user:
        check_table_name(options.per_user)
    if options.json:
        check_file(options.json)
    if options.candidates is not None and (
        options.metrics or options.ks or options.slices or options.diversity
    ):
        raise ValueError(
            "`metrics`, `ks`, `slices` and `diversity` are of the full catalogue: leave out `candidates`"
        )
    if options.candidates is None:
        _check_full_ranking(options)


def _check_full_ranking(options: EvaluateOptions) -> None:
    """Refuse flags of the candidate protocol, and values of each user where no metric has any."""
    for name in ("by", "draws", "seed"):
        value = getattr(options, name)
        if value != getattr(EvaluateOptions, name) and (name, value) != ("by", "language"):
            raise ValueError(f"`{name}={value}` is of choices among candidates: say how many by `candidates`")
    requested = requested_metrics(*metrics_and_lengths(options))
    if all(metric.family in OF_CATALOGUE for metric in requested):
        for name in ("slices", "per_user"):
            if getattr(options, name):
                raise ValueError(f"`{name}` needs a metric with a value of each user: add one to `metrics`")


def metrics_and_lengths(options: EvaluateOptions) -> tuple[list[str], list[int]]:
    """The metrics and list lengths asked for."""
    names = list(FAMILIES) if options.metrics is None else _split(options.metrics)
    lengths = list(map(str, KS)) if options.ks is None else _split(options.ks)
    if not all(length.isdecimal() for length in lengths):
        raise ValueError(f"`ks` is {options.ks!r}: give list lengths separated by commas, as in 5,10,20")
    return names, list(map(int, lengths))


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]
