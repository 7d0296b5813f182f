"""Recommenders with small settings, fitted quickly."""

from functools import cache

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, system_class
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.one_stage import OneStageRecommender
from cllm4rec.training.config import TrainConfig
from tests.support.worlds import taste_dataset

SETTINGS = {  # fixed, so that nothing is searched; a system that is not named here keeps its defaults
    "ials": {"factors": 16, "regularization": 10.0, "alpha": 3.0},
    "ease": {"regularization": 50.0},
    "itemknn": {"neighbours": 10, "shrinkage": 5.0},
    "sasrec": {"dropout": 0.1},
    "gru4rec": {"dropout": 0.1},
    "bsarec": {"dropout": 0.1, "length": 20},
    "multvae": {"width": 32, "latent_width": 16, "dropout": 0.1},
    "recvae": {"width": 32, "latent_width": 16, "dropout": 0.1},
    "bag": {"width": 32},
    "alpharec": {"width": 16, "hidden_width": 32, "negatives": 40},
    "rsllm": {"dropout": 0.1, "title_words": 4},
}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {  # further forms of systems: name, settings
    "ease that reads": ("ease", {"text_prior": True, "prior_regularization": 5.0, "prior_share": 0.5}),
}
QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=5)
ONE_STAGE = [name for name in SYSTEMS if issubclass(system_class(name), OneStageRecommender)]


def new_system(name: str, **settings: object) -> Recommender:
    """An unfitted system, or one of VARIANTS; `settings` replace those of SETTINGS."""
    name, also = VARIANTS.get(name, (name, {}))
    system = system_class(name)
    return system(system.config_class(**{**SETTINGS.get(name, {}), **also, **settings}))


def fit(model: Recommender, dataset: Dataset, config: TrainConfig = QUICK) -> Recommender:
    """Fit any system, all its stages."""
    return model.fit(dataset, config) if isinstance(model, NeuralRecommender) else model.fit(dataset)


@cache
def fitted(name: str) -> Recommender:
    """The system with its small settings, fitted once on `taste_dataset()`."""
    return fit(new_system(name), taste_dataset())


def top_items(model: Recommender, dataset: Dataset, k: int = 20) -> np.ndarray:
    """Recommended items of all users, int64 (n_users, k), from training events."""
    return model.rank(np.arange(dataset.n_users), dataset.train, k).items


def recall_at_1(model: Recommender, dataset: Dataset) -> float:
    """Share of test events whose item is recommended first; one test event a user."""
    seen = dataset.only("train", "validation")
    best = model.rank(np.arange(dataset.n_users), seen, k=1).items[:, 0]
    return float((best == dataset.test.interactions.items).mean())
