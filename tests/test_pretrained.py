"""Folders of language models that are damaged, hostile, incomplete or elsewhere: one line each, and no code of theirs runs."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizer,
)
from transformers.models.bart import BartForConditionalGeneration
from transformers.models.bert import BertForMaskedLM

from cllm4rec import evaluate, finetune, pretrain, recommend
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.manifest import MANIFEST, file_record, write_manifest
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load
from cllm4rec.models.architecture import check_architecture, weight_shapes
from cllm4rec.models.backbone import RUN_PREFIX, Backbone, check_backbone, load_backbone
from cllm4rec.models.configs import BackboneConfig
from cllm4rec.models.fingerprints import config_sha256, tokenizer_sha256
from cllm4rec.text.tokenizer import train_bpe
from cllm4rec.training import loop
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.state import Stopped

COMMANDS = {"pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}
PLANTED = "import pathlib\npathlib.Path({!r}).write_text('run')\n"
AUTO_MAP = {
    "AutoConfig": "planted.Config",
    "AutoModelForCausalLM": "planted.Model",
    "AutoTokenizer": ["planted.Words", "planted.Words"],
}


def world() -> Dataset:
    made = taste_world(4, n_users=40, n_items=30, n_events=10)
    return build_dataset(made.events, made.items)


def call(command: str, *arguments: object) -> None:
    COMMANDS[command].main([str(one) for one in arguments])


def save_model(folder: Path, seed: int = 0) -> Path:
    """A GPT-2 of two layers that nobody trained, with its tokenizer."""
    tokenizer = train_bpe(["a user has interacted with an item"], vocabulary=300)
    sizes = {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=len(tokenizer), **sizes), trust_remote_code=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world().save(saved := tmp_path_factory.mktemp("pretrained") / "data")
    return saved


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    described = json.loads(file.read_text("utf-8"))
    changed = change(described)
    file.write_text(json.dumps(described if changed is None else changed), "utf-8")


def sign_run(run: Path) -> None:
    """Bring run.json in line with the manifest of its stage, as a hostile author would."""
    about = RunFolder(run).about
    about["stages"]["pretrain"]["manifest_sha256"] = file_record(run / "pretrain" / MANIFEST).sha256
    (run / "run.json").write_text(signed_text(about))


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(folder: Path) -> str:
    """The line with which a folder is refused, the same with and without its weights."""
    config = BackboneConfig(str(folder))
    line = refusal(lambda: check_backbone(config))
    assert refusal(lambda: load_backbone(config)) == line
    assert str(folder) in line
    return line


# ---------------------------------------------------------------------------------------- a tokenizer beyond the word table


def oversize(folder: Path) -> int:
    """Two words more than the word table has rows; returns that number of rows."""
    tokenizer = load_backbone(BackboneConfig(str(folder)))[1]
    rows = len(tokenizer)
    tokenizer.add_tokens(["Silent", "Broken"])
    tokenizer.save_pretrained(folder)
    return rows


def test_a_tokenizer_with_more_tokens_than_the_word_table_has_rows_is_refused(folder: Path) -> None:
    rows = oversize(folder)
    line = refused(folder)
    assert f"its tokenizer has {rows + 2} tokens (the last is 'Broken'), but its word table has {rows} rows" in line
    assert f"model.resize_token_embeddings({rows + 2})" in line


@pytest.mark.parametrize("system", ["cllm4rec", "rsllm"])
def test_an_oversized_tokenizer_is_refused_before_a_run_folder_is_made(
    system: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    oversize(folder)
    flags = ["--dataset", data, "--output", tmp_path / "run", "--backbone", folder, "--system", system]
    assert "resize_token_embeddings" in refusal(lambda: call("pretrain", *flags))
    assert not (tmp_path / "run").exists()


def test_a_special_token_beyond_the_word_table_counts(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda described: described | {"eos_token": "<|new end|>"})
    assert "the last is '<|new end|>'" in refused(folder)


def test_a_tokenizer_without_an_end_is_refused_before_a_run_folder_is_made(folder: Path, data: Path, tmp_path: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda described: described | {"eos_token": None})
    flags = ["--dataset", data, "--output", tmp_path / "run", "--backbone", folder, "--system", "rsllm"]
    assert "has no end token (eos_token)" in refusal(lambda: call("pretrain", *flags))
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_smaller_than_the_word_table_is_read(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    model.resize_token_embeddings(400)
    model.save_pretrained(folder)
    backbone, tokenizer = load_backbone(BackboneConfig(str(folder)))
    assert (backbone.n_words, len(tokenizer)) == (400, 281)


# ------------------------------------------------------------------------------------------- no code of a folder, no pickles


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that planted code would write, with `y` on standard input. The test ends with the file not there."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


def plant(folder: Path, ran: Path) -> None:
    """Code that any of the loaders could be led to, under every name by which the libraries look for some."""
    names = ("planted.py", "modeling_gpt2.py", "tokenization_gpt2.py", "configuration_gpt2.py", "custom_generate/generate.py")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(PLANTED.format(str(ran)), "utf-8")


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_backbones_folder_never_runs(file: str, known: bool, folder: Path, ran: Path) -> None:
    before = load_backbone(BackboneConfig(str(folder)))[1]("interacted")["input_ids"]
    plant(folder, ran)
    edit(folder / file, lambda described: described | {"auto_map": AUTO_MAP})
    if not known:
        edit(folder / file, lambda described: described | {"model_type": "planted", "tokenizer_class": "Planted"})
    if file == "config.json" and not known:
        assert "transformers has no model type 'planted', and code in a model's folder is never run" in refused(folder)
    else:  # the library's own code reads the network, and tokenizer.json says all of the words
        assert load_backbone(BackboneConfig(str(folder)))[1]("interacted")["input_ids"] == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_runs_folder_never_runs(file: str, data: Path, ran: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--epochs", 1)
    inner = tmp_path / "run" / "pretrain" / "backbone"
    plant(inner, ran)
    planted = {"auto_map": AUTO_MAP, "model_type": "planted", "tokenizer_class": "Planted"}
    edit(inner / file, lambda described: described | planted)
    assert "is not listed in manifest.json" in refusal(lambda: load(tmp_path / "run"))
    write_manifest(inner.parent)  # as a hostile author would
    sign_run(tmp_path / "run")
    if file == "config.json":
        line = refusal(lambda: load(tmp_path / "run"))
        assert f"{inner} is damaged" in line
        assert line.endswith("train this stage again")
    else:
        load(tmp_path / "run")


def test_a_pickle_is_not_read(folder: Path, ran: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "it has no model.safetensors, and other weights are not read" in refused(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "../other.safetensors"])
def test_a_file_of_weights_that_the_config_names_is_not_read(name: str, folder: Path) -> None:
    edit(folder / "config.json", lambda described: described | {"transformers_weights": name})
    assert "config.json has transformers_weights" in refused(folder)


def test_adapters_that_would_lead_to_another_model_are_not_read(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/elses", "peft_type": "LORA"}', "utf-8")
    assert "merge them with merge_and_unload" in refused(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda described: described | {"quantization_config": {"quant_method": "gptq"}})
    assert "its weights are quantised" in refused(folder)


# --------------------------------------------------------------------------------------------- not a causal language model


def test_an_encoder_is_refused(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=281, **sizes)).save_pretrained(folder)
    assert "bert reads in both directions" in refused(folder)


def test_an_encoder_with_a_decoder_is_refused(folder: Path) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    heads = {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    BartForConditionalGeneration(BartConfig(vocab_size=281, **sizes, **heads)).save_pretrained(folder)
    assert "bart has an encoder and a decoder" in refused(folder)


# -------------------------------------------------------------------------------------------- weights that do not fit


def test_a_missing_weight_is_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    line = refusal(lambda: load_backbone(BackboneConfig(str(folder))))
    assert "missing keys transformer.h.1.mlp.c_fc.weight" in line


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_a_word_table_of_another_size_than_the_config_says_is_refused(prefix: str, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("transformer.", prefix): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    load_backbone(BackboneConfig(str(folder)))
    edit(folder / "config.json", lambda described: described | {"vocab_size": 282})
    assert "tensor transformer.wte.weight has shape [281, 32], and config.json describes [282, 32]" in refused(folder)


def test_a_head_that_is_the_word_table_need_not_be_stored(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    backbone, _ = load_backbone(BackboneConfig(str(folder)))
    assert torch.equal(backbone.word_head, backbone.words)


def test_a_word_table_without_numbers_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][5, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "its word table is constant or not finite" in refusal(lambda: load_backbone(BackboneConfig(str(folder))))


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_weights_that_are_cut_are_refused(kept: int, folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:kept])
    refused(folder)


def test_weights_in_several_files_are_the_same(original: Path, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(weights))}
    for file in sorted(set(files.values())):
        save_file({name: weights[name] for name in weights if files[name] == file}, folder / file, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}), "utf-8")
    assert fingerprint(folder) == fingerprint(original)
    for odd in ("../model.safetensors", "/etc/passwd", "model.bin", None, 3):
        edit(index, lambda described, odd=odd: described | {"weight_map": {"a": odd}})
        refused(folder)


def fingerprint(folder: Path) -> str:
    return load_backbone(BackboneConfig(str(folder)))[0].fingerprint()


# ------------------------------------------------------------------------------------------------- damaged descriptions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layer", 10**6),
        ("n_layer", 10**12),
        ("n_layer", "2"),
        ("n_layer", None),
        ("vocab_size", 10**12),
        ("vocab_size", 10**30),
        ("n_embd", "32"),
        ("n_embd", 10**9),
        ("n_embd", -32),
        ("n_head", 0),
        ("n_head", 5),
        ("n_positions", 10**10),
        ("num_labels", 10**9),
        ("num_experts", 10**9),
        ("activation_function", "no such function"),
        ("model_type", ["gpt2"]),
        ("model_type", None),
        ("architectures", 3),
        ("text_config", {"num_hidden_layers": 10**9}),
    ],
)
def test_a_config_beyond_its_weights_is_refused(key: str, value: Any, folder: Path) -> None:
    edit(folder / "config.json", lambda described: described | {key: value})
    if key == "architectures":  # not read
        load_backbone(BackboneConfig(str(folder)))
    else:
        refused(folder)


DEEP = (b"[" * 100_000, b'{"a":' * 100_000)
DAMAGED = (b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"{}", b'{"n_layer": 1' + b"0" * 5000 + b"}", *DEEP)
PARTS = ("model", "added_tokens", "pre_tokenizer", "decoder", "normalizer", "post_processor", "version")
ODD: tuple[Any, ...] = (None, [], {}, "x", 3, [None], {"type": None}, {"type": "BPE", "vocab": None, "merges": None})


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_file_that_is_something_else_is_refused(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    refused(folder)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_damaged_tokenizer_is_read_or_refused(part: str, value: Any, folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda described: described | {part: value})
    try:
        load_backbone(BackboneConfig(str(folder)))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_damaged_description_in_a_run_is_refused(data: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--epochs", 1)
    inner = tmp_path / "run" / "pretrain" / "backbone"
    load(tmp_path / "run")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        whole = (inner / file).read_bytes()
        changes = [("n_layer", 10**6), ("n_layer", 1), ("n_layer", 3), ("n_embd", "128"), ("vocab_size", 10)]
        for key, value in changes if file == "config.json" else []:
            (inner / file).write_bytes(whole)
            edit(inner / file, lambda described, key=key, value=value: described | {key: value})
            assert f"{inner.parent} is damaged" in refusal(lambda: load(tmp_path / "run"))
            write_manifest(inner.parent)  # as a hostile author would
            sign_run(tmp_path / "run")
            assert f"{inner} is damaged" in refusal(lambda: load(tmp_path / "run"))
        for content in (b"", b"{", b"[" * 100_000):
            (inner / file).write_bytes(content)
            write_manifest(inner.parent)
            sign_run(tmp_path / "run")
            assert f"{inner} is damaged" in refusal(lambda: load(tmp_path / "run"))
        (inner / file).unlink()
        write_manifest(inner.parent)
        sign_run(tmp_path / "run")
        if file != "tokenizer_config.json":
            assert f"{inner} is damaged" in refusal(lambda: load(tmp_path / "run"))
        (inner / file).write_bytes(whole)
        write_manifest(inner.parent)
        sign_run(tmp_path / "run")
    load(tmp_path / "run")


def test_a_network_has_all_the_weights_of_its_run_and_no_others(folder: Path) -> None:
    config = load_backbone(BackboneConfig(str(folder)))[0].model.config
    shapes = weight_shapes([folder / "model.safetensors"])
    stored = {f"{RUN_PREFIX}{name}": shape for name, shape in shapes.items()} | {"items.weight": (3, 32)}
    model = check_architecture(config, stored, RUN_PREFIX)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    name = f"{RUN_PREFIX}transformer.h.1.ln_1.bias"
    fewer = {other: shape for other, shape in stored.items() if other != name}
    assert "transformer.h.1.ln_1.bias is missing" in refusal(lambda: check_architecture(config, fewer, RUN_PREFIX))
    more = stored | {f"{RUN_PREFIX}transformer.h.2.ln_1.bias": (32,)}
    assert "transformer.h.2.ln_1.bias has no use" in refusal(lambda: check_architecture(config, more, RUN_PREFIX))
    other = stored | {name: (33,)}
    assert "has shape [33], and config.json describes [32]" in refusal(lambda: check_architecture(config, other, RUN_PREFIX))


# ----------------------------------------------------------------------------------------------- a backbone that has moved


def trained(data: Path, folder: Path, run: Path, *flags: object) -> Path:
    call("pretrain", "--dataset", data, "--output", run, "--backbone", folder, "--epochs", 1, *flags)
    return run


@pytest.mark.parametrize("flags", [[], ["--system", "rsllm", "--hard", 0, "--negatives", 4]], ids=["cllm4rec", "rsllm"])
def test_a_backbone_that_moved_is_found_by_its_flag_and_known_by_its_hash(
    flags: list[object], folder: Path, data: Path, tmp_path: Path
) -> None:
    run = trained(data, folder, tmp_path / "run", *flags)
    sha256 = fingerprint(folder)
    moved, other = folder.rename(tmp_path / "elsewhere"), save_model(tmp_path / "other", seed=1)
    users = ["--all", "--k", 3, "--output", tmp_path / "lists.csv"]
    commands: list[list[object]] = [["evaluate"], ["recommend", *users], ["finetune", "--epochs", 1]]
    for command, *rest in commands:
        typed = [str(command), "--run", run, *rest]
        line = refusal(lambda typed=typed: call(*typed))
        assert str(folder) in line
        assert "there is no such folder" in line
        assert f"SHA-256 {sha256} by --backbone" in line
        line = refusal(lambda typed=typed: call(*typed, "--backbone", other))
        assert f"the weights of backbone {str(other)!r} are not those this run was trained with" in line
        assert sha256 in line
        call(*typed, "--backbone", moved)
    with pytest.raises(ValueError, match=sha256):
        load(run)
    assert load(run, backbone=moved).moved == {"backbone": str(moved)}


def rotate_vocabulary(folder: Path) -> None:
    """Give every word but the end token the number of the next."""

    def rotate(described: dict[str, Any]) -> None:
        words = [word for word, _ in sorted(described["model"]["vocab"].items(), key=lambda pair: pair[1])]
        described["model"]["vocab"] = {word: number for number, word in enumerate([words[0], *words[2:], words[1]])}

    edit(folder / "tokenizer.json", rotate)


def other_end(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda described: described | {"eos_token": "a"})


def set_config(key: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda described: described | {key: value})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "vocabulary": (rotate_vocabulary, "tokenizer"),
    "end": (other_end, "tokenizer"),
    "heads": (set_config("n_head", 1), "configuration"),
    "activation": (set_config("activation_function", "relu"), "configuration"),
}


@pytest.mark.parametrize("tune", ["frozen", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_frozen_backbone_is_known_by_its_configuration_and_tokenizer_too(
    tune: str, original: Path, data: Path, tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    run = trained(data, original, tmp_path / "run", "--tune", tune)
    users = ["--all", "--k", 3, "--output", tmp_path / "lists.csv"]
    commands: list[list[object]] = [["evaluate"], ["recommend", *users], ["recommend", "--verify", *users], ["finetune"]]
    for name, (change, part) in CHANGES.items():
        change(copy := Path(shutil.copytree(original, tmp_path / name)))
        for command, *rest in commands:
            typed = [str(command), "--run", run, *rest, "--backbone", copy]
            line = refusal(lambda typed=typed: call(*typed))
            assert f"the {part} of backbone {str(copy)!r} is not the one this run was trained with (SHA-256 " in line
    assert not (tmp_path / "lists.csv").exists()
    assert not (run / "finetune").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_faithful_copy_of_a_frozen_backbone_is_accepted(
    dtype: torch.dtype, original: Path, data: Path, tmp_path: Path
) -> None:
    run, copy = trained(data, original, tmp_path / "run"), tmp_path / "copy"
    AutoModelForCausalLM.from_pretrained(original, dtype=dtype, trust_remote_code=False).save_pretrained(copy)
    words = AutoTokenizer.from_pretrained(original, trust_remote_code=False)
    words("a user has interacted", truncation=True, max_length=2)  # which the library keeps in what it saves
    words.save_pretrained(copy)
    edit(copy / "config.json", lambda described: described | {"transformers_version": "5.0.0", "architectures": None})
    call("evaluate", "--run", run, "--backbone", copy)
    call("recommend", "--run", run, "--backbone", copy, "--all", "--k", 3, "--output", tmp_path / "lists.csv")
    call("finetune", "--run", run, "--backbone", copy, "--epochs", 1)


def test_a_configuration_has_the_same_hash_with_and_without_its_defaults(original: Path, folder: Path) -> None:
    edit(folder / "config.json", lambda described: {key: value for key, value in described.items() if key != "use_cache"})
    configs = [load_backbone(BackboneConfig(str(one)))[0].model.config for one in (original, folder, folder)]
    assert len({config_sha256(config) for config in configs}) == 1
    configs[0].rope_parameters = {"factor": 2.0}
    configs[1].rope_parameters = {"factor": 4.0}
    assert len({config_sha256(config) for config in configs}) == 3


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python, which has no serialised form."""

    def __init__(self, letters: str, **settings: Any) -> None:
        self.letters = letters
        super().__init__(**settings)

    @property
    def vocab_size(self) -> int:
        return len(self.letters)

    def get_vocab(self) -> dict[str, int]:
        return {letter: number for number, letter in enumerate(self.letters)}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        (Path(save_directory) / "letters.txt").write_text(self.letters, "utf-8")
        return ("letters.txt",)


