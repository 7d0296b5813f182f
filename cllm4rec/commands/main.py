"""The console script `cllm4rec`, which is also `python -m cllm4rec`."""

from cllm4rec.commands.signals import listen


def main() -> None:
    """Run the command of `sys.argv`."""
    listen()  # before the libraries of a command are imported
    from cllm4rec.commands.dispatch import dispatch
    from cllm4rec.commands.entry import run

    run(dispatch)
