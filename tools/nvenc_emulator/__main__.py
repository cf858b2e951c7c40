"""Runs a command on the emulated encoder.

    python -m tools.nvenc_emulator --log calls.jsonl tiler run tiler.yaml
    python -m tools.nvenc_emulator --host-cuda COMMAND...      # no CUDA driver either
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from tools.nvenc_emulator import environment


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="One JSON object a call, appended.")
@click.option("--host-cuda", is_flag=True, help="libcuda is emulated too, with host memory.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(log: Path | None, host_cuda: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with the emulated NVENC driver in front of the real one."""
    os.execvpe(command[0], list(command), environment(host_cuda=host_cuda, log=log))


if __name__ == "__main__":
    main()
