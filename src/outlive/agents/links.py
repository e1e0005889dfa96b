"""Signed links to approvals: a page that shows one call to whoever got the link, and takes his decision.

An ASGI app, to be mounted anywhere; knows the inbox of approvals and HTTP, no framework.
Invariant: who decides on what is what the link's signature covers, and nothing else of a request. A GET changes
nothing, for scanners of mail open every link; nor does a link that is forged, too old, used, or of other arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from outlive.app import Outlive
from outlive.approvals import Approval, Approvals
from outlive.clock import Duration, seconds, to_instant
from outlive.errors import PayloadError, RunRefused, StoreUnavailable, UsageError
from outlive.inbox import check_person, is_person, visible
from outlive.limits import LINK_FIELDS_MAX, LINK_FORM_MAX_BYTES, LINK_SECRET_MIN_CHARS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PURPOSE = b"outlive approval link 1\0"  # the same secret may sign other things elsewhere
_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem }
pre { background: #f2f2f2; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere }
textarea { width: 100%; box-sizing: border-box }
button { font: inherit; padding: .5rem 1.5rem; margin: 1rem 1rem 0 0 }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}


class Link(msgspec.Struct, frozen=True):
    """What a link carries: which question, with which arguments, to whom, as which role, and until when."""

    id: str
    digest: str
    asked_at: float
    role: str | None
    by: str
    until: float


class _Refused(Exception):
    """A request that gets a page of this status and sentence, and changes nothing."""

    def __init__(self, status: int, said: str, **headers: str) -> None:
        super().__init__(said)
        self.status, self.said, self.headers = status, said, headers


class ApprovalLinks:
    """See `approval_links`."""

    def __init__(self, app: Outlive, secret: str | Sequence[str], url: str) -> None:
        secrets = list(secret) if isinstance(secret, Sequence) and not isinstance(secret, str) else [secret]
        if not secrets or not all(isinstance(one, str) and len(one) >= LINK_SECRET_MIN_CHARS for one in secrets):
            raise UsageError(
                f"secret=… is a text of at least {LINK_SECRET_MIN_CHARS} characters, or a list of such texts"
            )
        if not url.startswith(("https://", "http://")) or "?" in url or "#" in url:
            raise UsageError(f"url=… is where these links are served, https://…, not {url!r}")
        self._app = app
        self._inbox = Approvals(app)
        self._secrets = [one.encode() for one in secrets]
        self._url = url.rstrip("/") + "/"  # to which a mount would redirect otherwise

    def url(self, approval: Approval, *, by: str, expires: Duration | None = None) -> str:
        """Give a link by which `by` may decide on a call, as one of the role that is asked; send it to nobody else.

        It ends with the question, or earlier, after `expires`. *Raises* UsageError if the app is not open.
        """
        check_person(by, None)
        ends = [] if approval.expires_at is None else [to_instant(approval.expires_at)]
        if expires is not None:
            ends.append(self._now() + seconds(expires))
        if not ends:
            raise UsageError("this call waits for ever, and no link does: say expires=…")
        asked_at = to_instant(approval.asked_at)
        link = Link(approval.id, approval.digest, asked_at, approval.role, by, min(ends))
        text = _to_base64(msgspec.json.encode(link))
        return f"{self._url}?link={text}.{_sign(self._secrets[0], text)}"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as an ASGI app."""
        if scope["type"] != "http":
            raise UsageError(
                f"approval links answer requests of HTTP, not {scope['type']}: mount them in an application"
            )
        status, page, headers = 200, "", {}
        try:
            page = await self._answer(scope, receive)
        except _Refused as refused:
            status, page, headers = refused.status, _page(refused.said), refused.headers
        except StoreUnavailable:
            said = "The database does not answer. Your decision may have counted: open the link again in a minute."
            status, page, headers = 503, _page(said), {"retry-after": "60"}
        body = page.encode()
        told = {**_HEADERS, **headers, "content-length": str(len(body))}
        pairs = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Message, receive: Receive) -> str:
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise _Refused(405, "A link is opened, and its form is sent.", allow="GET, HEAD, POST")
        link = self._read(scope["query_string"])
        approval = await self._find(link)
        if scope["method"] != "POST":
            return _ask(approval, link)
        form = await _read_form(scope, receive)
        if form.get("decision") not in ("approve", "deny"):
            raise _Refused(400, "The form says neither approve nor deny.")
        approve = form["decision"] == "approve"
        if not approve and is_person(link.by, approval.votes):
            raise _Refused(
                410, "You have approved this call, and a link is used once. Tell the others, or an operator."
            )
        roles = [] if link.role is None else [link.role]
        why = form.get("why", "").strip() or None
        try:
            await self._inbox.decide(link.id, approve=approve, by=link.by, why=why, roles=roles, digest=link.digest)
        except RunRefused as refused:
            raise _Refused(409, f"Your decision does not count: {refused.why}.") from None
        except PayloadError as error:
            raise _Refused(400, f"Your reason cannot be kept: {error}") from None
        return _page(f"You have {'approved' if approve else 'denied'} this call of {approval.tool}. Thank you.")

    def _read(self, query: bytes) -> Link:
        """Read a link whose signature is right and that is not too old."""
        text, _, signature = _fields(query).get("link", "").partition(".")
        # One after the other, whichever fits: how long it takes tells nothing.
        if not sum(hmac.compare_digest(_sign(secret, text).encode(), signature.encode()) for secret in self._secrets):
            raise _Refused(403, "This link is not valid: it has been changed, or was not made here.")
        try:
            link = msgspec.json.decode(_from_base64(text), type=Link)
        except (msgspec.DecodeError, binascii.Error):  # signed by another version
            raise _Refused(403, "This link is not valid any more. Ask for a new one.") from None
        if link.until <= self._now():
            raise _Refused(410, "This link has expired. Ask for a new one.")
        return link

    async def _find(self, link: Link) -> Approval:
        """Find the call as the link's receiver was told of it."""
        approval = await self._inbox.find(link.id, digest=link.digest)
        if approval is None:
            raise _Refused(410, "This call waits for nobody any more: it was decided, has expired, or was cancelled.")
        if approval.digest != link.digest:
            raise _Refused(409, "The arguments of this call have changed since the link was sent. Ask for a new one.")
        if (to_instant(approval.asked_at), approval.role) != (link.asked_at, link.role):
            raise _Refused(410, "This call has been asked for again since the link was sent. Ask for a new one.")
        return approval

    def _now(self) -> float:
        return self._app._engine().clock.now()


