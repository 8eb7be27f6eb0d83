"""The page for people: what is served where, and under which headers. tests/system/test_page.py looks at it."""

from __future__ import annotations

import re

import pytest

from lochness_controller.api.page import is_known, load_assets

FILES = sorted(load_assets())


def test_the_root_is_the_page(api):
    answer = api.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Loch Ness</title>" in answer.text


def test_everything_that_the_page_names_is_served_by_the_controller_itself(api):
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', api.get("/").text))
    for file in named - {"schema/openapi.json", "metrics"}:
        assert file.startswith("page/"), file
    for name in FILES:
        named |= {f"page/{file}" for file in re.findall(r'from "\./([^"]+)"', api.get(f"/page/{name}").text)}
    assert {f"page/{name}" for name in FILES} - {"page/index.html"} <= named, "a file that nothing uses"
    for path in named:
        assert api.get(f"/{path}").status_code == 200, path


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_nothing_but_the_pages_own_files_may_run_or_be_asked(api, path):
    headers = api.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_scripts_styles_or_handlers_in_markup_or_makes_markup_of_text(name):
    text = load_assets()[name].body.decode()
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "javascript:"):
        assert forbidden not in text, forbidden
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_a_browser_that_has_a_file_is_not_sent_it_again(api):
    for path in ("/", "/page/main.js"):
        first = api.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = api.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == first.headers["etag"]
        assert api.get(path, headers={"If-None-Match": 'W/"another"'}).content == first.content


def test_tags_are_compared_weakly_and_in_lists():
    tag = 'W/"abc"'
    assert is_known('"abc"', tag)
    assert is_known('"x", W/"abc"', tag)
    assert is_known("*", tag)
    assert not is_known("", tag)
    assert not is_known('"x"', tag)


def test_only_the_files_of_the_page_are_served(api):
    for path in (
        "/page",
        "/page/nothing.js",
        "/page/__init__.py",
        "/page/..%2Fsettings.py",
        "/page/%2e%2e/settings.py",
    ):
        answer = api.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["reason"] == "not_found"


def test_the_page_is_compressed_when_asked_for(api):
    answer = api.get("/page/style.css")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
