"""KeyService on the wire: turns requests into calls of Keys, and decides nothing."""

from typing import Any

from mesh.caller import caller_of
from svc_message.identity.keys import Keys
from svc_message.identity.keys_wire import fill_bundle, read_upload
from whimbrel.identity.v1 import keys_pb2, keys_pb2_grpc


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Serves KeyService to the gateways."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def UploadKeys(
        self, request: keys_pb2.UploadKeysRequest, context: Any
    ) -> keys_pb2.UploadKeysResponse:
        await self._keys.upload(caller_of(context), read_upload(request))
        return keys_pb2.UploadKeysResponse()

    async def CountKeys(
        self, request: keys_pb2.CountKeysRequest, context: Any
    ) -> keys_pb2.CountKeysResponse:
        ec_left, kem_left = await self._keys.count(caller_of(context))
        return keys_pb2.CountKeysResponse(one_time_prekeys=ec_left, one_time_kem_prekeys=kem_left)

    async def FetchKeys(
        self, request: keys_pb2.FetchKeysRequest, context: Any
    ) -> keys_pb2.FetchKeysResponse:
        fetched = await self._keys.fetch(caller_of(context), request.user_id, request.device_id)
        response = keys_pb2.FetchKeysResponse(identity_key=fetched.identity_key)
        for bundle in fetched.bundles:
            fill_bundle(response.bundles.add(), bundle)
        return response

    async def CheckKeys(
        self, request: keys_pb2.CheckKeysRequest, context: Any
    ) -> keys_pb2.CheckKeysResponse:
        equal = await self._keys.check(caller_of(context), request.digest)
        return keys_pb2.CheckKeysResponse(equal=equal)

    async def CheckIdentities(
        self, request: keys_pb2.CheckIdentitiesRequest, context: Any
    ) -> keys_pb2.CheckIdentitiesResponse:
        known = {known.user_id: known.fingerprint for known in request.known}
        changed = await self._keys.changed_identities(caller_of(context), known)
        return keys_pb2.CheckIdentitiesResponse(
            changed=[
                keys_pb2.ChangedIdentity(user_id=user_id, identity_key=key)
                for user_id, key in changed.items()
            ]
        )
