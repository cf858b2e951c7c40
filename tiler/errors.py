"""What can go wrong, and whose turn it is to act.

    TilerError
    ├── InputError        the user's input is wrong (config, file, model): exit code 2
    │   └── ConfigError   one or more findings in a YAML file, all reported together
    └── RunError          the run failed; what was recorded stays playable: exit code 1
        └── StageError    a stage failed; names the stage and, where there is one, the stream

A message says what is wrong, where, and what is accepted. Secrets in URIs are masked
with `mask_uri` before they reach any message.
"""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/@\s:]*)(?::(?:[^/\s]*|(?!\d{1,5}/)[^@?#\s]*))?@"
)
"""A password may have a slash, which ought to be written %2F: up to the first @ then, unless it looks like a port."""
_SECRET = r"(?:token|key|pass\w*|pwd|secret|auth|sig|signature)="
_SECRET_PARAMETER = re.compile(rf"(?P<key>[?&][^=&#\s]*{_SECRET})[^&#\s]*", re.IGNORECASE)
_SECRET_IN_PATH = re.compile(rf"(?P<key>[/_;,][^=&#/_\s]*{_SECRET})(?:(?!_\w+=)[^&#/\s])*", re.IGNORECASE)
"""As recorders have them: /user=admin_password=1234_channel=1.sdp"""
_STREAM_KEY = re.compile(r"(?P<app>rtmp[a-z]{0,2}://[^/\s]+/[^/\s?]+/)[^\s?#]+", re.IGNORECASE)
"""The last part of an RTMP URL is what a streaming service knows its customer by."""


class TilerError(Exception):
    """Base of every error that tiler raises on purpose."""

    exit_code = 1


class InputError(TilerError):
    """The user's input is wrong: one clear message, no traceback."""

    exit_code = 2


class ConfigError(InputError):
    """All findings of one config at once, one per line."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class RunError(TilerError):
    """The run failed after it had started."""


class StageError(RunError):
    """A stage failed."""

    def __init__(self, stage: str, message: str, stream: str | None = None) -> None:
        where = f"{stage} ({stream})" if stream else stage
        super().__init__(f"{where}: {message}")
        self.stage = stage
        self.stream = stream


def mask_uri(text: str) -> str:
    """Hide passwords, tokens and RTMP stream keys of every URI in `text`.

    >>> mask_uri("rtsp://admin:hunter2@10.0.0.7/main?token=abc&x=1")
    'rtsp://admin:***@10.0.0.7/main?token=***&x=1'
    >>> mask_uri("rtmp://a.example.com/live2/abcd-1234")
    'rtmp://a.example.com/live2/***'
    >>> mask_uri("rtsp://10.0.0.8/user=admin_password=hunter2_channel=1.sdp")
    'rtsp://10.0.0.8/user=admin_password=***_channel=1.sdp'
    >>> mask_uri("C:/plain/file.mp4")
    'C:/plain/file.mp4'
    """
    text = _CREDENTIALS.sub(lambda m: f"{m['scheme']}{m['user']}:***@", text)
    text = _STREAM_KEY.sub(lambda m: f"{m['app']}***", text)
    text = _SECRET_PARAMETER.sub(lambda m: f"{m['key']}***", text)
    return _SECRET_IN_PATH.sub(lambda m: f"{m['key']}***", text)
