"""Entries of a ``model_list`` for the platforms that a simulator serves, and a Google account with a key of its own."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llm_cost_middleware.simulator.bedrock import signing

CREDENTIALS = {"aws_access_key_id": signing.ACCESS_KEY, "aws_secret_access_key": signing.SECRET_KEY}


def bedrock_entry(url, name, model, **params):
    """A deployment of Bedrock, in Virginia unless it says otherwise. ``url``: the simulator's."""
    given = {"aws_bedrock_runtime_endpoint": url, "aws_region_name": "us-east-1", **CREDENTIALS, **params}
    return {"model_name": name, "litellm_params": {"model": f"bedrock/{model}", **given}}


def vertex_entry(url, account, name, place, model, **params):
    """A deployment of Vertex, whose address says where it is."""
    address = f"{url}/v1/projects/acme/locations/{place}/publishers/anthropic/models/{model}"
    given = {"api_base": address, "vertex_project": "acme", "vertex_location": place,
             "vertex_credentials": json.dumps(account), **params}  # fmt: skip
    return {"model_name": name, "litellm_params": {"model": f"vertex_ai/{model}", **given}}


def azure_entry(url, name, deployment, **params):
    """A deployment of Azure."""
    given = {"api_base": url, "api_key": "k", "api_version": "2024-10-21", **params}
    return {"model_name": name, "litellm_params": {"model": f"azure/{deployment}", **given}}


class _Tokens(BaseHTTPRequestHandler):
    """Google's token endpoint: LiteLLM asks it with the key of a service account."""

    def do_POST(self):
        body = json.dumps({"access_token": "ya29.t", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def google_account():
    """A service account whose tokens come from this machine."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "type": "service_account", "client_email": "a@acme.iam.gserviceaccount.com", "project_id": "acme",
            "private_key": key.private_bytes(*form).decode(),
            "token_uri": f"http://127.0.0.1:{server.server_port}/token",
        }  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
