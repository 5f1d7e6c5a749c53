"""Passwords inside addresses, as in https://user:password@host, and keys in variables: refused where they would be written down.

An address is written to run.json, to cards and to schedules, and quoted in messages. A key belongs into the environment.
"""

import re

_PASSWORD = re.compile(
    r"(?:(?<=s3://)|(?<=s3a://)|(?<=gs://)|(?<=gcs://))[^\s/@:?#]*:[^\s@]+@"  # buckets have no ports
    r"|(?<=://)[^\s/@:?#]*:(?!\d+(?:[/?#]|$))(?:[^\s/?#]+@|[^\s@]+@)"
)
"""USER:PASSWORD@ after ://. An @ after a port belongs to the path. The password may hold a slash, as keys of AWS do, or an @."""
_ADDRESS = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://(?:{_PASSWORD.pattern})")

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:(?:API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION)_?)?(?:KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASS|PWD"
    r"|CREDENTIALS?|AUTH|AUTHORIZATION|COOKIE|JWT|PAT|SAS)(?:_(?:ID|VALUE|[0-9]+))?$|APIKEY|SECRET|PASSWORD",
    re.IGNORECASE,
)
"""Names of variables that hold keys, such as OPENAI_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY and MYSECRET."""
_SECRET_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|pn[ub]_\w{20,}|gsk_\w{20,}|nvapi-[\w-]{20,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)|-----BEGIN [A-Z ]*PRIVATE KEY-----|(?i:\bbearer\s+\S{8,})"
)
"""Keys by the shapes that services give them: Hugging Face, OpenAI, GitHub, GitLab, Slack, AWS, Google, Prefect, Groq, NVIDIA."""
_IS_PATH = re.compile(r"(?i:_(?:FILE|PATH|DIR)$)")


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable holds a key, by its name or by the shape of its value. One without a value holds none, nor one
    whose value is true, false or a number up to four digits."""
    if not value or re.fullmatch(r"(?i:true|false|yes|no|on|off|\d{1,4})", value):
        return False
    return (
        bool(_SECRET_NAME.search(name) and not _IS_PATH.search(name)) or bool(_SECRET_VALUE.search(value)) or has_password(value)
    )


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
