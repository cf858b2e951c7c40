"""Whole runs on a GPU through the emulated encoder; `python -m tools.nvenc_emulator.prove` has all the cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu import needs_gpu
from tools.nvenc_emulator import checks, prove
from tools.nvenc_emulator.runs import Case, perform

pytest_plugins = ("fakes.nvenc_fixtures",)
pytestmark = [needs_gpu, pytest.mark.usefixtures("driver_folder")]


@pytest.mark.parametrize("library", prove.LIBRARIES)
@pytest.mark.parametrize("profile", prove.PROFILES)
def test_what_is_decoded_is_the_mosaic_that_the_gpu_composed(library: str, profile: str, tmp_path: Path) -> None:
    assert checks.whole(perform(Case("4 streams", library, profile, 4, keyframes=(7, 26)), tmp_path)) == []
