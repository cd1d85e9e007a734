"""What the bytes of a file that is no UTF-8 text look like, and what to do about it."""

from __future__ import annotations

_UNPACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_DOCUMENTS = {b"PK\x03\x04": "a ZIP archive, or a .docx, .odt or .epub", b"%PDF": "a PDF", b"{\\rtf": "an RTF document"}
_BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_SAMPLE = 4096
_MOST_CONTROLS = 0.01
"""share of control characters above which bytes are no text"""


def looks_like(content: bytes) -> str:
    """What the content looks like, and the command or step that makes a UTF-8 text of it."""
    for magic, (name, program) in _UNPACKED.items():
        if content.startswith(magic):
            return f"it looks compressed with {name}: unpack it with '{program}' first"
    for magic, name in _DOCUMENTS.items():
        if content.startswith(magic):
            return f"it looks like {name}: save its text as UTF-8 first"
    sample = content[: _SAMPLE - _SAMPLE % 4]
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    wide = marked or _without_mark(sample)
    return _convert(wide) if wide is not None else _with_single_bytes(content, sample)


def _with_single_bytes(content: bytes, sample: bytes) -> str:
    reason = _not_utf8(content)
    if reason == "unexpected end of data":
        return "it ends in the middle of a character: is it cut off?"
    controls = sum(byte < 0x20 and byte not in b"\t\n\v\f\r" for byte in sample)
    if controls > _MOST_CONTROLS * len(sample):
        return "it looks like binary data, not a text"
    if reason is None:
        return "if it is a text, remove them with 'tr -d \"\\000\"'"
    text = content.decode(errors="replace")
    damaged = text.count("\ufffd")
    if damaged <= sum(not each.isascii() for each in text) - damaged:
        return "most of it is UTF-8, so it is damaged there: correct it, or take a good copy"
    windows = any(0x80 <= byte < 0xA0 for byte in sample)
    return _convert("WINDOWS-1252", "Windows-1252") if windows else _convert("ISO-8859-1", "Latin-1")


def _convert(code: str, name: str | None = None) -> str:
    return f"it looks like {name or code}: convert it with 'iconv -f {code} -t UTF-8'"


def _without_mark(sample: bytes) -> str | None:
    """The encoding of text that has its NUL bytes at the places where UTF-16 or UTF-32 has them for common letters."""
    if len(sample) < 2:
        return None
    share = [sample[place::4].count(0) * 4 / max(1, len(sample) - place) for place in range(4)]
    often, never = 0.6, 0.2
    for encoding, zero, others in (
        ("UTF-32LE", (1, 2, 3), (0,)),
        ("UTF-32BE", (0, 1, 2), (3,)),
        ("UTF-16LE", (1, 3), (0, 2)),
        ("UTF-16BE", (0, 2), (1, 3)),
    ):
        if all(share[place] > often for place in zero) and all(share[place] < never for place in others):
            return encoding
    return None


def _not_utf8(content: bytes) -> str | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.reason
    return None
