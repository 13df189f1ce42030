"""Routes of the tokens with which others use this backend."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from kaos_backend import errors
from kaos_backend.api import schemas
from kaos_backend.api.deps import Plain, Who
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.services.requests import check_author
from kaos_backend.tokens import Token

router = APIRouter(prefix="/tokens", tags=["tokens"])

_ADMIN = needs("admin", of="server")


@router.get("", openapi_extra=_ADMIN)
def list_tokens(services: Plain) -> schemas.Tokens:
    """All tokens by name, without what has to be sent to be them."""
    return schemas.Tokens(tokens=[schemas.Token(**_told(one)) for one in services.tokens.listed()])


@router.post("", status_code=201, responses=ends_in(errors.InvalidName, errors.Exists), openapi_extra=_ADMIN)
def create_token(body: schemas.TokenCreate, services: Plain, who: Who) -> schemas.NewToken:
    """A new token: the one answer that tells it. 400 invalid_name, 409 exists."""
    check_author(body.author)
    token, secret = services.tokens.create(
        body.name, body.rights, body.workspaces, body.expires_s, who.author(body.author)
    )
    return schemas.NewToken(**_told(token), token=secret)


@router.delete("/{name}", responses=ends_in(errors.NoSuchToken), openapi_extra=_ADMIN)
def revoke_token(name: str, services: Plain) -> schemas.RevokedToken:
    """Ends a token, at once, and what goes on with it. 404 no_such_token."""
    return schemas.RevokedToken(**_told(services.tokens.revoke(name)))


def _told(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "rights": token.rights,
        "workspaces": token.workspaces,
        "created": rfc3339(token.created),
        "created_by": token.by,
        "expires": rfc3339(token.expires),
    }
