"""What the package logs, without the lines of the audit."""

import pytest


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages but those of the audit."""
    return [record.getMessage() for record in caplog.records if record.name != "cllm4rec.audit"]
