"""What each server of a run says of its model, in RUN/servers: compared whenever it is greeted, also by a later process."""

import logging
import re

from pydantic import ValidationError

from schemas.manifest import ServerClaims
from thresher import ids
from thresher.pool.run import Run
from thresher.samplers.http.claims import contradictions, together

log = logging.getLogger(__name__)

FOLDER = "servers"


def note_server(run: Run, source: str, now: ServerClaims) -> list[str]:
    """Note what a server says of its model; see thresher.samplers.http.claims.Note. A later version of its software, and a
    longer context, are noted beside the earlier ones."""
    name = claims_file(source, now.model)
    if run.store.write_first(name, now):
        return []
    try:
        before = ServerClaims.model_validate_json(run.store.read_bytes(name))
    except ValidationError:
        run.store.move_aside(name, "not what a server says of its model")
        run.store.write_model(name, now)
        return []
    if differing := contradictions(before, now):
        return [f"{text} ({run.store.path(name)})" if last else text for last, text in _with_last(differing)]
    both = together(before, now)
    if both != before:
        log.info("%s says something new of %s: %s", source, now.model, now.model_dump_json(exclude_none=True))
        run.store.write_model(name, both)
    return []


def claims_file(source: str, model: str) -> str:
    """The file of a server and a model that it serves."""
    return f"{FOLDER}/{re.sub(r'[^A-Za-z0-9.-]', '_', source)}-{ids.digest('server', source, model)[:8]}.json"


def _with_last(texts: list[str]) -> list[tuple[bool, str]]:
    return [(number == len(texts), text) for number, text in enumerate(texts, 1)]
