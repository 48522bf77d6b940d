"""dicomweb-client, as others use it, against the server without a network."""

from __future__ import annotations

import io
from typing import Any

import requests
import urllib3
from dicomweb_client import DICOMwebClient
from django.test import Client
from requests.adapters import BaseAdapter, HTTPAdapter

from delineate.projects.models import Project


def dicomweb_client(browser: Client, project: Project) -> DICOMwebClient:
    """A client of a project's DICOMweb, signed in as the browser is."""
    session = requests.Session()
    session.mount("http://testserver", _Within(browser))
    return DICOMwebClient(f"http://testserver/dicomweb/{project.id}", session=session)


class _Within(BaseAdapter):
    """Sends requests to Django's test client in place of a socket."""

    def __init__(self, browser: Client) -> None:
        super().__init__()
        self._browser = browser

    def send(
        self, request: requests.PreparedRequest, *_args: Any, **_more: Any
    ) -> requests.Response:
        headers: Any = {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-type", "content-length", "transfer-encoding")
        }
        answer = self._browser.generic(
            str(request.method),
            request.path_url,
            _whole(request.body),
            content_type=str(request.headers.get("Content-Type", "")),
            **headers,
        )
        return HTTPAdapter().build_response(
            request,
            urllib3.HTTPResponse(
                body=io.BytesIO(answer.getvalue()),
                headers=dict(answer.items()),
                status=answer.status_code,
                preload_content=False,
            ),
        )

    def close(self) -> None:
        """Nothing is open."""


def _whole(body: Any) -> bytes:
    """A body at once: nothing, text, bytes, or a generator of these."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return body if isinstance(body, bytes) else b"".join(body)
