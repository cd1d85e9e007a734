"""Logging in and out, themes, errors, and who is let in."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

import web
from api.asgi import SESSION_COOKIE
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.settings import Settings
from tests.support import library
from tests.support.api import SETTINGS, Api, security_log
from tests.support.browser import Site, token
from web import local

pytestmark = pytest.mark.integration
HTML = {"Accept": "text/html"}


def test_somebody_logs_in_and_out(at: Site) -> None:
    """Who asks for a page is asked for a key, and then sees that page; after the log-out there is none any more."""
    page = at.page("/corpora/harbour", scope=None)
    expect(page).to_have_title("Log in · crochet")
    page.get_by_label("API key").fill("crk_no_such_key")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That key is not valid.")
    page.get_by_label("API key").fill(at.api.keys["read"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("harbour")
    (cookie,) = (each for each in page.context.cookies() if each["name"] == SESSION_COOKIE)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert at.api.keys["read"].split("_", 2)[2] not in cookie["value"]
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in · crochet")
    page.goto("/corpora")
    expect(page).to_have_title("Log in · crochet")


def test_a_session_ends_with_its_key(api: Api) -> None:
    """As all that was begun with it: whether a key is good is looked up with every request."""
    key = keys.create(api.process.database, KeySpec("short", ("read",))).key
    client = api.app.test_client()
    client.post("/log-in", data={"key": key, "csrf_token": token(client.get("/log-in").text)})
    assert client.get("/corpora", headers=HTML).status_code == 200
    keys.revoke(api.process.database, key)
    assert client.get("/corpora", headers=HTML).headers["Location"] == "/log-in?to=/corpora"


def test_what_begins_and_ends_a_session_is_in_the_security_log(api: Api) -> None:
    key = keys.create(api.process.database, KeySpec("logged", ("read",))).key
    client = api.app.test_client()
    form = {"csrf_token": token(client.get("/log-in").text)}
    client.post("/log-in", data={"key": key, **form})
    client.post("/log-out", data={"csrf_token": token(client.get("/corpora").text)})
    prefix = key.split("_")[1]
    logged = [(what, tenant) for what, name, tenant, _ in security_log(api) if name == prefix]
    assert [what for what, _ in logged] == ["key.created", "key.first_used", "session.begun", "session.ended"]
    assert len({tenant for _, tenant in logged}) == 1
    wrong = {"key": f"{key[:-1]}!", "csrf_token": token(client.get("/log-in").text)}
    client.post("/log-in", data=wrong, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})  # no other test did from there
    assert security_log(api)[-1][:2] == ("refused.unauthorized", None)


def test_without_a_secret_nobody_logs_in(api: Api) -> None:
    """And reads that, and is not refused half of the time because each process has made up another one."""
    app = web.create_app(Settings(**{**SETTINGS, "jwt_secret": None}))
    app.extensions["crochet.process"] = api.process
    answer = app.test_client().get("/corpora", headers=HTML, follow_redirects=True)
    assert (answer.status_code, "CROCHET_JWT_SECRET is not set" in answer.text) == (501, True)


def test_the_cookie_is_secure_behind_tls(api: Api) -> None:
    answer = api.app.test_client().get("/log-in", base_url="https://crochet.example")
    assert "; Secure" in answer.headers["Set-Cookie"]
    assert "Secure" not in api.app.test_client().get("/log-in").headers["Set-Cookie"]


def test_a_session_is_no_credential_of_the_api(api: Api) -> None:
    """Or a page of another site could do with it what the API takes without a CSRF token."""
    client = api.app.test_client()
    client.post("/log-in", data={"key": api.keys["admin"], "csrf_token": token(client.get("/log-in").text)})
    assert client.get("/corpora", headers=HTML).status_code == 200
    api.problem(client.get("/v1/corpora"), "unauthorized", 401)


def test_a_form_of_another_site_is_refused(api: Api) -> None:
    client = api.app.test_client()
    client.get("/log-in")
    for data in ({}, {"csrf_token": "made up"}):
        answer = client.post("/theme", data={"theme": "dark", **data}, headers=HTML)
        assert answer.status_code == 403
        assert "form_refused" in answer.text
        assert "crochet_theme" not in answer.headers.get("Set-Cookie", "")
    api.problem(client.post("/log-in", data={"key": api.keys["read"]}), "form_refused", 403)


ELSEWHERE = ("https://other.example/", "//other.example", "/\\other.example", "javascript:1")
NO_ADDRESS = ("//[", "/\\[", "//[a]", "//\u2100", "x://[", "/" + "a" * 2000)
"""what cannot be read, or is longer than a cookie may be"""


@pytest.mark.parametrize("to", [*ELSEWHERE, *NO_ADDRESS])
def test_nothing_leads_to_another_site(api: Api, to: str) -> None:
    client = api.app.test_client()
    form = client.get("/log-in", query_string={"to": to}).text
    answer = client.post("/log-in", data={"key": api.keys["read"], "to": to, "csrf_token": token(form)})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert '<input type="hidden" name="to" value="/">' in form
    theme = client.post("/theme", data={"to": to, "csrf_token": token(client.get("/corpora").text)})
    assert (theme.status_code, theme.headers["Location"]) == (303, "/")


def test_a_referrer_that_is_no_address_is_refused(api: Api) -> None:
    """Over TLS it has to be ours."""
    client = api.app.test_client()
    form = {"csrf_token": token(client.get("/log-in", base_url="https://localhost").text)}
    for referrer in ("https://[", "https://localhost:x/", "https://other.example/"):
        answer = client.post("/theme", base_url="https://localhost", data=form, headers={"Referer": referrer})
        api.problem(answer, "form_refused", 403)


def test_a_link_on_another_site_leads_to_the_page(api: Api) -> None:
    """A browser does not send a strict cookie along such a link: the page loads once more from here, with it."""
    first = api.anonymous.get("/corpora/harbour?x=1", headers={**HTML, "Sec-Fetch-Site": "cross-site"})
    assert first.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/corpora/harbour?x=1">' in first.text
    again = api.anonymous.get("/corpora/harbour?x=1", headers={**HTML, "Sec-Fetch-Site": "same-origin"})
    assert again.headers["Location"].startswith("/log-in?to=")


def test_no_page_can_be_framed_or_load_from_elsewhere(api: Api) -> None:
    answer = api.anonymous.get("/log-in")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "://" not in answer.text


@pytest.mark.parametrize("path", ["/corpora/nowhere", "/nothing", "/corpora/harbour/nothing"])
def test_errors_are_pages_for_people_and_problems_for_programs(at: Site, path: str) -> None:
    page = at.lasting(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Corpus unknown|Route unknown"))
    page.get_by_role("link", name="All corpora").click()
    expect(page).to_have_title("Corpora · crochet")
    program = at.api.app.test_client()
    assert program.get("/v1/nothing", headers=HTML).mimetype == "application/problem+json"
    assert program.get("/nothing").mimetype == "application/problem+json"


def test_the_theme_stays_chosen(at: Site) -> None:
    """Without a script, too: it is a cookie that the server reads."""
    page = at.page(java_script_enabled=False, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_title("Corpora · crochet")
    dark = page.evaluate(ground)
    page.goto("/corpora/harbour")
    assert page.evaluate(ground) == dark != light
    page.get_by_role("button", name="Auto").click()
    expect(page.get_by_role("button", name="Auto")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) == light


def test_files_are_kept_by_the_browser_as_long_as_they_are_the_same(api: Api) -> None:
    style = api.anonymous.get("/log-in").text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    with api.anonymous.get(style) as answer:
        assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True)
    with api.anonymous.get(f"/static/older/{style.rpartition('/')[2]}") as answer:
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
    small = api.anonymous.get(style, headers={"Accept-Encoding": "gzip"})
    assert (small.headers["Content-Encoding"], small.mimetype) == ("gzip", "text/css")
    again = {"If-None-Match": small.headers["ETag"]}
    assert api.anonymous.get(style, headers=again).status_code == 304
    for outside in ("../pages.py", "..%2fpages.py", "nothing.css"):
        assert api.anonymous.get(f"/static/older/{outside}").status_code == 404


def test_the_page_of_one_person_lets_in_once(api: Api) -> None:
    """`crochet view`: who has the address comes in, once; and no page of another site does."""
    door = local.Door()
    app = local.create_app(Settings(**SETTINGS), api.process, door)
    address = f"/enter?token={door.token}"
    mine, other = app.test_client(), app.test_client()
    assert other.get("/enter?token=guessed").status_code == 303
    assert other.get("/corpora", headers=HTML).status_code == 401
    assert mine.get(address).headers["Location"] == "/corpora"
    assert library.HARBOUR in mine.get("/corpora", headers=HTML).text
    other.get(address)
    refused = other.get("/corpora", headers=HTML)
    assert (refused.status_code, "lets in once" in refused.text) == (401, True)
    assert mine.get("/corpora", headers={**HTML, "Origin": "https://other.example"}).status_code == 403
    assert mine.get("/corpora", headers=HTML, base_url="http://rebound.example").status_code == 401
    assert mine.get("/v1/corpora").status_code == 401


def test_own_script_and_style_stay_small() -> None:
    sizes = {path.name: path.stat().st_size for path in web.files.FOLDER.iterdir() if path.suffix in (".css", ".js")}
    assert 0 < sum(sizes.values()) <= 80 * 1024, sizes
