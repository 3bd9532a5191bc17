"""Header fields that every answer carries, whoever gives it: browsers then do nothing with it that nobody meant."""

from __future__ import annotations

from starlette.types import Message, Send

# Nothing of what we answer is a page. Where that needs other words, for downloads, the answer brings its own.
# The URL of an upload is all that one needs to write to it, so it is told to nobody.
SAFETY = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


def safely(send: Send) -> Send:
    """Return ``send`` with the fields of ``SAFETY`` on every answer that does not bring its own."""

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            present = {name.lower() for name, _ in fields}
            fields += [(name, value) for name, value in SAFETY if name not in present]
            message = {**message, "headers": fields}
        await send(message)

    return send_safely
