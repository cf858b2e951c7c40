"""Where a model is: by the name of one that comes with tiler, or by its path. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from tiler.errors import InputError

SHIPPED = Path(__file__).parent / "models"


def shipped_models() -> tuple[str, ...]:
    """Names of the models that come with tiler."""
    return tuple(sorted(p.stem for p in SHIPPED.glob("*.onnx") if not p.stem.endswith("-fp16")))


def shipped_half(path: Path) -> Path | None:
    """The FP16 file that comes with tiler beside that of a shipped model; None where none does."""
    beside = path.with_name(f"{path.stem}-fp16.onnx")
    return beside if path.parent == SHIPPED and beside.is_file() else None


def find_model(name_or_path: str, folder: Path) -> Path:
    """The file of a model.

    Args:
        name_or_path: a name of `shipped_models`, or the path of an .onnx file.
        folder: what a relative path starts from.

    Raises:
        InputError: there is no such model.
    """
    if name_or_path in shipped_models():
        return SHIPPED / f"{name_or_path}.onnx"
    if not name_or_path.lower().endswith(".onnx"):
        known = ", ".join(shipped_models()) or "none"
        raise InputError(
            f"unknown model {name_or_path!r}; accepted: a model that tiler ships ({known}) "
            "or the path of an .onnx file"
        )
    try:
        path = folder / Path(name_or_path).expanduser()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError):  # names that no file system takes
        found = False
    if not found:
        raise InputError(f"model file {name_or_path!r} does not exist in {folder}")
    return path
