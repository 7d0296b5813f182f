"""Serve the lists of a run over HTTP, with a page: cllm4rec serve --help"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cllm4rec.commands.entry import log, run
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.commands.tables import read_text
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:  # it imports torch
    from cllm4rec.models.base import Recommender

EXTRA = ("fastapi", "uvicorn", "prometheus_client")


@dataclass
class ServeOptions:
    """Flags of serve."""

    run: str = setting(metavar="FOLDER", help="run folder")
    host: str = setting(
        "127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; the default is reached from this machine alone",
    )
    port: int = setting(8000, ge=0, le=65_535, help="port to listen on; 0: a free one, which is printed")
    token_file: str | None = setting(
        None, metavar="FILE", help="file of a token that requests have to bear (Authorization: Bearer TOKEN)"
    )
    most_waiting: int = setting(
        256,
        ge=1,
        advanced=True,
        help="requests that may wait for the batch under way; further ones are answered by 503",
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=DATASET)
    verify: bool = setting(False, help=VERIFY)
    backbone: str | None = setting(None, metavar="FOLDER", help=BACKBONE)


def main(argv: Sequence[str]) -> None:
    with CommandLine("serve", argv) as line:
        description = (
            "Serve the lists of a run over HTTP, with a page at the address that it prints. SIGHUP loads the "
            "run anew, SIGTERM ends gracefully."
        )
        (options,) = line.parse(description, [ServeOptions])
        token = None if options.token_file is None else read_token(options.token_file)
        try:
            from cllm4rec.service.server import serve
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise ValueError(
                f"the service needs {error.name}, which is not installed: pip install {' '.join(EXTRA)} "
                "(extra cllm4rec[serve])"
            ) from error
        serve(lambda: loaded(options), options, token)


def loaded(options: ServeOptions) -> "Recommender":
    """The model of the run, with the events of its dataset.

    Without the dataset it serves histories and wishes, and a warning is logged.

    Raises:
        ValueError: the run is damaged, or the dataset of `options` is not that of its training.
    """
    folder = RunFolder.open(options.run)
    model = load(folder, options.dataset, backbone=options.backbone, verify=options.verify)
    model.item_ids.build_dictionary()
    try:
        model._source_dataset().user_ids.build_dictionary()
    except ValueError as error:
        reason = str(error).replace("`dataset`", "--dataset")
        log.warning("no users of the dataset are served, only histories and wishes (%s)", reason)
    return model


def read_token(path: str) -> str:
    """The token in a file.

    Raises:
        ValueError: the file cannot be read, or it does not hold one line of printable ASCII characters.
    """
    token = read_text(path).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{path}: expected one token of ASCII letters, digits and signs, without spaces")
    return token


if __name__ == "__main__":
    run(main)
