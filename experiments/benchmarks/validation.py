"""Which share of the time of a stage goes to validation, on all validation users, with the settings it has by default."""

from accelerate import Accelerator

from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.rsllm import RSLLM
from cllm4rec.models.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.common import Row, Settings, report, settings
from experiments.benchmarks.padding import SETS, read


def main(given: Settings) -> list[Row]:
    rows, untrained = [], TrainConfig(epochs=0)
    for name in SETS[: 1 if given.short else None]:
        dataset = read(given, name)
        rsllm, cllm4rec = RSLLM(), CLLM4Rec()
        rsllm.given_first = SASRec().fit(dataset.train, None, untrained)
        rsllm.fit(dataset.train, None, untrained, "pretrain")
        cllm4rec.fit(dataset.train, None, untrained, "pretrain")
        stages: list[tuple[NeuralRecommender, str]] = [
            (SASRec(), "pretrain"),
            (cllm4rec, "finetune"),
            (CLLM4Rec(), "pretrain"),
            (rsllm, "finetune"),
        ]
        for model, stage in stages:
            config = model.config_class.training[stage]
            found = model.rehearse(dataset.train, dataset.validation, config, stage, Accelerator(cpu=True), dataset.seen)
            shown = f"{found.validation_seconds / 60:.1f} min in {config.epochs} epochs"
            training = f"{(found.most_seconds - found.validation_seconds) / 60:.1f} min of steps"
            share = found.validation_seconds / (found.most_seconds - found.validation_seconds)
            rows.append(Row(f"validation, {name}, {model.name}, {stage}", shown, training, share, 0.1, True))
    return report("validation", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
