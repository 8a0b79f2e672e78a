"""What the door itself refuses, before any verb is called: each with its code and status, like every error of ours."""

from datetime import timedelta
from http import HTTPStatus

from controlplane.model.errors import ControlPlaneError


class MalformedRequestError(ControlPlaneError):
    """The request is not HTTP as it should be, or could be read in two ways; it was not read at all."""

    code, status = "malformed-request", HTTPStatus.BAD_REQUEST
    hint = "Send one plain HTTP/1.1 request; a proxy on the way may have changed it."


class NoSuchPathError(ControlPlaneError):
    """There is nothing at this path."""

    code, status = "not-found", HTTPStatus.NOT_FOUND
    hint = "GET /openapi.json lists every path; none ends with a slash."


class MethodNotAllowedError(ControlPlaneError):
    """The path is right, but not with this method; `Allow` lists those that are."""

    code, status = "method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED
    hint = "Use a method that the Allow header names."


class TooSlowError(ControlPlaneError):
    """The request did not arrive in time; nothing was done."""

    code, status = "too-slow", HTTPStatus.REQUEST_TIMEOUT
    hint = "Send the whole request at once."


class TooLargeError(ControlPlaneError):
    """The body is larger than any that is ever needed; the rest of it was not read."""

    code, status = "too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    hint = "Send less: no request needs more than a few hundred bytes."


class UriTooLongError(ControlPlaneError):
    """Path and query are longer than any that is ever needed."""

    code, status = "uri-too-long", HTTPStatus.REQUEST_URI_TOO_LONG
    hint = "Use the paths and parameters of /openapi.json."


class UnsupportedMediaTypeError(ControlPlaneError):
    """The body is not `application/json`, or it is compressed; it was not read."""

    code, status = "unsupported-media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    hint = "Send JSON in UTF-8 with `Content-Type: application/json` and without Content-Encoding."


class HeadTooLargeError(ControlPlaneError):
    """The request's headers together are larger than 32 KiB."""

    code, status = "headers-too-large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    hint = "Leave out cookies and other headers that are not needed here."


class RateLimitedError(ControlPlaneError):
    """The caller asked more often than `api.rate` or `api.ending_rate` allows; nothing was done."""

    code, status, exit_status = "rate-limited", HTTPStatus.TOO_MANY_REQUESTS, 3
    hint = "Wait as long as Retry-After says. What ends access has a bucket of its own, so finishing still works."

    def __init__(self, detail: str, *, retry_after: timedelta) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class BusyError(ControlPlaneError):
    """More requests wait than can be served soon; nothing was done. What ends access has threads of its own."""

    code, status, exit_status = "busy", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "Ask again in a second. If it lasts, Vault is slow or there are too few replicas."
    retry_after = timedelta(seconds=1)
