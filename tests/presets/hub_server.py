"""A small Hugging Face Hub on this computer: what `huggingface_hub` asks of it, and no more."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading

import huggingface_hub

USER = "user"
TOKEN = "hf_of_the_test"


class Hub:
    """Repositories by name: a list of commits, each a dictionary of the files' bytes."""

    def __init__(self):
        self.repositories = {}
        self.requests = []  # Method and path of each.
        self.url = ""

    def commit(self, repository, **files):
        """Adds a commit that changes some files; names have an underscore for the dot."""
        changed = {name.replace("_", "."): content for name, content in files.items()}
        commits = self.repositories.setdefault(repository, [])
        commits.append({**(commits[-1] if commits else {}), **changed})

    def files(self, repository):
        """The files of the last commit."""
        return self.repositories[repository][-1]

    def name_of(self, repository, number):
        """The hash of a commit."""
        return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()

    def find(self, repository, revision):
        """The hash and the files of a commit."""
        commits = self.repositories[repository]
        names = [self.name_of(repository, number) for number in range(len(commits))]
        number = len(commits) - 1 if revision == "main" else names.index(revision)
        return names[number], commits[number]


def _handler(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, status, content=b"", **headers):
            self.send_response(status)
            for name, value in {"content_length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def answer_json(self, value):
            self.answer(200, json.dumps(value).encode(), content_type="application/json")

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            hub.requests.append((self.command, self.path))
            match = re.fullmatch(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<at>[^/]+)/(.+)", self.path)
            if not match:
                self.answer(404)
            elif match["name"] not in hub.repositories:
                self.answer(404, x_error_code="RepoNotFound")
            else:
                commit, files = hub.find(match["name"], match["at"])
                if match[3] not in files:
                    self.answer(404, x_error_code="EntryNotFound", x_repo_commit=commit)
                else:
                    content = files[match[3]]
                    tag = f'"{hashlib.sha1(content).hexdigest()}"'
                    self.answer(200, content, etag=tag, x_repo_commit=commit)

        def do_POST(self):
            hub.requests.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if self.path == "/api/validate-yaml":
                # The real one checks names of licences, too.
                huggingface_hub.ModelCard(json.loads(body)["content"], ignore_metadata_errors=False)
                self.answer_json({"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, x_error_message="Invalid username or password.")
            elif self.path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or USER}/{wanted['name']}"
                hub.repositories.setdefault(name, [{}])
                self.answer_json({"url": f"{hub.url}/{name}"})
            elif match := re.fullmatch("/api/models/(.+)/preupload/main", self.path):
                paths = [file["path"] for file in json.loads(body)["files"]]
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                self.answer_json({"files": [{"path": path, **mode} for path in paths]})
            elif match := re.fullmatch("/api/models/(.+)/commit/main", self.path):
                lines = [json.loads(line) for line in body.splitlines()]
                files = [line["value"] for line in lines if line["key"] == "file"]
                commits = hub.repositories[match[1]]
                new = {file["path"]: base64.b64decode(file["content"]) for file in files}
                commits.append({**commits[-1], **new})
                commit = hub.name_of(match[1], len(commits) - 1)
                url = f"{hub.url}/{match[1]}/commit/{commit}"
                self.answer_json({"success": True, "commitOid": commit, "commitUrl": url})
            else:
                self.answer(404)

    return Handler


@contextlib.contextmanager
def running():
    """Yields a hub that answers until the end of the context."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
