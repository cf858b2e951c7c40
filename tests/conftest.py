"""What every test may use."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long a test takes is the machine's matter. A gate must give the same answer for the same code; elsewhere every run
# looks at fresh inputs.
settings.register_profile("any machine", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Samples that tests render go to a folder of the session, unless the caller names one."""
    os.environ.setdefault("TILER_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be entered, by root either."""
    folder = tmp_path / "closed"
    folder.mkdir()
    for name in ("stat", "lstat"):
        look = getattr(os, name)

        def refuse(path: Any, *args: Any, _look: Any = look, **how: Any) -> Any:
            if not isinstance(path, int) and folder in Path(os.fsdecode(path)).absolute().parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return _look(path, *args, **how)

        monkeypatch.setattr(os, name, refuse)
    return folder
