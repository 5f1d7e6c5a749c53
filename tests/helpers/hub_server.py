"""A Hub of Hugging Face on 127.0.0.1, for the real clients: repositories, commits, tags, LFS and Xet over HTTP.

    with Hub(folder) as hub: os.environ["HF_ENDPOINT"] = hub.url     before huggingface_hub is imported

A repository is a list of commits, each a tree of files; content lies in `folder` under its hash. Commits check parentCommit and
move the branch under one lock. `hub.faults` breaks requests (see Fault), `hub.log` remembers them. Not imitated: rate limits but
for injected ones, the time limit of commits, the viewer, merges of pull requests, chunks shared between repositories.
"""

import base64
import contextlib
import fnmatch
import hashlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import lz4.frame  # type: ignore[import-untyped]  # it publishes no types
import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

ATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in ("parquet", "arrow", "bin", "npy", "zst"))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
ORGANISATION = "acme"

Term = tuple[str, int, int, int]
"""A part of a file: its xorb, its bytes, its first chunk and the end of its chunks."""
Chunk = tuple[int, int, int, int]
"""Place in the xorb, bytes with the header, bytes unpacked, scheme."""


class RefusedError(Exception):
    """An answer that is an error, as the Hub words it."""

    def __init__(self, status: Any, message: Any, code: Any = None, **body: Any) -> None:
        self.status, self.message, self.code, self.body = status, message, code, {"error": message, **body}


@dataclass
class Fault:
    """Break the next `times` requests whose path has `path` in it: answer `status`, or drop the connection (None). `after`:
    first do what was asked, then lose the answer."""

    path: str
    method: str | None = None
    status: int | None = None
    times: int = 1
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class File:
    oid: str
    size: int
    sha256: str | None = None


@dataclass
class Commit:
    oid: str
    parent: str | None
    tree: dict[str, File]
    title: str
    author: str
    date: float


class Repository:
    def __init__(self, name: str, private: bool) -> None:
        self.name, self.private, self.lock = name, private, threading.Lock()
        self.commits: dict[str, Commit] = {}
        self.refs: dict[str, str] = {}
        self.requests: list[str] = []
        self.gated: Any = False

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag, reference or hash names."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.commits[self.refs[name]]
        found = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        if len(found) != 1:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[found[0]]

    def add(self, reference: str, parent: str | None, tree: dict[str, File], title: str, author: str) -> str:
        written = json.dumps([sorted((path, one.oid) for path, one in tree.items()), parent, title, time.time_ns()])
        oid = hashlib.sha1(written.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, tree, title, author, time.time())
        self.refs[reference] = oid
        return oid


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


# -- Xet: formats of shards and xorbs (xet-core) ---------------------------------------------------------------------------


def hex_of(raw: bytes) -> str:
    """A hash is four little-endian words."""
    return b"".join(raw[at : at + 8][::-1] for at in range(0, 32, 8)).hex()


def files_in(shard: bytes) -> list[tuple[str, str | None, list[Term]]]:
    """(hash, sha256 or None, [(xorb, bytes, first chunk, end)]) of each file that a shard describes."""
    at = 48
    found: list[tuple[str, str | None, list[Term]]] = []
    while shard[at : at + 32] != b"\xff" * 32:
        name, (flags, count) = hex_of(shard[at : at + 32]), struct.unpack_from("<II", shard, at + 32)
        records = [shard[at + 48 * number : at + 48 * (number + 1)] for number in range(1, count + 1)]
        terms = [(hex_of(record[:32]), *struct.unpack_from("<III", record, 36)) for record in records]
        at += 48 * (1 + count * (1 + (flags >> 31 & 1)))
        digest = hex_of(shard[at : at + 32]) if flags >> 30 & 1 else None
        at += 48 * (flags >> 30 & 1)
        found.append((name, digest, terms))
    return found


def chunks_in(xorb: bytes) -> list[Chunk]:
    """(place, bytes with header, bytes unpacked, scheme) of each chunk."""
    at = 0
    found: list[Chunk] = []
    while at + 8 <= len(xorb) and xorb[at] == 0:
        packed, unpacked = (int.from_bytes(xorb[at + start : at + start + 3], "little") for start in (1, 5))
        found.append((at, 8 + packed, unpacked, xorb[at + 4]))
        at += 8 + packed
    return found


