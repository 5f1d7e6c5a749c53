"""User names and passwords inside addresses, as in https://user:password@host: they are refused, and hidden in messages.

An address is written to run.json, to cards and to schedules, and quoted in messages. A key belongs into the environment.
"""

import re

_PASSWORD = re.compile(
    r"(?:(?<=s3://)|(?<=s3a://)|(?<=gs://)|(?<=gcs://))[^\s/@:?#]*:[^\s@]+@"  # buckets have no ports
    r"|(?<=://)[^\s/@:?#]*:(?!\d+(?:[/?#]|$))(?:[^\s/?#]+@|[^\s@]+@)"
)
"""USER:PASSWORD@ after ://. An @ after a port belongs to the path. The password may hold a slash, as keys of AWS do, or an @."""
_ADDRESS = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://(?:{_PASSWORD.pattern})")


def has_password(address: str) -> bool:
    """Return whether a text is an address with a user name and a password."""
    return bool(_ADDRESS.match(address.strip()))


def hidden(text: str) -> str:
    """Return a text without the user names and passwords of the addresses in it."""
    return _PASSWORD.sub("[password]@", text) if "://" in text else text


def advice(address: str) -> str:
    """Say what to do about an address with a password."""
    return (
        f"{hidden(address.strip())} holds a user name and a password, which would be written to disk; leave them out: keys are "
        "read from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, engine.api_key_env, HF_TOKEN) or from the "
        "client's own files"
    )
