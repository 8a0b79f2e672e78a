"""One HTTP request over asyncio: h11 reads and writes the protocol, a connection for each request."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import h11

from controlplane.model.errors import ConfigurationError
from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Json
from controlplane.sdk.refusals import UnreachableError

_CHUNK: Final = 64 * 1024


async def send(
    place: str, call: Call, headers: Mapping[str, str], *, tls: ssl.SSLContext | None, within: float
) -> Json:
    """Make one call at `place`, in `within` seconds. Raises: UnreachableError, and what `calls.heard` raises."""
    where = f"{place}{call.path.partition('?')[0]}"
    try:
        async with asyncio.timeout(within):
            status, raw = await _exchange(place, call, headers, tls)
    except TimeoutError:
        raise UnreachableError(f"{where} did not answer in time") from None
    except ssl.SSLError:
        raise UnreachableError(
            f"{where} was not reached: its certificate is not trusted, or it speaks no TLS"
        ) from None
    except h11.LocalProtocolError:  # it quotes the header, and that may be the token
        raise ConfigurationError("what is to be sent has characters that no HTTP header may have") from None
    except h11.RemoteProtocolError:
        raise UnreachableError(f"{where} broke the connection off") from None
    except ConnectionRefusedError:
        raise UnreachableError(f"{where} was not reached: nobody listens there") from None
    except OSError as error:
        raise UnreachableError(f"{where} was not reached: {error.strerror or 'there is no such host'}") from None
    return calls.heard(call, place, status, raw)


async def _exchange(
    place: str, call: Call, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> tuple[int, bytes]:
    url = urlsplit(place)
    content = calls.content(call)
    speaker = h11.Connection(h11.CLIENT)
    asked = h11.Request(
        method=call.method,
        target=f"{url.path}{call.path}",
        headers=[
            ("Host", url.netloc.rpartition("@")[2]),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
            *headers.items(),
        ],
    )
    sent = b"".join(speaker.send(part) or b"" for part in (asked, h11.Data(data=content), h11.EndOfMessage()))
    port = url.port or (443 if url.scheme == "https" else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls if url.scheme == "https" else None)
    try:
        writer.write(sent)
        await writer.drain()
        return await _answer(speaker, reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(speaker: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, told = 0, bytearray()
    while True:
        match speaker.next_event():
            case h11.NEED_DATA:
                speaker.receive_data(await reader.read(_CHUNK))
            case h11.Response(status_code=code):
                status = code
            case h11.Data(data=data):
                told += data
                if len(told) > calls.LARGEST_ANSWER:
                    raise h11.RemoteProtocolError("the answer is larger than any that is ever needed")
            case h11.EndOfMessage() | h11.PAUSED | h11.ConnectionClosed():
                return status, bytes(told)
            case _:  # an interim answer (RFC 9110 15.2)
                continue
