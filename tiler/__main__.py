"""`python -m tiler`: the command, where its script is not on the path."""

from tiler.cli import main

if __name__ == "__main__":  # a process that this one spawns imports it, too
    main(prog_name="tiler")
