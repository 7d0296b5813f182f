"""A GGUF file of a model in a folder, written as llama.cpp writes one."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

# names of a Llama's tensors -> those in GGUF
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.layers": "blk",
}
NORMAL, CONTROL = 1, 3  # kinds of tokens


def _rotary_pairs_together(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of queries or keys in the order of llama.cpp: what transformers rotates together is adjacent."""
    return weight.view(n_heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(folder: Path, file: Path, architecture: str = "llama") -> Path:
    """Write the Llama and the byte-level BPE of a folder into a GGUF file, in float32."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_name("a small model")
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    tokens[0] = "<|endoftext|>"  # the only end that the library knows in such a file
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL, *[NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    writer.add_eos_token_id(0)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for part, replacement in NAMES.items():
            name = name.replace(part, replacement)
        for part, n_heads in heads.items():
            tensor = _rotary_pairs_together(tensor, n_heads) if part in name else tensor
        writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
