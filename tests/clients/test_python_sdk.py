"""The official Python SDK, `bkapi-component-open`, calls `batch_create_instance_association`."""

import re

import pytest
from bkapi_component.open.client import Client

TEXTS = {
    "en": {
        "already exist": "the associations bk_switch->host already exist",
        "no source": "Association instance does not exist",
        "no target": "Associated instance does not exist",
        "target taken": "The relationship is 1:n, and multiple source model instances"
        " cannot be associated at the same time.",
        "no permission": "Do not have access permission.",
    },
    "zh-cn": {
        "already exist": "关联关系 bk_switch->host 重复",
        "no source": "关联实例不存在",
        "no target": "被关联实例不存在",
        "target taken": "关联关系为1:n的，不能同时关联多个源模型实例",
        "no permission": "没有操作的权限",
    },
}
PAIRS = [(11, 104), (12, 101), (12, 999), (99, 104), (11, 104)]


@pytest.fixture(params=["body", "header"])
def call(request, demo):
    """Sends a batch, with the credentials where this parameter says."""

    def call(pairs=PAIRS, user="admin", language="en", key=None):
        credentials = {
            "bk_app_code": "demo",
            "bk_app_secret": demo.secret,
            "bk_username": user,
        }
        body = {
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "bk_obj_asst_id": "bk_switch_connect_host",
            "details": [{"bk_inst_id": s, "bk_asst_inst_id": t} for s, t in pairs],
        }
        client = Client(endpoint=demo.url, bk_api_ver="v2", language=language)
        if request.param == "header":
            client.update_bkapi_authorization(**credentials)
        else:
            body |= credentials
        headers = {"Idempotency-Key": key} if key else {}
        answer = client.cc.batch_create_instance_association(body, headers=headers, timeout=25)
        assert re.fullmatch("[0-9a-f]{32}", answer["request_id"])
        return answer

    return call


def success(answer, data):
    """The success that has this data and the request id of `answer`."""
    fixed = {"result": True, "code": 0, "message": "", "permission": None}
    return fixed | {"request_id": answer["request_id"], "data": data}


def refusal(answer, code, message, permission=None):
    """The refusal that has this code and message and the request id of `answer`."""
    fixed = {"result": False, "code": code, "message": message, "permission": permission}
    return fixed | {"request_id": answer["request_id"], "data": None}


@pytest.mark.parametrize("language", TEXTS)
def test_batch_is_created_for_a_user_with_a_grant(call, language):
    texts = TEXTS[language]
    answer = call(language=language)
    refused = ["target taken", "no target", "no source", "already exist"]
    error_msg = {str(index): texts[reason] for index, reason in enumerate(refused, start=1)}
    assert answer == success(answer, {"success_created": {"0": 73}, "error_msg": error_msg})


@pytest.mark.parametrize("language", TEXTS)
def test_batch_is_refused_for_a_user_without_a_grant(call, language):
    answer = call([(11, 104)], user="guest", language=language)
    permission = answer["permission"]
    assert answer == refusal(answer, 9900403, TEXTS[language]["no permission"], permission)
    missing = [
        instance["id"]
        for action in permission["actions"]
        for resource_type in action["related_resource_types"]
        for path in resource_type["instances"]
        for instance in path
    ]
    assert sorted(missing) == ["104", "11"]
    # The refused batch created nothing: the same pair is new for the user with a grant.
    assert call([(11, 104)])["data"]["success_created"] == {"0": 73}


def test_batch_is_replayed_under_its_idempotency_key(call):
    first = call([(11, 104)], key="first")
    assert first["data"]["success_created"] == {"0": 73}
    assert call([(11, 104)], key="first") == first
    other = call([(11, 104)], key="second")
    assert other["data"]["error_msg"] == {"0": TEXTS["en"]["already exist"]}


def test_idempotency_key_is_refused_for_another_batch(call):
    call([(11, 104)], key="first")
    answer = call([(11, 105)], key="first")
    message = "Parameters error, Idempotency-Key was used with a different request"
    assert answer == refusal(answer, 1306406, message)
    # The refused batch created nothing.
    assert call([(11, 105)])["data"]["success_created"] == {"0": 74}
