"""What an error of boto3 is about: what was asked for, whoever asks, or the store."""

from __future__ import annotations

from typing import Any

NOT_US = frozenset(
    (
        *("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"),
        *("RequestTimeTooSkewed", "TokenRefreshRequired"),
    )
)
"""Codes that are about whoever asks, not about what was asked for."""
CREDENTIALS = "Check credentials and endpoint: AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL."
# They ask for a role's keys within a request for something else; a refusal is none of that.
_KEYS = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials")


def error_code(error: Exception) -> str:
    """The store's code of a botocore ClientError, such as `NoSuchKey`; "" for any other exception."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def is_outage(error: Exception) -> bool:
    """Whether the store, or the way to it, did not answer or could not."""
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status >= 500 or status == 429 or error_code(error) == "RequestTimeout"
    return isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError, HTTPError, OSError))


def is_about_us(error: Exception) -> bool:
    """Whether credentials are missing or refused, or our clock is."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return error_code(error) in NOT_US or error.operation_name in _KEYS
    return isinstance(
        error,
        (
            exceptions.CredentialRetrievalError,
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.ProfileNotFound,
            exceptions.SSOError,
            exceptions.TokenRetrievalError,
        ),
    )