def test_a_tokenizer_in_python_is_known_by_its_vocabulary() -> None:
    assert tokenizer_sha256(Letters("abc")) == tokenizer_sha256(Letters("abc"))
    assert tokenizer_sha256(Letters("abc")) != tokenizer_sha256(Letters("acb"))


def test_a_long_reason_of_a_library_is_shortened(folder: Path) -> None:
    edit(folder / "config.json", lambda described: described | {"n_inner": "x" * 5000})
    assert len(refused(folder).replace(str(folder), "")) < 350
    edit(folder / "config.json", lambda described: described | {"n_inner": None, "model_type": "x" * 5000})
    line = refused(folder)
    assert len(line.replace(str(folder), "")) < 350
    assert "code in a model's folder is never run" in line


def test_a_run_that_holds_its_backbone_takes_no_other(folder: Path, data: Path, tmp_path: Path) -> None:
    run = trained(data, folder, tmp_path / "run", "--tune", "full")
    for command in ("evaluate", "recommend", "finetune"):
        users = ["--all"] if command == "recommend" else []
        line = refusal(lambda command=command, users=users: call(command, "--run", run, "--backbone", folder / "..", *users))
        assert line == "the run holds its backbone, which was tuned: leave --backbone out"


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_a_backbone_made_here_is_trained_in_full(tune: str, data: Path, tmp_path: Path) -> None:
    """A run would not hold it otherwise, and it could not be had again."""
    line = refusal(lambda: call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--tune", tune))
    assert line == f"--tune {tune}: tiny is not pretrained and is trained in full: leave --tune out"
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_no_model_is_refused_in_one_line() -> None:
    for name in ("nobody/nothing", "a b", "./none", "none/none/none", "~/none", "x\0y"):
        assert repr(name) in refusal(lambda name=name: check_backbone(BackboneConfig(name)))


def test_a_system_without_a_backbone_takes_none(folder: Path, data: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--system", "popularity")
    line = refusal(lambda: call("evaluate", "--run", tmp_path / "run", "--backbone", folder))
    assert line == "popularity has no backbone: leave --backbone out"


def test_an_interrupted_run_is_resumed_with_a_backbone_that_moved(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    take_best = loop.Course.take_best
    whole = trained(data, folder, tmp_path / "whole", "--epochs", 2)
    monkeypatch.setattr(loop.Course, "take_best", lambda course: take_best(course) if course.at.epoch < 2 else stop())
    with pytest.raises((Stopped, SystemExit)):
        trained(data, folder, tmp_path / "run", "--epochs", 2)
    monkeypatch.undo()
    moved, other = folder.rename(tmp_path / "elsewhere"), save_model(tmp_path / "other", seed=1)
    resume = ["pretrain", "--output", tmp_path / "run", "--resume"]
    line = refusal(lambda: call(*resume))
    assert f"backbone {str(folder)!r} cannot be loaded: there is no such folder" in line
    assert f"SHA-256 {fingerprint(moved)}" in line
    assert "backbone is not as it was when training began" in refusal(lambda: call(*resume, "--backbone", other))
    for name, (change, part) in CHANGES.items():
        change(copy := Path(shutil.copytree(moved, tmp_path / name)))
        assert f"{part} is not as it was when training began" in refusal(lambda copy=copy: call(*resume, "--backbone", copy))
    call(*resume, "--backbone", moved)
    first, second = (load_file(run / "pretrain" / "model.safetensors") for run in (whole, tmp_path / "run"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_backbone_is_the_same_however_it_is_read(folder: Path) -> None:
    """Weights are handed over one by one, and not read by the library from the folder: nothing else can be read then."""
    published = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).state_dict()
    backbone: Backbone = load_backbone(BackboneConfig(str(folder)))[0]
    own = backbone.model.state_dict()
    assert own.keys() == published.keys()
    assert all(torch.equal(own[name], published[name]) for name in own)
    assert re.fullmatch("[0-9a-f]{64}", backbone.fingerprint())