def unpacked(xorb: bytes, chunk: Chunk) -> bytes:
    at, size, length, scheme = chunk
    data = xorb[at + 8 : at + size]
    if scheme:
        data = lz4.frame.decompress(data)
    if scheme == 2:  # four planes of bytes
        whole, planes, start = bytearray(length), [length // 4 + (number < length % 4) for number in range(4)], 0
        for number, many in enumerate(planes):
            whole[number::4] = data[start : start + many]
            start += many
        data = bytes(whole)
    return data


class Hub:
    """The server; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.log: list[dict[str, Any]] = []
        self.xet_files: dict[str, list[Term]] = {}
        self.xet_of: dict[str, str] = {}
        self.lock = threading.Lock()

    # -- content -------------------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        work = path.with_suffix(f".{threading.get_ident()}.tmp")
        work.write_bytes(data)
        work.replace(path)

    def content(self, file: File) -> bytes:
        if file.sha256 is not None and not self.has(file.sha256):
            raise RefusedError(404, "no such content")
        return (self.folder / (file.sha256 or file.oid)).read_bytes()

    def has(self, sha256: str) -> bool:
        """Whether content is there; content sent by Xet is put together first."""
        if (self.folder / sha256).exists():
            return True
        if sha256 not in self.xet_of:
            return False
        parts = []
        for xorb, _, start, end in self.xet_files[self.xet_of[sha256]]:
            held = (self.folder / f"xorb-{xorb}").read_bytes()
            parts += [unpacked(held, chunk) for chunk in chunks_in(held)[start:end]]
        data = b"".join(parts)
        assert hashlib.sha256(data).hexdigest() == sha256
        self.put(sha256, data)
        return True

    # -- who and what --------------------------------------------------------------------------------------------------

    def user(self, request: Request, *, needed: bool = True) -> str | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given and given not in TOKENS:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        if needed and not given:
            raise RefusedError(401, "Invalid username or password.")
        return TOKENS.get(given)

    def repository(self, request: Request, name: str, *, write: bool = False) -> Repository:
        user = self.user(request, needed=write)
        found = self.repositories.get(name)
        if found is None or (found.private and user is None):
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and name.split("/", maxsplit=1)[0] not in (user, ORGANISATION):
            raise RefusedError(403, "Forbidden: you are not allowed to write to this repository")
        return found

    def describe(self, repository: Repository, commit: Commit, *, blobs: bool = False) -> Any:
        card: dict[str, Any] = {}
        if "README.md" in commit.tree:
            text = self.content(commit.tree["README.md"]).decode(errors="replace")
            matter = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
            with contextlib.suppress(yaml.YAMLError, ValueError):
                keys = yaml.safe_load(matter.group(1)) if matter else None
                card = keys if isinstance(keys, dict) else {}
        siblings = []
        for path, file in sorted(commit.tree.items()):
            more = {"size": file.size, "blobId": file.oid} if blobs else {}
            siblings.append({"rfilename": path, **more})
        return {
            "_id": hashlib.md5(repository.name.encode()).hexdigest()[:24], "id": repository.name, "sha": commit.oid,
            "author": repository.name.split("/")[0], "lastModified": moment(commit.date), "private": repository.private,
            "gated": repository.gated, "disabled": False, "downloads": 0, "likes": 0, "tags": card.get("tags", []),
            "cardData": json.loads(json.dumps(card, default=str)), "siblings": siblings,
        }  # fmt: skip

    def item(self, path: str, file: File) -> Any:
        found: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            found["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
            if file.sha256 in self.xet_of:
                found["xetHash"] = self.xet_of[file.sha256]
        return found

    # -- the API -------------------------------------------------------------------------------------------------------

    async def answer(self, request: Request, path: str) -> Any:
        method = request.method
        if path == "/api/whoami-v2":
            user = self.user(request)
            role = {"accessToken": {"displayName": "test", "role": "write"}}
            return {"type": "user", "name": user, "orgs": [{"name": ORGANISATION, "roleInOrg": "admin"}], "auth": role}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self.create(request, await request.json())
        if path == "/api/repos/delete":
            asked = await request.json()
            name = f"{asked.get('organization') or self.user(request)}/{asked['name']}"
            self.repository(request, name, write=True)
            del self.repositories[name]
            return {}
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(.*))?", path):
            return await self.dataset(request, method, found[1], found[2] or "revision/main")
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(request, found[1], unquote(found[2]), unquote(found[3]))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(self.repository(request, found[1], write=True), await request.json())
        if found := re.fullmatch(r"/_lfs/([0-9a-f]{64})(/verify)?", path):
            return await self.lfs(request, found[1], verify=bool(found[2]))
        return await self.xet(request, method, path)

    def create(self, request: Request, asked: Any) -> Any:
        user = self.user(request)
        name = f"{asked.get('organization') or user}/{asked['name']}"
        if name.split("/", maxsplit=1)[0] not in (user, ORGANISATION):
            raise RefusedError(403, "You don't have the rights to create a dataset under this namespace.")
        url = f"{self.url}/datasets/{name}"
        with self.lock:
            if name in self.repositories:
                raise RefusedError(409, "You already created this dataset repo", url=url)
            made = Repository(name, private=asked.get("visibility") == "private")
            data = ATTRIBUTES.encode()
            self.put(git_oid(data), data)
            made.add("refs/heads/main", None, {".gitattributes": File(git_oid(data), len(data))}, "initial commit", str(user))
            self.repositories[name] = made
        return {"url": url, "name": name}

    async def dataset(self, request: Request, method: Any, name: Any, rest: Any) -> Any:
        what, _, more = rest.partition("/")
        writes = method in ("POST", "PUT", "DELETE") and what != "paths-info"
        repository = self.repository(request, name, write=writes or what.startswith("xet-write"))
        revision = unquote(more.split("/")[0]) if more else "main"
        if what == "revision":
            blobs = request.query_params.get("blobs") == "true"
            return self.describe(repository, repository.at(revision), blobs=blobs)
        if what == "preupload":
            return self.preupload(repository.at(revision), await request.json())
        if what == "commit":
            return self.commit(request, repository, revision, await request.body())
        if what == "tree":
            return self.tree(request, repository.at(revision), unquote(more.partition("/")[2]))
        if what == "paths-info":
            tree = repository.at(revision).tree
            return [self.item(path, tree[path]) for path in parse_qs((await request.body()).decode())["paths"] if path in tree]
        if what == "refs":
            kinds = {"branches": "refs/heads/", "tags": "refs/tags/", "converts": "refs/convert/", "pullRequests": "refs/pr/"}
            refs = repository.refs.items()
            return {
                kind: [{"name": ref[len(at) :], "ref": ref, "targetCommit": oid} for ref, oid in refs if ref.startswith(at)]
                for kind, at in kinds.items()
            }
        if what == "commits":
            history: list[dict[str, Any]] = []
            oid: str | None = repository.at(revision).oid
            while oid:
                one = repository.commits[oid]
                who = [{"user": one.author}]
                history.append({"id": oid, "title": one.title, "message": "", "date": moment(one.date), "authors": who})
                oid = one.parent
            return history
        if what == "settings":
            repository.gated = (await request.json()).get("gated", repository.gated)
            return {}
        if what in ("branch", "tag"):
            return self.reference(repository, method, what, unquote(more), json.loads(await request.body() or b"{}"))
        if re.fullmatch(r"xet-(read|write)-token", what):
            if method != "GET":
                raise RefusedError(405, "wanted GET")
            expires = int(time.time()) + 3600
            told = {"casUrl": self.url, "exp": expires, "accessToken": "xet"}
            headers = {"X-Xet-Cas-Url": self.url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
            return JSONResponse(told, headers=headers)
        raise RefusedError(404, f"no such route: {rest}")

    def preupload(self, commit: Any, asked: Any) -> Any:
        globs = [line.split()[0] for line in self.content(commit.tree[".gitattributes"]).decode().splitlines()]
        found = []
        for file in asked["files"]:
            large = any(fnmatch.fnmatch(file["path"].rsplit("/", 1)[-1], glob) for glob in globs) or file["size"] > 10_000_000
            told = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in commit.tree:
                told["oid"] = commit.tree[file["path"]].sha256 or commit.tree[file["path"]].oid
            found.append(told)
        return {"files": found, "commitOid": commit.oid}

    def commit(self, request: Request, repository: Any, revision: Any, body: Any) -> Any:
        lines = [json.loads(line) for line in body.split(b"\n") if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        for line in lines:
            if line["key"] == "lfsFile" and not self.has(line["value"]["oid"]):
                raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {line['value']['path']}")
        asks = request.query_params.get("create_pr") == "1"
        with repository.lock:
            head, parent = repository.at(revision), header.get("parentCommit")
            if parent and not head.oid.startswith(parent) and not asks:
                raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(head.tree)
            for line in lines:
                self.change(tree, line["key"], line["value"])
            reference = f"refs/heads/{revision}"
            if asks:
                repository.requests.append(header["summary"])
                reference = f"refs/pr/{len(repository.requests)}"
            oid = repository.add(reference, head.oid, tree, header["summary"], str(self.user(request)))
        url = f"{self.url}/datasets/{repository.name}"
        request_url = {"pullRequestUrl": f"{url}/discussions/{len(repository.requests)}"} if asks else {}
        return {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": "", **request_url}

    def change(self, tree: Any, key: Any, value: Any) -> None:
        """Apply one line of a commit to a tree."""
        path = value.get("path", "")
        if key == "file":
            data = base64.b64decode(value["content"])
            self.put(git_oid(data), data)
            tree[path] = File(git_oid(data), len(data))
        elif key == "lfsFile":
            size = value.get("size") or (self.folder / value["oid"]).stat().st_size
            tree[path] = File(git_oid(POINTER.format(value["oid"], size).encode()), size, value["oid"])
        elif key in ("deletedFile", "deletedFolder"):
            gone = [
                entry for entry in tree if entry == path or (key == "deletedFolder" and entry.startswith(f"{path.rstrip('/')}/"))
            ]
            if not gone:
                raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
            for item in gone:
                del tree[item]

    def tree(self, request: Request, commit: Commit, folder: str) -> Any:
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        start = f"{folder}/" if folder else ""
        items: list[dict[str, Any]] = []
        folders: set[str] = set()
        for path, file in sorted(commit.tree.items()):
            if not path.startswith(start):
                continue
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
                name = start + "/".join(parts[:depth])
                if name not in folders:
                    folders.add(name)
                    oid = hashlib.sha1(f"{commit.oid}{name}".encode()).hexdigest()
                    items.append({"type": "directory", "oid": oid, "size": 0, "path": name})
            if recursive or len(parts) == 1:
                items.append(self.item(path, file))
        if folder and not items:
            raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
        first = int(request.query_params.get("cursor", 0))
        headers = {}
        if len(items) > first + 1000:
            asked = "&".join(f"{key}={value}" for key, value in request.query_params.items() if key != "cursor")
            headers["Link"] = f'<{self.url}{request.url.path}?{asked}&cursor={first + 1000}>; rel="next"'
        return JSONResponse(items[first : first + 1000], headers=headers)

    def reference(self, repository: Any, method: Any, kind: Any, name: Any, asked: Any) -> Any:
        with repository.lock:
            if kind == "tag" and method == "POST":
                reference, start = f"refs/tags/{asked['tag']}", name
            else:
                reference, start = f"refs/{'heads' if kind == 'branch' else 'tags'}/{name}", asked.get("startingPoint") or "main"
            if method == "DELETE":
                if repository.refs.pop(reference, None) is None:
                    raise RefusedError(404, f"{kind} does not exist", "RevisionNotFound")
                return {}
            if reference in repository.refs:
                raise RefusedError(409, f"Reference already exists: {reference}")
            repository.refs[reference] = repository.at(start).oid
        return {}

    def resolve(self, request: Request, name: Any, revision: Any, path: str) -> Any:
        commit = self.repository(request, name).at(revision)
        if path not in commit.tree:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        file = commit.tree[path]
        tag = f'"{file.sha256 or file.oid}"'
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "ETag": tag, "X-Linked-Etag": tag}
        headers["X-Linked-Size"] = str(file.size)
        if file.sha256 in self.xet_of:
            headers["X-Xet-Hash"] = self.xet_of[file.sha256]
            headers["Link"] = f'<{self.url}/api/datasets/{name}/xet-read-token/{commit.oid}>; rel="xet-auth"'
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(file.size)})
        return ranged(request, self.content(file), headers)

    # -- LFS and Xet ---------------------------------------------------------------------------------------------------

    def batch(self, _repository: Any, asked: Any) -> Any:
        found = []
        for one in asked["objects"]:
            told = {"oid": one["oid"], "size": one["size"]}
            if not self.has(one["oid"]):
                url = f"{self.url}/_lfs/{one['oid']}"
                told["actions"] = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
            found.append(told)
        return JSONResponse({"transfer": "basic", "objects": found}, media_type="application/vnd.git-lfs+json")

    async def lfs(self, request: Request, sha256: Any, *, verify: Any) -> Any:
        if verify:
            if not self.has(sha256):
                raise RefusedError(404, "not found")
            return {}
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RefusedError(422, "sha256 mismatch")
        self.put(sha256, data)
        return Response()

    async def xet(self, request: Request, method: Any, path: str) -> Any:
        if found := re.fullmatch(r"/v1/xorbs/[^/]+/([0-9a-f]+)", path):
            there = (self.folder / f"xorb-{found[1]}").exists()
            if method == "POST":
                self.put(f"xorb-{found[1]}", await request.body())
                return {"was_inserted": not there}
            return Response(status_code=200 if there else 404)
        if found := re.fullmatch(r"/_xorbs/([0-9a-f]+)", path):
            return ranged(request, (self.folder / f"xorb-{found[1]}").read_bytes(), {})
        if path == "/v1/shards" and method == "POST":
            for name, sha256, terms in files_in(await request.body()):
                if not all((self.folder / f"xorb-{term[0]}").exists() for term in terms):
                    raise RefusedError(400, "a xorb is missing")
                self.xet_files[name] = terms
                if sha256:
                    self.xet_of[sha256] = name
            return {"result": 1}
        if (found := re.fullmatch(r"/v2/reconstructions/([0-9a-f]+)", path)) and found[1] in self.xet_files:
            return self.reconstruction(request, self.xet_files[found[1]])
        raise RefusedError(404, f"no such route: {method} {path}")

    def reconstruction(self, request: Request, terms: Any) -> Any:
        asked = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        low, high = (int(asked[1]), int(asked[2] or 2**62)) if asked else (0, 2**62)
        if terms and low >= sum(term[1] for term in terms):
            raise RefusedError(416, "no such range")
        at, first = 0, 0
        told: list[dict[str, Any]] = []
        xorbs: dict[str, list[dict[str, Any]]] = {}
        for xorb, _, start, end in terms:
            table = chunks_in((self.folder / f"xorb-{xorb}").read_bytes())
            kept: list[int] = []
            for number in range(start, end):
                if at + table[number][2] > low and at <= high:
                    if not kept and not told:
                        first = low - at
                    kept.append(number)
                at += table[number][2]
            if kept:
                chunks = {"start": kept[0], "end": kept[-1] + 1}
                last = table[kept[-1]]
                length = sum(table[number][2] for number in kept)
                told.append({"hash": xorb, "unpacked_length": length, "range": chunks})
                span = {"start": table[kept[0]][0], "end": last[0] + last[1] - 1}
                xorbs.setdefault(xorb, []).append(
                    {"url": f"{self.url}/_xorbs/{xorb}", "ranges": [{"chunks": chunks, "bytes": span}]}
                )
        return {"offset_into_first_range": max(0, first), "terms": told, "xorbs": xorbs}

    # -- the server ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return None
        path = scope["raw_path"].decode().split("?")[0]  # one revision is one segment, its slashes encoded
        request = Request(scope, receive)
        size = int(request.headers.get("content-length", 0))
        entry = {"method": request.method, "path": path, "bytes": size, "range": request.headers.get("range")}
        self.log.append(entry)
        fault = self.fault(request.method, path)
        if fault is not None and not fault.after:
            return await self.broken(fault, scope, receive, send)
        try:
            found = await self.answer(request, path)
            response = found if isinstance(found, Response) else JSONResponse(found)
        except RefusedError as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            response = JSONResponse(error.body, error.status, headers=headers)
        entry["status"] = response.status_code
        if fault is not None:
            return await self.broken(fault, scope, receive, send)
        await response(scope, receive, send)
        return None

    def fault(self, method: Any, path: str) -> Any:
        for fault in self.faults:
            if fault.times > 0 and fault.path in path and fault.method in (None, method):
                fault.times -= 1
                return fault
        return None

    async def broken(self, fault: Any, scope: Any, receive: Any, send: Any) -> None:
        if fault.status is None:
            raise ConnectionResetError("injected")
        await JSONResponse({"error": "injected"}, fault.status, headers=fault.headers)(scope, receive, send)

    def __enter__(self) -> "Hub":
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = uvicorn.Config(self, log_level="critical", lifespan="off", h11_max_incomplete_event_size=1 << 20)
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """The content, or the range of it that was asked for."""
    asked = re.match(r"bytes=(\d*)-(\d*)$", request.headers.get("range", ""))
    if not asked:
        return Response(data, headers=headers, media_type="application/octet-stream")
    start = int(asked[1]) if asked[1] else len(data) - int(asked[2])
    end = min(int(asked[2]) + 1 if asked[1] and asked[2] else len(data), len(data))
    if start >= len(data):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    return Response(data[start:end], 206, headers=headers, media_type="application/octet-stream")
