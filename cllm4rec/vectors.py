"""Write a vector for each item, read from its text by a language model: cllm4rec vectors --help"""

from collections.abc import Sequence
from dataclasses import dataclass

from cllm4rec.commands.entry import log, run
from cllm4rec.commands.flags import CommandLine
from cllm4rec.files.writing import check_file
from cllm4rec.messages import counted
from cllm4rec.models.readings.item_vectors import DEPTH, item_vectors
from cllm4rec.models.readings.vector_files import check_vectors_name, write_vectors
from cllm4rec.settings import setting


@dataclass
class VectorsOptions:
    """Flags of vectors. Exactly one of --encoder and --item-vectors is given."""

    dataset: str = setting(metavar="FOLDER", help="dataset folder")
    output: str = setting(
        metavar="FILE",
        help="file to write: .parquet (columns item_id, vector) or .npy (rows as in the dataset's items)",
    )
    encoder: str | None = setting(
        None,
        metavar="NAME",
        help=(
            "name or folder of a Hugging Face causal language model, its .gguf file (needs cllm4rec[gguf]), "
            "or name or folder of a sentence-transformers model (needs cllm4rec[text])"
        ),
    )
    item_vectors: str | None = setting(
        None, metavar="FILE", help="your own vectors, in a file such as this command writes"
    )
    depth: float | None = setting(
        None,
        metavar="SHARE",
        gt=0,
        le=1,
        help=f"share of a language model's layers after which its states are read (default: {DEPTH})",
    )
    fields: str | None = setting(
        None, metavar="NAMES", help="text columns of the items to read: title,categories; by default all"
    )
    raw: bool = setting(
        False,
        help=(
            "write vectors as they are read; by default each dimension gets mean 0 and variance 1 over the "
            "items with training events"
        ),
    )


def main(argv: Sequence[str]) -> None:
    with CommandLine("vectors", argv) as line:
        description = "Write a vector for each item: a language model's reading of its text, or your own."
        (options,) = line.parse(description, [VectorsOptions])
        check_vectors_name(options.output)
        check_file(options.output)
        vectors = item_vectors(
            options.dataset,
            options.encoder,
            options.item_vectors,
            depth=options.depth,
            fields=_names(options.fields),
            standardise=not options.raw,
        )
        write_vectors(vectors, options.output)
        n_items, width = vectors.values.shape
        without = n_items - int(vectors.present.sum())
        log.info(
            "%s of %s%s -> %s",
            counted(n_items - without, "vector"),
            counted(width, "number"),
            f" ({counted(without, 'item')} without one)" if without else "",
            options.output,
        )


def _names(text: str | None) -> list[str] | None:
    """Names separated by commas; None for None."""
    return None if text is None else [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    run(main)
