"""Certificates by ACME (RFC 8555): a public authority looks at http://NAME/ and signs (challenge http-01, §8.3).

The protocol is certbot's library ``acme``, an extra (``outlast[acme]``). Plain HTTP is answered as most sites answer
it: whoever does not come from the authority is sent on to https.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from outlast.address import Target
from outlast.errors import OutlastError, StorageError, UsageError
from outlast.rooms.reach.io.certificates import write_private
from outlast.rooms.reach.io.folder import serve_pages
from outlast.rooms.reach.io.gate import listen

if TYPE_CHECKING:
    from acme.client import ClientNetwork
    from josepy.jwk import JWK
    from requests import Response as HttpAnswer

LOOK_S: Final = 3600.0
"""So often it is looked whether the certificate has to be renewed."""
OBTAIN_S: Final = 120
NONCES_MAX: Final = 8
"""So often a request whose nonce was refused is made again, at least."""
_METHODS: Final = ["GET", "HEAD", "POST"]


class Acme:
    """The certificate of one name by one authority, kept in a folder together with the account's key."""

    def __init__(self, directory: str, name: str, folder: Path) -> None:
        """``directory`` is the URL of the authority's directory; raises UsageError for a name that none can sign."""
        try:
            ip_address(name)
        except ValueError:
            pass
        else:
            raise UsageError("an authority signs names, not addresses: give --name HOST, or leave out --acme")
        try:
            import acme  # noqa: F401
        except ImportError:
            raise UsageError("for --acme install the extra: pip install 'outlast[acme]'") from None
        self._directory = directory
        self._name = name
        self._account = folder / "acme-account.pem"
        self.certificate, self.key = folder / "acme-certificate.pem", folder / "acme-key.pem"
        self.answers: dict[str, str] = {}
        """What the authority is to find, by token."""

    def due(self, now: datetime.datetime, left: float = 1 / 3) -> bool:
        """Whether a new certificate is needed: this share of its life is left, or none has that name and key."""
        try:
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            is_ours = load_pem_private_key(self.key.read_bytes(), None).public_key() == found.public_key()
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            life = found.not_valid_after_utc - found.not_valid_before_utc
        except (OSError, ValueError, x509.ExtensionNotFound):
            return True
        is_named = self._name in names.get_values_for_type(x509.DNSName)
        return not (is_ours and is_named) or found.not_valid_after_utc - now < life * left

    def obtain(self) -> None:
        """Get a new one; blocks. Raises OutlastError with what the authority said, or why it cannot be kept."""
        from acme import challenges, client, crypto_util, errors, messages
        from josepy.errors import Error as JoseError
        from josepy.jwk import JWKEC
        from requests.exceptions import RequestException

        folder = self._account.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            account = JWKEC(key=self._account_key())
            net = _network(account)
            authority = client.ClientV2(client.ClientV2.get_directory(self._directory, net), net)
            try:
                authority.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
            except errors.ConflictError as known:
                net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
            key = _pem(ec.generate_private_key(ec.SECP256R1()))
            order = authority.new_order(crypto_util.make_csr(key, [self._name]))
            for authorization in order.authorizations:
                for challenge in authorization.body.challenges:
                    # What the authority still remembers having seen is valid already.
                    if isinstance(challenge.chall, challenges.HTTP01) and challenge.status == messages.STATUS_PENDING:
                        response, answer = challenge.response_and_validation(account)
                        self.answers[challenge.chall.encode("token")] = answer
                        authority.answer_challenge(challenge, response)
            until = datetime.datetime.now() + datetime.timedelta(seconds=OBTAIN_S)
            chain = authority.poll_and_finalize(order, until).fullchain_pem
            write_private(self.key, key)
            write_private(self.certificate, chain.encode())
        except errors.ValidationError as error:
            said = "; ".join(
                str(one.error.detail)
                for failed in error.failed_authzrs
                for one in failed.body.challenges
                if one.error is not None
            )
            raise OutlastError(f"the authority could not see http://{self._name}/ on port 80: {said[:300]}") from None
        except (errors.Error, messages.Error, RequestException, JoseError) as error:
            raise OutlastError(f"no certificate came from the authority: {str(error)[:300]}") from None
        except OSError as error:
            raise StorageError(
                "the certificate cannot be kept in %(folder)s: %(error)s", folder=folder, error=error
            ) from None
        finally:
            self.answers.clear()

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        if not self._account.exists():
            write_private(self._account, _pem(ec.generate_private_key(ec.SECP256R1())))
        try:
            found = load_pem_private_key(self._account.read_bytes(), None)
        except ValueError:
            found = None
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise StorageError(f"{self._account} is damaged: delete it, and a new account is opened")
        return found


def _network(account: JWK) -> ClientNetwork:
    """Asks an authority, again whenever it refuses a nonce (RFC 8555 §6.5); the library does so once."""
    from acme import client, messages
    from josepy.jwa import ES256

    class Network(client.ClientNetwork):
        def post(self, *args: Any, **more: Any) -> HttpAnswer:
            for _ in range(NONCES_MAX):
                try:
                    return super().post(*args, **more)
                except messages.Error as error:
                    if error.code != "badNonce":
                        raise
            return super().post(*args, **more)

    return Network(account, alg=ES256, timeout=30)


@asynccontextmanager
async def certified(acme: Acme, http: Target, name: str, port: int) -> AsyncIterator[None]:
    """Answer plain HTTP at ``http``; the certificate is there when this begins, and is renewed while it lasts.

    Raises OutlastError when there is none that serves, and none comes. One that only has to be renewed serves: the
    authority may be out of reach, behind a cut.
    """

    def answer(request: Request) -> Response:
        found = acme.answers.get(request.path_params["token"])
        return _send_on(request) if found is None else PlainTextResponse(found)

    def _send_on(request: Request) -> Response:
        authority = name if port == 443 else f"{name}:{port}"
        return RedirectResponse(str(request.url.replace(scheme="https", netloc=authority)), 301)

    routes = [
        Route("/.well-known/acme-challenge/{token}", answer),
        Route("/{path:path}", _send_on, methods=_METHODS),
    ]
    async with serve_pages(Starlette(routes=routes), sockets=[listen(http)]):
        if acme.due(datetime.datetime.now(datetime.UTC), left=0):
            await asyncio.to_thread(acme.obtain)
        renewing = asyncio.create_task(_renew(acme))
        try:
            yield
        finally:
            renewing.cancel()


async def _renew(acme: Acme) -> None:
    while True:
        if acme.due(datetime.datetime.now(datetime.UTC)):
            with suppress(OutlastError):  # a third of its life is left to try again in
                await asyncio.to_thread(acme.obtain)
        await asyncio.sleep(LOOK_S)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
