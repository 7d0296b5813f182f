"""Importing a system loads no library that it does not need."""

import subprocess
import sys

from cllm4rec.models import SYSTEMS

ON_A_LANGUAGE_MODEL = ("cllm4rec", "rsllm")


def test_systems_without_a_language_model_import_no_transformers() -> None:
    names = [name for name in SYSTEMS if name not in ON_A_LANGUAGE_MODEL]
    code = (
        f"import sys; from cllm4rec.models import system_class; [system_class(name) for name in {names}]; "
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
