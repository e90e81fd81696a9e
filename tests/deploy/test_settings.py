"""The chart and the compose file speak of settings that the services have, and of all they need."""

from collections.abc import Iterator
from typing import Any

import pytest
from helm_python.errors import HelmError
from pydantic import BaseModel, SecretStr

from mesh.settings import load
from tests.deploy.chart import ROOT, SETTINGS, VALUES, environment, rendered, service_pods
from tests.deploy.keys import MOUNTED, as_in_a_pod


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}__")
        else:
            yield prefix + name, field


def test_every_service_with_settings_is_in_the_chart() -> None:
    found = {path.parent.name.removeprefix("svc_") for path in ROOT.glob("svc_*/settings.py")}

    assert set(service_pods()) == set(SETTINGS) == found


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_a_service_starts_with_what_the_chart_tells_it(values, tmp_path, monkeypatch) -> None:
    for name, spec in service_pods(values).items():
        with monkeypatch.context() as patch:
            for variable, told in environment(spec).items():
                patch.setenv(variable, as_in_a_pod(name, told, tmp_path))

            load(SETTINGS[name])  # exits, naming it, if a setting is unknown, missing or wrong


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_each_file_that_a_setting_names_is_mounted_and_no_other_key_with_it(values) -> None:
    for spec in service_pods(values).values():
        mounted = set()
        paths = {
            mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]
        }
        for volume in spec["volumes"]:
            [item] = volume["secret"]["items"]
            mounted.add(f"{paths[volume['name']]}/{item['path']}")

        told = {one.get("value", "") for one in environment(spec).values()}

        assert {value for value in told if value.startswith(MOUNTED)} == mounted


@pytest.mark.parametrize(
    ("service", "setting"),
    [
        (service, name)
        for service, settings in SETTINGS.items()
        for name, field in _fields(settings)
        if field.annotation is SecretStr
    ],
)
def test_a_secret_is_refused_as_a_value(service, setting) -> None:
    with pytest.raises(HelmError, match=f"invalid propertyName '{setting}'"):
        rendered({"services": {service: {"settings": {setting: "hunter2"}}}})


def test_a_number_keeps_its_digits() -> None:
    values = {"services": {"media": {"settings": {"quota": 107374182400}}}}

    told = environment(service_pods(values)["media"])

    assert told["WHIMBREL_MEDIA_QUOTA"]["value"] == "107374182400"


@pytest.mark.parametrize("setting", ["listen", "drain", "redis_url"])
def test_a_setting_has_one_place(setting) -> None:
    values = {"services": {"gateway": {"files": {setting: {"secret": "mine", "key": "mine"}}}}}

    with pytest.raises(HelmError, match=f"services.gateway: {setting} is set in two places"):
        rendered(values)


def test_a_secret_may_be_given_up_for_a_value() -> None:
    media = {"secrets": {"s3_bucket": None}, "settings": {"s3_bucket": "files"}}

    told = environment(service_pods({"services": {"media": media}})["media"])

    assert told["WHIMBREL_MEDIA_S3_BUCKET"]["value"] == "files"


def test_an_etcd_of_the_chart_is_the_one_that_is_used() -> None:
    theirs = environment(service_pods({"etcd": {"address": "etcd.stores:2379"}})["push"])
    ours = environment(service_pods({"stores": {"etcd": {"enabled": True}}})["push"])

    assert theirs["WHIMBREL_PUSH_ETCD"]["value"] == "etcd.stores:2379"
    assert ours["WHIMBREL_PUSH_ETCD"]["value"] == "chat-whimbrel-etcd:2379"
