"""The frontend's page and its assets."""

from __future__ import annotations

import httpx
import pytest
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.test import Client


@pytest.fixture
def dist(tmp_path, settings):
    """A built frontend."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>built</title>")
    (tmp_path / "assets" / "index-4f3a.js").write_text("export {}")
    (tmp_path / "favicon.svg").write_text("<svg/>")
    use(tmp_path, settings)
    return tmp_path


def use(folder, settings):
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(update={"frontend_dist": folder})
    settings.WHITENOISE_ROOT = str(folder) if folder.is_dir() else None


@pytest.mark.parametrize("path", ["/", "/projects", "/projects/1f/tasks/2e?slice=3", "/sign-in"])
def test_every_address_of_the_frontend_is_its_page(dist, path):
    response = Client().get(path)
    assert response.status_code == 200
    assert b"built" in response.content
    assert "no-cache" in response["Cache-Control"]
    assert "script-src 'self' 'wasm-unsafe-eval'" in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "csrftoken" in response.cookies


def test_a_new_build_shows_without_a_restart(dist):
    client = Client()
    client.get("/")
    (dist / "index.html").write_text("<title>newer</title>")
    assert b"newer" in client.get("/").content


def test_the_page_is_only_read(dist):
    assert Client().post("/").status_code == 405


async def test_assets_named_by_their_content_are_kept_by_the_browser(dist):
    # The way the web process answers, not the test client's.
    transport = httpx.ASGITransport(get_asgi_application())  # type: ignore[arg-type]  # narrower
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as browser:
        asset = await browser.get("/assets/index-4f3a.js")
        icon = await browser.get("/favicon.svg")
    assert asset.text == "export {}"
    assert icon.text == "<svg/>"
    assert "immutable" in asset.headers["Cache-Control"]
    assert "immutable" not in icon.headers["Cache-Control"]
    assert asset.headers["Content-Type"].startswith("text/javascript")


def test_without_a_build_the_page_says_so(tmp_path, settings):
    use(tmp_path / "missing", settings)
    response = Client().get("/")
    assert response.status_code == 503
    assert b"The frontend is not built" in response.content
