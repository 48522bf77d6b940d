"""What the browser may load and keep."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

# 'wasm-unsafe-eval': the viewer's decoders are WebAssembly. 'unsafe-inline' styles: the component
# library sets custom properties on elements. Nothing is ever loaded from elsewhere.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
        "object-src 'none'",
    ]
)


def is_named_by_its_content(_path: str, url: str) -> bool:
    """Whether what lies at ``url`` never changes: the frontend's build names assets by hash."""
    return url.startswith("/assets/")


class ContentSecurityPolicy:
    """Adds the policy to every answer; Django's own SecurityMiddleware adds the other headers."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response
