"""Recommenders on language models whose vocabulary holds users and items.

Public names are imported when first used.
"""

import sys

if sys.argv[:1] == ["-m"] and any(
    word.removeprefix("-m").partition(".")[0] == "cllm4rec" for word in sys.orig_argv
):
    from cllm4rec.commands.signals import listen  # before the libraries of a command are imported

    listen()

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
