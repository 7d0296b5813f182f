"""The page at /: its files and their headers. It holds no data; its modules ask the service for them."""

from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import FastAPI, Request, Response

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MODULES = ("page.js", "address.js", "api.js", "combobox.js", "dom.js", "list.js", "map.js")
PARTS = (*MODULES, "page.css", "icon.svg")
FILES = {"/": "index.html", **{f"/page/{name}": name for name in PARTS}}  # path -> file
PATHS = tuple(FILES)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a browser asks with the ETag
}


@cache
def content(name: str) -> tuple[bytes, str]:
    """A file of the page, and its ETag."""
    data = files(__name__).joinpath(name).read_bytes()
    return data, f'"{sha256(data).hexdigest()[:32]}"'


def add_page(app: FastAPI) -> None:
    """Add the paths of the page."""
    for path in PATHS:
        app.add_api_route(path, _answer, methods=["GET", "HEAD"], include_in_schema=False)


async def _answer(request: Request) -> Response:
    name = FILES[request.url.path]
    data, tag = content(name)
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8")
