"""The single page of the frontend, answered for every address that is not the server's own."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

_NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Delineate: frontend not built</title>
<h1>The frontend is not built</h1>
<p>The server is running, but the pages it should show are missing.
Build them with <code>make up</code>, or with <code>npm ci &amp;&amp; npm run build</code> in
<code>frontend/</code>, and start again.</p>
</html>
"""


@require_safe
@never_cache
@ensure_csrf_cookie
def page(_request: HttpRequest) -> HttpResponse:
    """``index.html`` of the built frontend, read anew so that a new build shows at once."""
    try:
        content = (settings.ENVIRONMENT.frontend_dist / "index.html").read_bytes()
    except FileNotFoundError:
        return HttpResponse(_NOT_BUILT, status=503)
    return HttpResponse(content)
