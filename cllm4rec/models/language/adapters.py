"""Low-rank adapters on the linear layers of a frozen backbone (Hu et al., "LoRA", 2021)."""

import importlib.util

from transformers import PreTrainedModel

LORA_RANK = 16


def add_adapters(model: PreTrainedModel) -> None:
    """Add trainable low-rank adapters to all linear layers. They are initialised as zero maps, in float32.

    Raises:
        ValueError: peft is not installed.
    """
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear"), model
    )
    for parameter in model.parameters():
        if parameter.requires_grad:  # it was made in the dtype of the frozen weights
            parameter.data = parameter.data.float()


def check_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need peft, which is not installed: pip install 'cllm4rec[lora]'")
