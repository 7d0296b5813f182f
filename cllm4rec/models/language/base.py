"""What systems on a language model share: the backbone and its tokenizer in the checkpoint."""

import logging
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from cllm4rec.corpora.prompts import TEMPLATES
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import REMEDY, Shapes
from cllm4rec.models.description import ModelDescription
from cllm4rec.models.language.backbone import Backbone, check_backbone, load_backbone, restore_backbone
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.fingerprints import config_sha256, tokenizer_sha256
from cllm4rec.models.neural import NeuralRecommender

log = logging.getLogger("cllm4rec")

FINGERPRINTS = {  # key of model.json -> the part of a backbone that it identifies
    "backbone_sha256": "the weights of backbone {!r} are not those",
    "config_sha256": "the configuration of backbone {!r} is not the one",
    "tokenizer_sha256": "the tokenizer of backbone {!r} is not the one",
}


class LanguageRecommender(NeuralRecommender):
    """A system whose network has a `backbone`. Its words and, where they are tuned, its weights lie in the checkpoint."""

    user_tokens: ClassVar[bool] = True  # whether users have tokens, beside items
    prompt_names: ClassVar[tuple[str, ...]]  # of its templates
    config: BackboneConfig
    tokenizer: ExtendedTokenizer

    def check(self, train: Dataset) -> None:
        words = check_backbone(self.config, self.moved.get("backbone"))
        if words is not None:
            self._check_words(words)

    def _check_words(self, words: PreTrainedTokenizerBase) -> None:  # noqa: B027 - most tokenizers are fine
        """Refuse a pretrained backbone's tokenizer that the system cannot use.

        Raises:
            ValueError: says what it lacks.
        """

    def _extend(self, words: PreTrainedTokenizerBase, backbone: Backbone) -> None:
        self.tokenizer = ExtendedTokenizer(
            words, backbone.n_words, self.user_tokens * len(self.user_ids), len(self.item_ids)
        )

    def _built_from(self) -> dict[str, Any]:
        backbone: Backbone = self.net.backbone
        found = {
            "tokenizer": tokenizer_sha256(self.tokenizer.words),
            "configuration": config_sha256(backbone.model.config),
        }
        return found if backbone.tuned else found | {"backbone": backbone.fingerprint()}

    def _describe(self) -> dict[str, Any]:
        backbone: Backbone = self.net.backbone
        described = super()._describe() | {
            "scales": [backbone.word_scale, backbone.id_scale],
            "templates": {name: TEMPLATES[name] for name in self.prompt_names},
        }
        return described if backbone.tuned else described | _fingerprints(backbone, self.tokenizer.words)

    def _prepare(self, folder: Path, described: ModelDescription, shapes: Shapes) -> None:
        super()._prepare(folder, described, shapes)
        self._compare_templates(folder, described)

    def _compare_templates(self, folder: Path, described: ModelDescription) -> None:
        """Warn if the system was trained with prompts of other wording than this version writes.

        Raises:
            ValueError: the run does not say with which.
        """
        trained_with = described.get("templates", {})
        missing = [name for name in self.prompt_names if name not in trained_with]
        if missing:
            raise ValueError(f"{folder} is damaged (model.json: templates has no {missing[0]!r}): {REMEDY}")
        other = [name for name in self.prompt_names if trained_with[name] != TEMPLATES[name]]
        if other:
            log.warning(
                "%s was trained with prompts of other wording (%s): this version of cllm4rec may score it worse; "
                "train it again, or use the version that trained it",
                folder,
                "; ".join(f"{name}: {trained_with[name]!r}, now {TEMPLATES[name]!r}" for name in other),
            )

    def _write_description(self, folder: Path) -> None:
        super()._write_description(folder)
        if self.net.backbone.tuned:
            self.net.backbone.model.config.save_pretrained(folder / "backbone")
            self.tokenizer.words.save_pretrained(folder / "backbone")

    def _restored_backbone(self, folder: Path, described: ModelDescription, shapes: Shapes) -> Backbone:
        """The backbone of a saved run, and its tokenizer taken over.

        Raises:
            ValueError: the run holds its backbone and another folder was named, or a frozen backbone is not there, or not
                that of the run.
        """
        moved, scales = self.moved.get("backbone"), described.get("scales")
        expected: dict[str, str] = {key: value for key, value in described.items() if key in FINGERPRINTS}  # type: ignore[misc]
        missing = [] if self.config.tuned else [key for key in FINGERPRINTS if key not in expected]
        if scales is None or missing:
            key = "scales" if scales is None else missing[0]
            raise ValueError(f"{folder} is damaged (model.json: key {key} is missing): {REMEDY}")
        if self.config.tuned:
            if moved is not None:
                raise ValueError("the run holds its backbone, which was tuned: leave --backbone out")
            backbone, words = restore_backbone(folder / "backbone", self.config, scales, shapes)
        else:
            backbone, words = self._frozen_backbone(moved or self.config.backbone, expected)
            backbone.word_scale, backbone.id_scale = scales
        self._extend(words, backbone)
        return backbone

    def _frozen_backbone(
        self, folder: str, expected: dict[str, str]
    ) -> tuple[Backbone, PreTrainedTokenizerBase]:
        """The backbone that the run was trained on, which it does not hold.

        Raises:
            ValueError: it is not in that folder; the message says which part of it differs, and by which hash it is known.
        """
        advice = f"name the folder of the weights with SHA-256 {expected['backbone_sha256']} by --backbone"
        try:
            backbone, words = load_backbone(self.config, folder)
        except ValueError as error:
            raise ValueError(f"{error}. The run does not hold its backbone: {advice}") from error
        found = _fingerprints(backbone, words)
        for key, differs in FINGERPRINTS.items():
            if found[key] != expected[key]:
                known = advice if key == "backbone_sha256" else "name the folder as it was then by --backbone"
                raise ValueError(
                    f"{differs.format(folder)} this run was trained with (SHA-256 {found[key]}, not {expected[key]}): {known}"
                )
        return backbone, words


def _fingerprints(backbone: Backbone, words: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of the parts of a backbone that a run does not hold, by the keys of model.json."""
    parts = (backbone.fingerprint(), config_sha256(backbone.model.config), tokenizer_sha256(words))
    return dict(zip(FINGERPRINTS, parts, strict=True))
