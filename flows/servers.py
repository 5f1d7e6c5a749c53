"""The user's Prefect server: its address, and whether it can be used."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import prefect
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from thresher.errors import ScheduleError

OLDEST = (3, 7)
"""The oldest version of a server that was tested."""
START = "start one: `prefect server start`, and set its address: export PREFECT_API_URL=http://127.0.0.1:4200/api"


@contextmanager
def server(how: str = START) -> Iterator[SyncPrefectClient]:
    """Open a client of the user's server. Raises ScheduleError if there is none or it is too old, with `how` as the advice."""
    if not (url := PREFECT_API_URL.value()):
        raise ScheduleError(f"no Prefect server: PREFECT_API_URL is not set, and schedules need one; {how}")
    try:
        opened = get_client(sync_client=True)
    except (ImportError, ValueError, httpx.InvalidURL) as wrong:
        raise ScheduleError(
            f"no Prefect server at {url} (PREFECT_API_URL): {wrong}; the address, or a proxy in the environment, is wrong"
        ) from wrong
    with opened as client:
        if error := client.api_healthcheck():
            raise ScheduleError(f"no Prefect server at {url} (PREFECT_API_URL): {error}; {how}")
        if client.server_type != ServerType.CLOUD and (version := _version(client)) < OLDEST:
            raise ScheduleError(
                f"the Prefect server at {url} (PREFECT_API_URL) is of version {'.'.join(map(str, version))}, wanted is "
                f"{'.'.join(map(str, OLDEST))} or later; upgrade it: pip install 'prefect=={prefect.__version__}' where it runs"
            )
        try:
            yield client
        except httpx.HTTPError as error:
            raise ScheduleError(f"the Prefect server at {url} refused a request: {error}; see the server's log") from error


def _version(client: SyncPrefectClient) -> tuple[int, int]:
    """The major and minor version of the server; (0, 0) if it cannot be read."""
    try:
        major, minor = str(client.api_version()).split(".")[:2]
        return int(major), int(minor)
    except (ValueError, httpx.HTTPError):
        return 0, 0
