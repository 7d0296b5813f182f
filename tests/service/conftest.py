"""A model that is served: EASE on titled items, and one with vectors and words."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from cllm4rec import EASE, EASEConfig
from cllm4rec.service.app import Served, application
from tests.support.datasets import numbered_dataset


@pytest.fixture(scope="session")
def ease() -> EASE:
    return EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset(titled=True))


@pytest.fixture
def client(ease: EASE) -> Iterator[TestClient]:
    with TestClient(application(Served(ease, "runs/ease"))) as client:
        yield client
