"""Where the stages of a run land, and what is said when it is not where the config wants them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from tiler import cuda, stages
from tiler.cli import main
from tiler.config.loader import LoadedConfig, load
from tiler.config.models import Config
from tiler.errors import InputError


def loaded(folder: Path, text: str) -> LoadedConfig:
    path = folder / "c.yaml"
    path.write_text(f"{text}\nsources: [{{id: a, uri: 'sample://duo'}}]\n", encoding="utf-8")
    return load(path, [])


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU, as far as the choice of a device looks."""
    monkeypatch.setattr(cuda, "problem", lambda index=0: None if index == 0 else f"there is no cuda:{index}")


@pytest.mark.usefixtures("gpus")
def test_a_gpu_takes_every_stage_that_works_on_pixels(tmp_path: Path) -> None:
    choices = {choice.stage: choice.device for choice in stages.choose(loaded(tmp_path, "device: auto"))}
    assert choices == {
        "decode": "cuda:0", "preprocess": "cuda:0", "infer": "cuda:0", "track": "cpu", "compose": "cuda:0",
        "encode": "cuda:0", "output": "cpu",
    }  # fmt: skip


@pytest.mark.usefixtures("gpus")
def test_the_cpu_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    choices = stages.choose(loaded(tmp_path, "device: cpu\ndetector: none"))
    assert [choice.device for choice in choices] == ["cpu"] * 4
    assert choices[0].reason == "device: cpu"


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_is_not_there_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device: cuda:3 cannot be used: there is no cuda:3; accepted here: auto, cpu"):
        stages.choose(loaded(tmp_path, "device: cuda:3"))


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("key", ["device: cpu", "encoder.driver: x264"])
def test_a_key_that_libx264_cannot_honour_is_refused_by_check_as_by_run(tmp_path: Path, command: str, key: str) -> None:
    path = loaded(tmp_path, "detector: none").path
    output = ["-o", str(tmp_path / "x.mp4")] if command == "run" else []
    sets = ["--set", key.replace(": ", "="), "--set", "encoder.codec=hevc"]
    result = CliRunner().invoke(main, [command, str(path), *sets, *output])
    assert result.exit_code == 2
    assert result.output == (
        f"encoder.codec: hevc needs NVENC; accepted on libx264: h264\n(libx264 encodes, because: {key})\n"
    )


def of(device: str, *allowed: str) -> Config:
    return Config(sources=[{"id": "a", "uri": "x"}], device=device, allow_cpu=list(allowed))  # type: ignore[list-item, arg-type]


def test_a_stage_on_the_cpu_is_refused_unless_the_config_lists_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"encode cannot run on cuda: no NVENC here; accepted here: allow_cpu"):
        stages.refuse_cpu(of("cuda", "decode"), "encode", "libx264", "no NVENC here")
    with caplog.at_level(logging.WARNING):
        stages.refuse_cpu(of("cuda", "encode"), "encode", "libx264", "no NVENC here")
        stages.refuse_cpu(of("auto"), "infer", "ONNX Runtime", "no runtime")
    assert [record.message for record in caplog.records] == [
        "encode runs on the CPU (libx264): no NVENC here", "infer runs on the CPU (ONNX Runtime): no runtime",
    ]  # fmt: skip
