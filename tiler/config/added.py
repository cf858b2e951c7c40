"""A source that somebody asks for while a run goes on -> the Source it becomes, or why not.

Whoever may ask may watch the mosaic, so nothing of this machine may be shown that the config does not show: only
what comes over a network, and what that refers to must come over a network too.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tiler.config.models import IMAGE_SUFFIXES, Source, is_live
from tiler.errors import InputError

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp")
_PROTOCOLS = "rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,rtmp,rtmps"
"""What FFmpeg may open for such a source: a playlist must not name a file."""
_PLAIN = ("udp", "tcp", "rtp")
"""FFmpeg takes what follows a `?` in these as its options."""


def added_source(source_id: str, uri: str, label: str | None) -> Source:
    """The source of these; a clip or a sample goes round and round, in its own time.

    Args:
        source_id: a `Name`.
        uri: from outside.
        label: title of the tile; the id when absent.

    Raises:
        InputError: the URI is not accepted. It is not told again: there may be secrets in it.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    given: dict[str, object] = {"id": source_id, "uri": f"{scheme}://{rest}", "label": label}
    if scheme == "sample" and separator:
        return Source.model_validate(given | {"uri": _sample(rest), "realtime": True, "loop": True})
    if scheme not in SCHEMES or not separator:
        known = ", ".join(f"{one}://" for one in (*SCHEMES, "sample"))
        raise InputError(f"uri: not a kind that can be added to a run; accepted: {known}")
    try:
        parts = urlsplit(uri)
        fine = bool(parts.netloc) and parts.port != 0 and uri.isprintable() and not set(uri) & set(" \\")
    except ValueError:
        fine = False
    if not fine:
        raise InputError(f"uri: not an address; expected such as {scheme}://HOST:PORT/PATH, without spaces")
    if scheme in _PLAIN and ("?" in rest or "#" in rest):
        raise InputError(f"uri: options of {scheme}:// are taken from a config only; accepted: {scheme}://HOST:PORT")
    given["options"] = {"protocol_whitelist": _PROTOCOLS}
    source = Source.model_validate(given)
    if is_live(source):
        return source
    again = Path(parts.path).suffix.lower() not in IMAGE_SUFFIXES  # a picture: it would be fetched for every one
    return source.model_copy(update={"realtime": True, "loop": again})


def _sample(name: str) -> str:
    """A sample as it stands: one of another length or size would be a way to fill the disk."""
    from tiler.samples import names

    if name not in names():
        raise InputError(f"uri: no such sample; accepted: {', '.join(f'sample://{known}' for known in names())}")
    return f"sample://{name}"
