"""Counts the calls of this process that change files below a folder, and kills the process at a chosen one.

A kill point lies between two such calls, or within the writing of a file. An audit hook sees the calls of
Python. Writers in Rust open files unseen: those of Polars, safetensors and tokenizers are wrapped.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS_OF = {  # audit event -> positions of its paths, each with that of its folder's descriptor or None
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
}
RUST_WRITERS = (  # module, class (None: a function of the module), names, position of the path
    ("polars", "DataFrame", ("write_parquet", "write_csv", "write_ndjson", "write_json", "write_ipc"), 1),
    ("safetensors.torch", None, ("serialize_file",), 1),
    ("safetensors.numpy", None, ("serialize_file",), 1),
    ("tokenizers", "Tokenizer", ("save",), 1),
)


class DiskEvents:
    """The changes below a folder, in order.

    Attributes:
        folder: changes elsewhere are ignored.
        kill_at: number of the point at which the process ends by SIGKILL; None: never.
        points: the call after each point that was passed.
        at_event: called before each change.
    """

    def __init__(
        self, folder: Path, kill_at: int | None = None, at_event: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self.kill_at, self.at_event = os.path.realpath(folder) + os.sep, kill_at, at_event
        self.points: list[str] = []
        self.made: set[str] = set()  # paths opened for writing, and targets of renames
        self._written: tuple[str, int] | None = None  # the file opened last, and its size at that time
        self._watching = False

    def watch(self) -> None:
        """Begin. An audit hook cannot be removed: a process watches one folder."""
        sys.addaudithook(self._hook)
        for module, kind, names, position in RUST_WRITERS:
            owner = sys.modules.get(module)
            if owner is not None:
                self._wrap(owner, kind, names, position)
        folders = sys.modules.get("cllm4rec.files.folders")
        if folders is not None:
            self._wrap_exchange(folders)
        self._wrap_sync()
        self._watching = True

    def finish(self) -> None:
        """The last file may be cut, too; then stop watching."""
        self._cut_points()
        self._watching = False

    def _wrap(self, module: Any, kind: str | None, names: tuple[str, ...], position: int) -> None:
        for name in names:
            if (
                kind == "Tokenizer"
            ):  # a class of Rust, whose methods cannot be replaced: transformers' caller is
                name, owner = "_save_pretrained", sys.modules["transformers"].PreTrainedTokenizerFast
            else:
                owner = module if kind is None else getattr(module, kind)
            method = getattr(owner, name)

            @functools.wraps(method)
            def wrapped(*given: Any, method: Any = method, **named: Any) -> Any:
                path = given[position] if len(given) > position else next(iter(named.values()), None)
                if kind == "Tokenizer":
                    path = Path(str(path)) / "tokenizer.json"
                if isinstance(path, str | os.PathLike):
                    self._opened(os.fspath(path), truncating=True)
                return method(*given, **named)

            setattr(owner, name, wrapped)

    def _wrap_exchange(self, folders: Any) -> None:
        """The exchange of two folders is a call of C, of which an audit hook sees no paths."""
        exchange = folders._exchange

        def wrapped(first: Path, second: Path) -> bool:
            if self._watching and (name := self._whole(second, None)).startswith(self.folder):
                self._point(f"exchange {name.removeprefix(self.folder)}")
                self.made.add(name)
            return bool(exchange(first, second))

        folders._exchange = wrapped

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event == "open":
            path, mode, flags = arguments
            writing = isinstance(flags, int) and flags & WRITING
            if isinstance(path, str | bytes | os.PathLike) and writing:
                self._opened(
                    os.fsdecode(path), bool(flags & os.O_TRUNC) or (isinstance(mode, str) and "w" in mode)
                )
        elif event in PATHS_OF:
            pairs = [(arguments[path], None if at is None else arguments[at]) for path, at in PATHS_OF[event]]
            inside = [
                whole for whole in (self._whole(*pair) for pair in pairs) if whole.startswith(self.folder)
            ]
            if inside:
                if event in ("os.rename", "os.link"):
                    self.made.add(self._whole(*pairs[-1]))
                self._point(f"{event} {' '.join(path.removeprefix(self.folder) for path in inside)}")

    def _whole(self, path: Any, folder: int | None) -> str:
        """The absolute path, links of its folder followed."""
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        name = os.fsdecode(path)
        if not os.path.isabs(name):
            above = os.getcwd() if folder in (None, -1) else os.readlink(f"/proc/self/fd/{folder}")
            name = os.path.join(above, name)
        return os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))

    def _opened(self, path: str, truncating: bool) -> None:
        whole = self._whole(path, None)
        if not whole.startswith(self.folder):
            return
        self._point(f"open {whole.removeprefix(self.folder)}")
        self.made.add(whole)
        self._written = (whole, os.path.getsize(whole) if not truncating and os.path.exists(whole) else 0)

    def _wrap_sync(self) -> None:
        """No audit event tells of fsync."""
        fsync = os.fsync

        def wrapped(fd: Any) -> None:
            path = self._whole(fd if isinstance(fd, int) else fd.fileno(), None)
            if self._watching and path.startswith(self.folder):
                self._point(f"fsync {path.removeprefix(self.folder)}")
            fsync(fd)

        os.fsync = wrapped

    def _point(self, what: str) -> None:
        self._cut_points()
        self.at_event()
        self._pass(what)

    def _cut_points(self) -> None:
        """Points within the writing of the last file: nothing is written, half of it is written."""
        if self._written is not None:
            (path, before), self._written = self._written, None
            if os.path.exists(path) and (size := os.path.getsize(path)) > before:
                for share in (0, 2):
                    cut = before + (size - before) // share if share else before
                    name = path.removeprefix(self.folder)
                    self._pass(
                        f"{'half' if share else 'nothing'} of {name}",
                        functools.partial(os.truncate, path, cut),
                    )

    def _pass(self, what: str, first: Callable[[], None] = lambda: None) -> None:
        if len(self.points) == self.kill_at:
            self._watching = False
            first()
            os.kill(os.getpid(), signal.SIGKILL)
        self.points.append(what)