def approval_links(app: Outlive, secret: str | Sequence[str], *, url: str) -> ApprovalLinks:
    """Give an ASGI app of links by which people decide on calls: mount it, and let `url` be where it is mounted.

    `links.url(approval, by="ana")` makes a link, to be sent to `ana`: whoever has it decides in that name, once.
    It opens a page that shows the call; only the form of that page decides. With several secrets the first signs and
    all are accepted, so that an old one can be replaced. `app` has to be open in the loop of the server.
    *Durable*: the decision, before the page that says so. *Again*: a link that was used, or whose call has been
    decided, has other arguments or was asked for again, is refused, with a page that says why.
    """
    return ApprovalLinks(app, secret, url)


# -- texts -------------------------------------------------------------------------
def _sign(secret: bytes, text: str) -> str:
    return _to_base64(hmac.digest(secret, _PURPOSE + text.encode(), "sha256"))


def _to_base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _fields(encoded: bytes) -> dict[str, str]:
    try:
        fields = parse_qs(encoded.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=LINK_FIELDS_MAX)
    except ValueError:
        raise _Refused(400, "This request has more fields than a link or its form.") from None
    return {name: values[0] for name, values in fields.items()}


async def _read_form(scope: Message, receive: Receive) -> dict[str, str]:
    """Read what the form of a page sends, within a limit."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
        raise _Refused(415, "A decision is sent by the form of the page.")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "The form did not arrive as a whole.")
        body += message.get("body", b"")
        if len(body) > LINK_FORM_MAX_BYTES:
            raise _Refused(413, "Your reason is too long.")
        if not message.get("more_body", False):
            return _fields(body)


# -- pages -------------------------------------------------------------------------
def _page(said: str, rest: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Approval</title>'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<style>{_STYLE}</style></head>\n<body><p>{_shown(said)}</p>{rest}</body></html>\n"
    )


def _ask(approval: Approval, link: Link) -> str:
    """Show a call to the one who is to decide on it."""
    arguments = json.dumps(approval.arguments, indent=2, ensure_ascii=False, default=str)
    said = f"{link.by}, the agent {approval.agent} asks to call {approval.tool} with these arguments:"
    facts = [f"Run {approval.run_id}.", f"Approved by {len(approval.votes)} of {approval.quorum}."]
    if approval.role is not None:
        facts.append(f"You decide as {approval.role}.")
    if approval.expires_at is not None:
        facts.append(f"It waits until {approval.expires_at:%Y-%m-%d %H:%M} UTC.")
    return _page(
        said,
        f"<pre>{_shown(arguments)}</pre><p>{_shown(' '.join(facts))}</p>"
        '<form method="post"><label>Why? <textarea name="why" rows="2"></textarea></label>'
        '<button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="deny">Deny</button></form>',
    )


def _shown(text: str) -> str:
    """Give a text as HTML."""
    return html.escape(visible(text))
