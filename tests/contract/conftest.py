"""Every system, and the variants of some, fitted on the taste dataset."""

import pytest

from cllm4rec.models import SYSTEMS
from cllm4rec.models.base import Recommender
from tests.support.systems import VARIANTS, fitted


@pytest.fixture(params=[*SYSTEMS, *VARIANTS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Recommender:
    return fitted(name)
