"""All commands behind one name: python -m cllm4rec --help"""

from cllm4rec.commands.main import main

if __name__ == "__main__":
    main()
