"""Rows of `experiments.full_ranking`: systems, ablations, and the flags of their commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.candidate_runs import BATCH
from experiments.models import described_model
from experiments.tuning.chosen import best_settings
from experiments.tuning.spaces import FIRST_STAGE
from experiments.tuning.spaces import SPACES as SEARCHED

ENCODER = "ENCODER"  # stands for the encoder in the names and in the flags of rows
BASES = {  # what stands for the run of a row of the same seed in the flags of rows -> that row
    "SEQUENTIAL": "SASRec, texts",
    "SEQUENTIAL_BSAREC": "BSARec, texts",
}
Flags = tuple[list[str], list[str] | None]  # of pretrain, and of finetune; None: no stage 2
OF_SETS: dict[str, Flags] = {  # histories are sets
    "CLLM4Rec": ([], []),
    "CLLM4Rec, no pretraining": (["--epochs", "0"], []),
    "CLLM4Rec, no pretraining, sampled": (["--epochs", "0", "--sampled", "4096"], []),
    "CLLM4Rec, always pretrained": (["--finetune-from", "pretrained"], []),
    "CLLM4Rec, no content": (["--content-ratio", "0"], []),
    "CLLM4Rec, content in finetuning too": (["--content-passes", "both"], []),
    "CLLM4Rec, no texts in vectors": (["--item-text", "none"], []),
    "CLLM4Rec, no mutual regularisation": (["--mutual", "0"], []),
    "CLLM4Rec, masked items in the full softmax": (["--targets", "masked"], []),
    "CLLM4Rec, all items as targets": (["--targets", "all"], []),
    "CLLM4Rec, no text prior": (["--linear", "ease"], []),
    "CLLM4Rec, no linear path": (["--linear", "none"], []),
    "CLLM4Rec, no layer": (["--backbone", "0x128"], []),
    "CLLM4Rec, tiny": (["--backbone", "tiny"], []),
    "CLLM4Rec, ENCODER": (["--encoder", ENCODER], []),
    "CLLM4Rec, ENCODER, no words": (["--encoder", ENCODER, "--item-text", "vectors"], []),
    "CLLM4Rec, ENCODER as backbone": (["--backbone", ENCODER], []),
    "CLLM4Rec, ENCODER under LoRA": (["--backbone", ENCODER, "--tune", "lora"], []),
    "CLLM4Rec, paper's settings": (["--preset", "paper", "--max-minutes", "8"], ["--max-minutes", "8"]),
    "bag": (["--system", "bag"], None),
    "bag, ENCODER": (["--system", "bag", "--encoder", ENCODER], None),
    "AlphaRec": (["--system", "alpharec"], None),
    "AlphaRec, ENCODER": (["--system", "alpharec", "--encoder", ENCODER], None),
    "EASE with text prior": (["--system", "ease", "--text-prior"], None),
    "EASE with text prior, ENCODER": (["--system", "ease", "--text-prior", "--encoder", ENCODER], None),
    "Mult-VAE": (["--system", "multvae"], None),
    "RecVAE": (["--system", "recvae"], None),
    "iALS": (["--system", "ials"], None),
    "EASE": (["--system", "ease"], None),
    "ItemKNN": (["--system", "itemknn"], None),
    "popularity": (["--system", "popularity"], None),
}
LIMITED: dict[str, Flags] = {  # in wall time: another machine has another result
    "CLLM4Rec, 5 minutes a stage": (["--max-minutes", "5"], ["--max-minutes", "5"]),
}
IN_ORDER: dict[str, Flags] = {  # histories are sequences
    "CLLM4Rec, in order": ([], ["--order", "time"]),
    "EASE with text prior, decayed": (["--system", "ease", "--text-prior", "--decay", "auto"], None),
    "EASE, decayed": (["--system", "ease", "--decay", "auto"], None),
    "ItemKNN, decayed": (["--system", "itemknn", "--decay", "auto"], None),
    "SASRec": (["--system", "sasrec"], None),
    "SASRec, texts": (["--system", "sasrec", "--item-text", "words"], None),
    "BSARec": (["--system", "bsarec"], None),
    "BSARec, texts": (["--system", "bsarec", "--item-text", "words"], None),
}


def rsllm(
    *finetune: str, stage_1: int = 0, stage_2: int = 1, base: str = "SEQUENTIAL", first: Sequence[str] = ()
) -> Flags:
    """Flags of RSLLM with one epoch, of stage 2, unless said otherwise; an epoch has an example a user.

    Batches are those of `experiments.candidates`. `base` is a key of BASES; `first` are flags of pretrain.
    """
    system = ["--system", "rsllm", "--sequential", base, "--backbone", ENCODER, *first]
    batches = ["--batch-size", str(BATCH)]
    second = ["--epochs", str(stage_2), *batches, "--validate-every", "1", *finetune]
    return [*system, "--epochs", str(stage_1), *batches], second


TITLES = ("--prompt", "text")
NO_SCORE = ("--sequential-score", "none")  # prompts are unified then
SAMPLED = (*NO_SCORE, "--negatives", "512")  # with the whole catalogue no negative is a hard one
OF_RSLLM: dict[str, Flags] = {  # docs/rsllm.md says which two rows differ in one thing
    "RSLLM, ENCODER": rsllm(*TITLES),
    "RSLLM, ENCODER, unified prompts": rsllm("--prompt", "unified"),
    "RSLLM on BSARec, ENCODER, unified prompts": rsllm("--prompt", "unified", base="SEQUENTIAL_BSAREC"),
    "RSLLM, ENCODER, ten items": rsllm("--prompt", "unified", first=["--length", "10"]),
    "RSLLM, ENCODER, soft tokens": rsllm("--prompt", "ids"),
    "RSLLM, ENCODER, with stage 1": rsllm(*NO_SCORE, stage_1=1),
    "RSLLM, ENCODER, no C_item": rsllm(*NO_SCORE, "--alpha", "0"),
    "RSLLM, ENCODER, no C_user": rsllm(*NO_SCORE, "--beta", "0"),
    "RSLLM, ENCODER, titles alone": rsllm(*NO_SCORE, *TITLES),
    "RSLLM, ENCODER, sampled negatives": rsllm(*SAMPLED),
    "RSLLM, ENCODER, sampled negatives, none hard": rsllm(*SAMPLED, "--hard", "0"),
    "RSLLM, ENCODER, three epochs": rsllm(*TITLES, stage_2=3),
    "RSLLM, ENCODER, three epochs, no sequential score": rsllm(*NO_SCORE, stage_2=3),
}
ROWS = OF_SETS | LIMITED | IN_ORDER | OF_RSLLM
LANGUAGE_MODEL_OF = {  # row -> the row whose run is measured without the score of the sequential system
    "RSLLM, ENCODER, no sequential score": "RSLLM, ENCODER, unified prompts",
    "RSLLM on BSARec, ENCODER, no sequential score": "RSLLM on BSARec, ENCODER, unified prompts",
    "RSLLM, ENCODER, ten items, no sequential score": "RSLLM, ENCODER, ten items",
    "RSLLM, ENCODER, soft tokens, no sequential score": "RSLLM, ENCODER, soft tokens",
}
ROWS |= {name: ROWS[run] for name, run in LANGUAGE_MODEL_OF.items()}
SPACES = {  # name -> the space in which its settings are searched
    "bag": "bag",
    "AlphaRec": "alpharec",
    "EASE with text prior": "ease-text",
    "Mult-VAE": "multvae",
    "RecVAE": "recvae",
    "iALS": "ials",
    "EASE": "ease",
    "ItemKNN": "itemknn",
}
TUNED = ", tuned"  # the end of the names of rows with chosen settings


@dataclass(frozen=True)
class Row:
    """A row to measure.

    Attributes:
        flags: of the commands.
        tuning_seconds: wall time of the search of its settings; None where they were not searched.
        encoder: name and hash of the model in place of ENCODER; None where the row has none.
        run_of: the row whose run is measured without the score of the sequential system; None: its own run
            is measured as it is.
    """

    flags: Flags
    tuning_seconds: float | None = None
    encoder: str | None = None
    run_of: str | None = None

    @property
    def built_on(self) -> list[str]:
        """The rows that have to be measured first, each before those that are built on it."""
        sequential = [BASES[flag] for flag in self.flags[0] if flag in BASES]
        return sequential if self.run_of is None else [*sequential, self.run_of]


def with_encoder(name: str) -> bool:
    """Whether a row needs an encoder."""
    return ENCODER in ROWS[name][0]


def rows_to_measure(
    names: Sequence[str], encoders: Mapping[str, str], tuned: Path | None, data: Path, data_sha256: str
) -> dict[str, Row]:
    """The rows by name; those with chosen settings have names that end with TUNED.

    Args:
        names: of the rows; one with an encoder stands for a row for each of `encoders`.
        encoders: name in the table -> name or folder of the model.
        tuned: OUTPUT of `experiments.tune`; None: all rows have the defaults of the package.
        data: folder that a recipe wrote.
        data_sha256: of its datasets.

    Raises:
        SystemExit: a row needs an encoder, `tuned` has no table of a row, or its tables are damaged.
    """
    if not encoders and any(with_encoder(name) for name in names):
        raise SystemExit(
            "error: rows with an encoder need --encoder NAME=MODEL: name a model, or choose other --rows"
        )
    rows = {}
    for name in names:
        pretrain, finetune = ROWS[name]
        chosen, space = None, SPACES.get(name)
        if tuned is not None and space is not None:
            chosen = best_settings(tuned, data.resolve().name, space, data_sha256)
        if chosen is not None and space is not None:
            first = ["--system", SEARCHED[space].system, *chosen.flags[FIRST_STAGE]]
            rows[name + TUNED] = Row((first, chosen.flags.get("finetune", finetune)), chosen.seconds)
            continue
        for shown, model in encoders.items() if with_encoder(name) else [("", "")]:
            first = [model if flag == ENCODER else flag for flag in pretrain]
            described = described_model(model) if model else None
            run_of = LANGUAGE_MODEL_OF[name].replace(ENCODER, shown) if name in LANGUAGE_MODEL_OF else None
            rows[name.replace(ENCODER, shown)] = Row((first, finetune), encoder=described, run_of=run_of)
    if tuned is not None and not any(name.endswith(TUNED) for name in rows):
        raise SystemExit(
            f"error: {tuned} has no trials of these --rows on {data.resolve().name}: name another --tuned"
        )
    return rows
