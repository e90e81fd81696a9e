"""The key that signs access tokens is replaced while people are connected."""

import jwt

from mesh.keys import KeySet
from tests.e2e.device import Device
from tests.e2e.meshes import own_mesh
from tests.e2e.people import register


async def test_tokens_of_the_old_and_the_new_key_are_good_while_it_is_rolled_out() -> None:
    async with own_mesh(gateways=1, message=2) as mesh:
        files = mesh.data / "keys"
        old, new = KeySet.load(files / "token.json"), KeySet.generate()
        new.save(files / "next.json")
        KeySet.joined([old, new]).save_public(files / "both-public.json")

        await mesh.stop("gateway-1")
        both = str(files / "both-public.json")
        await mesh.start("gateway-1", env={"WHIMBREL_GATEWAY_TOKEN_KEYS": both})
        await mesh.stop("message-2")
        signing = str(files / "next.json")
        await mesh.start("message-2", env={"WHIMBREL_MESSAGE_TOKEN_KEY": signing})

        signed_by = set()
        while signed_by != {old.key_id, new.key_id}:  # which instance answers is chance
            person = await register(mesh.gateway_addresses[0])
            signed_by.add(jwt.get_unverified_header(person.token)["kid"])
            async with Device(person, mesh.gateway_addresses[0]) as stream:
                await stream.hello()
