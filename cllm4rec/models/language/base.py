"""Systems on a language model: the backbone and its tokenizer in the model folder."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cllm4rec.corpora.documents import document_tokens
from cllm4rec.corpora.prompts import TEMPLATES
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.description import ModelDescription, Shapes
from cllm4rec.models.language import adapters
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.fingerprints import config_sha256, tokenizer_sha256
from cllm4rec.models.language.loading import check_backbone, load_backbone, restore_backbone
from cllm4rec.models.language.wording import document_changes, template_changes
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.resume import BuiltFrom

log = logging.getLogger("cllm4rec")

ADVICE = "train it again, or use the tokenizer and the version of cllm4rec that trained it"
ADAPTER = "adapter"  # folder of the adapters in that of the model

FINGERPRINTS = {  # key of model.json -> message if it differs
    "backbone_sha256": "the weights of backbone {!r} are not those",
    "config_sha256": "the configuration of backbone {!r} is not the one",
    "tokenizer_sha256": "the tokenizer of backbone {!r} is not the one",
}


class LanguageRecommender(NeuralRecommender):
    """A system whose network has a `backbone`.

    The model folder holds a tuned backbone and its tokenizer, and the SHA-256 of a frozen one. Adapters are
    in PEFT's format, in a folder of their own.

    Attributes:
        user_tokens: whether users have ID tokens; items always have.
        prompt_names: keys in `TEMPLATES` of its prompts.
        tokenizer: of text and IDs.
        changes: what a loaded model reads otherwise than in training.
    """

    user_tokens: ClassVar[bool] = True
    prompt_names: ClassVar[tuple[str, ...]]
    config: BackboneConfig
    tokenizer: ExtendedTokenizer
    changes: Sequence[str] = ()

    def check(self, dataset: Dataset) -> None:
        pretrained = check_backbone(self.config, self.moved.get("backbone"))
        if pretrained is not None:
            document_tokens(pretrained.tokenizer, self._in_chat, _eos(pretrained.model))

    def set_config(self, config: Any) -> None:
        self._check_fitted()
        self._check_config(config)
        if config.bidirectional and not config.built_in:
            self.net.backbone.check_reads_sets()
        super().set_config(config)

    @property
    def _in_chat(self) -> bool:
        """Whether documents follow the backbone's chat template, if there is one."""
        return self.config.chat_template == "auto"

    def _extend(self, text_tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> None:
        """Extend the tokenizer of a backbone by the IDs."""
        self.changes = ()  # until a description is compared
        n_users = len(self.user_ids) if self.user_tokens else 0
        self.tokenizer = ExtendedTokenizer(
            text_tokenizer,
            backbone.n_text_tokens,
            n_users,
            len(self.item_ids),
            chat=self._in_chat,
            eos=_eos(backbone.model),
        )

    def _built_from(self) -> BuiltFrom:
        backbone: Backbone = self.net.backbone
        return BuiltFrom(
            tokenizer=tokenizer_sha256(self.tokenizer.text_tokenizer),
            configuration=config_sha256(backbone.model.config),
            backbone=None if backbone.tuned else backbone.stored_sha256,
            dtype=None if backbone.tuned else str(backbone.dtype).removeprefix("torch."),
            document=self.tokenizer.document,
            templates=self._templates(),
        )

    def _templates(self) -> dict[str, str]:
        """The wording of its prompts, by name."""
        return {name: TEMPLATES[name] for name in self.prompt_names}

    def _describe(self) -> dict[str, Any]:
        backbone: Backbone = self.net.backbone
        description = super()._describe() | {
            "scales": [backbone.token_scale, backbone.id_scale],
            "templates": self._templates(),
            "document": asdict(self.tokenizer.document),
        }
        if backbone.commit is not None:
            description["backbone_commit"] = backbone.commit
        if not backbone.tuned:
            description |= _fingerprints(backbone, self.tokenizer.text_tokenizer)
        return description

    def _prepare(self, folder: Path, description: ModelDescription, shapes: Shapes) -> None:
        super()._prepare(folder, description, shapes)
        self._compare_templates(folder, description)

    def _compare_templates(self, folder: Path, description: ModelDescription) -> None:
        """Log a warning if the wording of a prompt has changed since the model was trained.

        Raises:
            ValueError: model.json lacks the wording of a prompt.
        """
        trained_with = description.get("templates", {})
        missing = [name for name in self.prompt_names if name not in trained_with]
        if missing:
            raise ValueError(f"{folder} is damaged (model.json: templates has no {missing[0]!r}): {REMEDY}")
        changes = template_changes(trained_with, self._templates())
        self._warn_of_changes(f"{folder} was trained with prompts of other wording", changes)

    def _compare_document(self, folder: Path, description: ModelDescription) -> None:
        """Log a warning if documents of training began or ended with other tokens.

        Raises:
            ValueError: model.json lacks those tokens.
        """
        if "document" not in description:
            raise ValueError(f"{folder} is damaged (model.json: key document is missing): {REMEDY}")
        changes = document_changes(
            description["document"], self.tokenizer.document, self.tokenizer.text_tokenizer
        )
        self._warn_of_changes(f"{folder} was trained with documents that begin or end otherwise", changes)

    def _warn_of_changes(self, subject: str, changes: list[str]) -> None:
        """Log a warning about what is read otherwise than in training, and remember it."""
        self.changes = [*self.changes, *changes]
        if changes:
            log.warning("%s (%s): it may be scored worse; %s", subject, "; ".join(changes), ADVICE)

    def _stored(self) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in super()._stored().items()
            if not (self.net.backbone.adapted and ".lora_" in name)
        }

    def _weight_files(self) -> set[str]:
        of_adapters = {f"{ADAPTER}/{adapters.WEIGHTS}"} if self.net.backbone.adapted else set()
        return super()._weight_files() | of_adapters

    def _write_weights(self, folder: Path) -> None:
        super()._write_weights(folder)
        if self.net.backbone.adapted:
            adapters.write_adapter_weights(self.net.backbone.model, folder / ADAPTER)

    def _write_description(self, folder: Path) -> None:
        super()._write_description(folder)
        if self.net.backbone.adapted:
            revision = self.net.backbone.commit or self.config.revision
            adapters.write_adapter_config(
                self.net.backbone.model, folder / ADAPTER, self.config.backbone, revision
            )
        if self.net.backbone.tuned:
            self.net.backbone.model.config.save_pretrained(folder / "backbone")
            self.tokenizer.text_tokenizer.save_pretrained(folder / "backbone")

    def _restored_backbone(self, folder: Path, description: ModelDescription, shapes: Shapes) -> Backbone:
        """The backbone of a saved model. Its tokenizer is set too.

        Args:
            folder: of the model.
            description: the content of model.json.
            shapes: of the arrays in model.safetensors, by name.

        Raises:
            ValueError: a folder was named although the run holds its backbone; or a frozen backbone is
                missing, or differs from that of the run.
        """
        moved, scales = self.moved.get("backbone"), description.get("scales")
        expected = {key: str(value) for key, value in description.items() if key in FINGERPRINTS}
        missing = [] if self.config.tuned else [key for key in FINGERPRINTS if key not in expected]
        if scales is None or missing:
            key = "scales" if scales is None else missing[0]
            raise ValueError(f"{folder} is damaged (model.json: key {key} is missing): {REMEDY}")
        if self.config.tuned:
            if moved is not None:
                raise ValueError("the run holds its backbone, which was tuned: leave `backbone` out")
            backbone, text_tokenizer = restore_backbone(folder / "backbone", self.config, scales, shapes)
        else:
            backbone, text_tokenizer = self._frozen_backbone(
                moved, description.get("backbone_commit"), expected
            )
            backbone.token_scale, backbone.id_scale = scales
        if backbone.adapted:
            with reading(folder / ADAPTER, REMEDY):
                adapters.read_adapters(backbone.model, folder / ADAPTER)
        self._extend(text_tokenizer, backbone)
        self._compare_document(folder, description)
        return backbone

    def merge_adapters(self) -> None:
        self._check_fitted()
        backbone: Backbone = self.net.backbone
        if backbone.adapted:
            adapters.merge_adapters(backbone.model)

    def _start(
        self, dataset: Dataset, stage: str, config: TrainConfig | None, accelerator: Accelerator
    ) -> TrainConfig:
        if self.changes and stage != self.stages[0]:
            raise ValueError(
                f"{stage} would read prompts or documents otherwise than {self.stage} did "
                f"({'; '.join(self.changes)}): {ADVICE}"
            )
        if self._is_fitted and self.net.backbone.adapted and stage != self.stages[0]:
            self._unmerge_adapters()
        return super()._start(dataset, stage, config, accelerator)

    def _unmerge_adapters(self) -> None:
        """Read the weights that adapters were merged into again, before training.

        Raises:
            ValueError: the backbone is no longer there, or has changed.
        """
        backbone: Backbone = self.net.backbone
        if adapters.are_merged(backbone.model):
            expected = _fingerprints(backbone, self.tokenizer.text_tokenizer)
            frozen, _ = self._frozen_backbone(self.moved.get("backbone"), backbone.commit, expected)
            adapters.unmerge_adapters(backbone.model, frozen.model)

    def _frozen_backbone(
        self, moved: str | None, commit: str | None, expected: dict[str, str]
    ) -> tuple[Backbone, PreTrainedTokenizerBase]:
        """The frozen backbone of the run, which the run does not hold, and its tokenizer.

        Args:
            moved: its new location, if it has moved.
            commit: of its repository at the hub at training: its main branch may have moved on.
            expected: SHA-256 by key of model.json.

        Raises:
            ValueError: it cannot be loaded, or its weights, configuration or tokenizer differ. The message
                names the expected SHA-256.
        """
        advice = f"name the folder of the weights with SHA-256 {expected['backbone_sha256']} by `backbone`"
        config = self.config if commit is None else replace(self.config, revision=commit)
        try:
            backbone, text_tokenizer = load_backbone(config, moved, advice="")
        except ValueError as error:
            raise ValueError(f"{error}. The run does not hold its backbone: {advice}") from error
        hashes = _fingerprints(backbone, text_tokenizer)
        for key, message in FINGERPRINTS.items():
            if hashes[key] != expected[key]:
                remedy = advice if key == "backbone_sha256" else "name the unchanged folder by `backbone`"
                subject = message.format(moved or config.backbone)
                raise ValueError(
                    f"{subject} this run was trained with (SHA-256 {hashes[key]}, not {expected[key]}): "
                    + remedy
                )
        if commit is not None:  # a copy in a folder has the same values
            backbone.commit = commit
        return backbone, text_tokenizer


def _fingerprints(backbone: Backbone, text_tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of the weights, configuration and tokenizer of a backbone, by key of model.json."""
    hashes = (
        str(backbone.stored_sha256),
        config_sha256(backbone.model.config),
        tokenizer_sha256(text_tokenizer),
    )
    return dict(zip(FINGERPRINTS, hashes, strict=True))


def _eos(model: PreTrainedModel) -> tuple[int, ...]:
    """EOS tokens that a model's configuration names: none, one or several."""
    eos = model.config.to_dict().get("eos_token_id")
    return tuple(token for token in (eos if isinstance(eos, list) else [eos]) if isinstance(token, int))
