"""What systems on a language model share: the backbone and its tokenizer in the checkpoint."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.backbone import Backbone, check_backbone, load_backbone, restore_backbone
from cllm4rec.models.base import Shapes
from cllm4rec.models.configs import BackboneConfig
from cllm4rec.models.description import ModelDescription
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.text.tokenizer import ExtendedTokenizer


class LanguageRecommender(NeuralRecommender):
    """A system whose network has a `backbone`. Its words and, where they are tuned, its weights lie in the checkpoint."""

    user_tokens: ClassVar[bool] = True  # whether users have tokens, beside items
    config: BackboneConfig
    tokenizer: ExtendedTokenizer

    def check(self, train: Dataset) -> None:
        check_backbone(self.config)

    def _extend(self, words: PreTrainedTokenizerBase, backbone: Backbone) -> None:
        self.tokenizer = ExtendedTokenizer(words, backbone.n_words, self.user_tokens * len(self.user_ids), len(self.item_ids))

    def _built_from(self) -> dict[str, Any]:
        vocabulary = json.dumps(sorted(self.tokenizer.words.get_vocab().items()))
        found = {"vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest()}
        return found if self.net.backbone.tuned else found | {"backbone": self.net.backbone.fingerprint()}

    def _describe(self) -> dict[str, Any]:
        backbone: Backbone = self.net.backbone
        described = super()._describe() | {"scales": [backbone.word_scale, backbone.id_scale]}
        return described if backbone.tuned else described | {"backbone_sha256": backbone.fingerprint()}

    def _write_description(self, folder: Path) -> None:
        super()._write_description(folder)
        if self.net.backbone.tuned:
            self.net.backbone.model.config.save_pretrained(folder / "backbone")
            self.tokenizer.words.save_pretrained(folder / "backbone")

    def _restored_backbone(self, folder: Path, described: ModelDescription, shapes: Shapes) -> Backbone:
        """The backbone of a saved run, and its tokenizer taken over.

        Raises:
            ValueError: the weights of a frozen backbone are not those of the run.
        """
        if self.config.tuned:
            backbone, words = restore_backbone(folder / "backbone", self.config, described["scales"])
        else:
            backbone, words = load_backbone(self.config)
            if backbone.fingerprint() != described["backbone_sha256"]:
                raise ValueError(f"the weights of backbone {self.config.backbone!r} are not those this run was trained with")
            backbone.word_scale, backbone.id_scale = described["scales"]
        self._extend(words, backbone)
        return backbone
