"""Compressed bytes."""

import pyarrow as pa


def zstd(content: bytes) -> bytes:
    """The bytes as one zstd frame."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())
