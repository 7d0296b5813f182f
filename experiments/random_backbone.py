"""A pretrained model's architecture with random weights: what the architecture gives without pretraining.

python -m experiments.random_backbone --backbone FOLDER --output models/random
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from cllm4rec.files.folders import replace_folder
from cllm4rec.models.language.pretrained import Pretrained, quiet
from experiments.commands import argument_parser, ends_in_one_line

MARKER = "config.json"


def save_random_backbone(pretrained: Path, folder: Path, seed: int) -> Path:
    """Write a model folder with the configuration and tokenizer of another, and random weights.

    The weights are drawn as transformers initialises the architecture, in the number format of `pretrained`.

    Args:
        pretrained: folder of the model.
        folder: to write. It is left as it is if it exists.
        seed: of the weights.

    Returns:
        `folder`.

    Raises:
        ValueError: `pretrained` is no folder of a causal language model.
    """
    if (folder / MARKER).is_file():
        return folder
    if not pretrained.is_dir():
        raise ValueError(f"backbone {str(pretrained)!r}: there is no such folder")
    source = Pretrained.read(str(pretrained))
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(source.model.config, trust_remote_code=False)
        with replace_folder(folder, MARKER) as new:
            model.save_pretrained(new)
            source.tokenizer.save_pretrained(new)
    return folder


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a pretrained model")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, unless it exists")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    arguments = parser.parse_args()
    with ends_in_one_line():
        save_random_backbone(arguments.backbone, arguments.output, arguments.seed)
