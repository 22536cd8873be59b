"""The official Python SDK, `bkapi-component-open`, calls every endpoint of the gateway API."""

import re

import pytest
from bkapi_component.open.client import Client
from conftest import without_new_times
from esb import COMPONENTS, Esb

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
def call_endpoint(request, demo):
    """Calls an endpoint, with the credentials where this parameter says."""
    return caller(demo.url, demo.secret, credentials_in=request.param)


def caller(url, secret, credentials_in):
    """A function that calls the endpoint with this name at this URL."""

    def call(name, fields, user="admin", language="en", key=None):
        credentials = {"bk_app_code": "demo", "bk_app_secret": secret, "bk_username": user}
        client = Client(endpoint=url, bk_api_ver="v2", language=language)
        if credentials_in == "header":
            client.update_bkapi_authorization(**credentials)
        else:
            fields = fields | credentials
        headers = {"Idempotency-Key": key} if key else {}
        answer = getattr(client.cc, name)(fields, headers=headers, timeout=25)
        assert re.fullmatch("[0-9a-f]{32}", answer["request_id"])
        return answer

    return call


@pytest.fixture
def call(call_endpoint):
    """Sends a batch."""

    def call(pairs=PAIRS, **options):
        return call_endpoint("batch_create_instance_association", batch(pairs), **options)

    return call


def batch(pairs):
    """The fields of a batch."""
    return {
        "bk_obj_id": "bk_switch",
        "bk_asst_obj_id": "host",
        "bk_obj_asst_id": "bk_switch_connect_host",
        "details": [{"bk_inst_id": s, "bk_asst_inst_id": t} for s, t in pairs],
    }


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


HOST_LINKS = [
    {"id": 1, "bk_inst_id": 11, "bk_asst_inst_id": 101},
    {"id": 2, "bk_inst_id": 11, "bk_asst_inst_id": 102},
    {"id": 3, "bk_inst_id": 12, "bk_asst_inst_id": 103},
]
TO_HOSTS = {"field": "bk_asst_obj_id", "operator": "equal", "value": "host"}
RACK = {"bk_obj_id": "rack", "bk_inst_id": 21}
TOPOLOGY = {
    "id": "",
    "bk_obj_id": "rack",
    "bk_obj_icon": "",
    "bk_inst_id": 0,
    "bk_obj_name": "机柜",
    "bk_inst_name": "",
    "asso_id": 0,
    "count": 1,
    "children": [
        {
            "id": "21",
            "bk_obj_id": "rack",
            "bk_obj_icon": "",
            "bk_inst_id": 21,
            "bk_obj_name": "机柜",
            "bk_inst_name": "rack-1",
            "asso_id": 6,
        }
    ],
}
MODEL = {
    "id": 3,
    "bk_classification_id": "bk_network",
    "bk_obj_icon": "icon-cc-switch2",
    "bk_obj_id": "bk_switch",
    "bk_obj_name": "Switch",
    "bk_ishidden": False,
    "ispre": False,
    "bk_ispaused": False,
    "position": "",
    "bk_supplier_account": "0",
    "description": "",
    "creator": "cc_system",
    "modifier": "",
    "create_time": "0001-01-01 00:00:00",
    "last_time": "0001-01-01 00:00:00",
    "obj_sort_number": 1,
}
TO_RACKS = {"field": "bk_asst_obj_id", "operator": "equal", "value": "rack"}
TIME = "2026-01-31T18:00:00.123Z"
BUILT_IN = "forbidden operate inner model instance with common instance API"
UNKNOWN_ASSOCIATION = "object association does not exist."

# Endpoints that the original, and so the SDK, does not have.
NOT_IN_THE_SDK = {
    "check_instance_associations",
    "create_instance_associations_atomic",
    "find_instance_association_request",
    "undo_instance_association_request",
}

# For each other endpoint: fields, the data that they give on the demo inventory, and a refusal, as
# the fields that are replaced, the code and the message.
CALLS = {
    "batch_create_instance_association": (
        batch([(11, 104)]),
        {"success_created": {"0": 73}, "error_msg": {}},
        ({"bk_obj_asst_id": "bk_switch_none_host"}, 1101046, UNKNOWN_ASSOCIATION),
    ),
    "add_instance_association": (
        {"bk_obj_asst_id": "bk_switch_connect_host", "bk_inst_id": 11, "bk_asst_inst_id": 104},
        {"id": 73},
        ({"bk_asst_inst_id": 999}, 1101074, TEXTS["en"]["no target"]),
    ),
    "delete_instance_association": (
        {"bk_obj_id": "rack", "id": 4},
        None,
        ({"id": "x"}, 1199009, "'association_id' parameters must be integral"),
    ),
    "delete_related_inst_asso": (
        {"bk_obj_id": "host", "id": [7, 8, 999]},
        2,
        ({"id": []}, 1199003, "invalid input parameter"),
    ),
    "search_instance_associations": (
        {
            "bk_obj_id": "bk_switch",
            "conditions": {"condition": "AND", "rules": [TO_HOSTS]},
            "fields": ["id", "bk_inst_id", "bk_asst_inst_id"],
            "page": {"limit": 3, "sort": "id"},
        },
        {"info": HOST_LINKS},
        (
            {"page": {"limit": 501}},
            1199006,
            "'page.limit' data parameter verification does not pass",
        ),
    ),
    "count_instance_associations": (
        {"bk_obj_id": "bk_switch", "conditions": {"condition": "AND", "rules": [TO_HOSTS]}},
        {"count": 3},
        (
            {"conditions": {"condition": "and", "rules": [TO_HOSTS]}},
            1199006,
            "'conditions.condition' data parameter verification does not pass",
        ),
    ),
    "find_instance_association": (
        {"bk_obj_id": "rack", "condition": {"bk_inst_id": 31}},
        [
            {
                "id": 6,
                "bk_inst_id": 31,
                "bk_obj_id": "power_unit",
                "bk_asst_inst_id": 21,
                "bk_asst_obj_id": "rack",
                "bk_supplier_account": "0",
                "bk_obj_asst_id": "power_unit_power_rack",
                "bk_asst_id": "power",
            }
        ],
        (
            {"condition": {"$where": "1"}},
            1199998,
            "Unknown or unrecognized error: condition: the operator $where is not supported",
        ),
    ),
    "search_related_inst_asso": (
        {"condition": {"bk_obj_id": "bk_switch", "bk_inst_id": 12}, "fields": ["id"]},
        [{"id": 3}, {"id": 5}, {"id": 9}],
        ({"fields": []}, 1199010, "'fields' unassigned"),
    ),
    "search_inst_association_topo": (
        {"bk_obj_id": "power_unit", "bk_inst_id": 31},
        [TOPOLOGY],
        (
            {"bk_inst_id": 99},
            1199011,
            "'bk_inst_id' the parameter is invalid or does not exist",
        ),
    ),
    "search_inst_asst_object_inst_base_info": (
        {"condition": RACK | {"association_obj_id": "bk_switch"}, "page": {"limit": 1}},
        {"count": 2, "info": [{"bk_inst_id": 11, "bk_inst_name": "sw-1"}]},
        ({"page": {"limit": 1001}}, 1199059, "page limit is exceeded. suggestion 200"),
    ),
    "find_object_association": (
        {"condition": {"bk_obj_id": "power_unit"}},
        [
            {
                "id": 3,
                "bk_supplier_account": "0",
                "bk_obj_asst_id": "power_unit_power_rack",
                "bk_obj_asst_name": "",
                "bk_obj_id": "power_unit",
                "bk_asst_obj_id": "rack",
                "bk_asst_id": "power",
                "mapping": "1:1",
                "on_delete": "none",
                "ispre": None,
            }
        ],
        ({"condition": {}}, 1199011, "'condition' the parameter is invalid or does not exist"),
    ),
    "find_instassociation_with_inst": (
        {
            "bk_obj_id": "power_unit",
            "condition": {
                "asst_filter": {"condition": "AND", "rules": [TO_RACKS]},
                "asst_fields": ["id"],
                "src_detail": True,
                "src_fields": ["bk_inst_name"],
            },
            "page": {"limit": 1},
        },
        {"association": [{"id": 6}], "src": [{"bk_inst_name": "pdu-1"}], "dst": None},
        ({"page": {"limit": 201}}, 1199059, "page limit is exceeded. suggestion 200"),
    ),
    "create_inst": (
        {"bk_obj_id": "rack", "bk_inst_name": "rack-9", "rows": 42},
        {
            "bk_inst_id": 34,
            "bk_inst_name": "rack-9",
            "bk_obj_id": "rack",
            "bk_supplier_account": "0",
            "rows": 42,
            "create_time": TIME,
            "last_time": TIME,
            "bk_created_at": TIME,
            "bk_created_by": "admin",
            "bk_updated_at": TIME,
            "bk_updated_by": None,
        },
        ({"bk_obj_id": "host"}, 1199084, BUILT_IN),
    ),
    "batch_create_inst": (
        {"bk_obj_id": "rack", "details": [{"bk_inst_name": "rack-1"}, {"bk_inst_name": "rack-9"}]},
        {
            "success_created": {"1": 34},
            "error_msg": {
                "0": 'duplicated instances exist, fields [ bk_inst_name: "rack-1" ] duplicated'
            },
        },
        ({"details": []}, 1199038, "details must not be empty"),
    ),
    "update_inst": (
        {"bk_obj_id": "rack", "bk_inst_id": 21, "rows": 42},
        None,
        ({"bk_inst_id": 99}, 1199019, "No relevant data found"),
    ),
    "batch_update_inst": (
        {"bk_obj_id": "rack", "update": [{"inst_id": 21, "datas": {"rows": 42}}]},
        None,
        (
            {"update": [{"inst_id": 0, "datas": {}}]},
            1199006,
            "'inst_id' data parameter verification does not pass",
        ),
    ),
    "delete_inst": (
        {"bk_obj_id": "bk_switch", "bk_inst_id": 13},
        None,
        ({"bk_inst_id": 11}, 1101075, "the inst has association"),
    ),
    "batch_delete_inst": (
        {"bk_obj_id": "bk_switch", "delete": {"inst_ids": [13, 99]}},
        None,
        ({"delete": {"inst_ids": [11, 13]}}, 1101075, "the inst has association"),
    ),
    "search_object_instances": (
        {
            "bk_obj_id": "rack",
            "conditions": {"field": "bk_inst_name", "operator": "equal", "value": "rack-2"},
            "fields": ["bk_inst_id"],
            "page": {"limit": 10},
        },
        {"info": [{"bk_inst_id": 22}]},
        (
            {"page": {"limit": 501}},
            1199006,
            "'page.limit' data parameter verification does not pass",
        ),
    ),
    "count_object_instances": (
        {"bk_obj_id": "rack"},
        {"count": 3},
        ({"bk_obj_id": "host"}, 1199084, BUILT_IN),
    ),
    "search_inst": (
        {
            "bk_obj_id": "power_unit",
            "condition": {
                "rack": [{"field": "bk_inst_name", "operator": "$eq", "value": "rack-1"}]
            },
            "fields": {"power_unit": ["bk_inst_id"]},
        },
        {"count": 1, "info": [{"bk_inst_id": 31}]},
        ({"bk_obj_id": "host"}, 1199084, BUILT_IN),
    ),
    "search_inst_by_object": (
        {
            "bk_obj_id": "rack",
            "condition": {"bk_inst_id": {"$gt": 21}},
            "fields": ["bk_inst_name"],
            "page": {"limit": 1},
        },
        {"count": 2, "info": [{"bk_inst_name": "rack-2"}]},
        ({"bk_obj_id": "host"}, 1199084, BUILT_IN),
    ),
    "add_host_to_resource_pool": (
        {"host_info": [{"bk_host_innerip": "10.0.9.1", "bk_cloud_id": 0}]},
        {"success": [{"index": 0, "bk_host_id": 109}]},
        ({"host_info": []}, 1199010, "'host_info' unassigned"),
    ),
    "list_hosts_without_biz": (
        {"fields": ["bk_host_id", "bk_host_innerip"], "page": {"limit": 1}},
        {"count": 8, "info": [{"bk_host_id": 101, "bk_host_innerip": "10.0.0.11"}]},
        (
            {"page": {"limit": 1001}},
            1199006,
            "'page.limit' data parameter verification does not pass",
        ),
    ),
    "create_object": (
        {
            "bk_obj_id": "cable",
            "bk_obj_name": "Cable",
            "bk_classification_id": "bk_network",
            "bk_obj_icon": "icon-cc-default",
        },
        MODEL
        | {
            "id": 27,
            "bk_obj_icon": "icon-cc-default",
            "bk_obj_id": "cable",
            "bk_obj_name": "Cable",
            "creator": "admin",
            "create_time": None,
            "last_time": None,
            "obj_sort_number": 0,
        },
        (
            {"bk_obj_id": "host"},
            1199011,
            "'bk_obj_id' the parameter is invalid or does not exist",
        ),
    ),
    "search_objects": (
        {"bk_obj_id": "bk_switch"},
        [MODEL],
        (
            {"$where": "1"},
            1199998,
            "Unknown or unrecognized error: body: the operator $where is not supported",
        ),
    ),
    "update_object": (
        {"id": 8, "bk_obj_name": "Gateway"},
        None,
        ({"id": 99}, 1101106, "model not found"),
    ),
    "delete_object": (
        {"id": 8},
        None,
        ({"id": 1}, 1101135, "Prohibition of deleting the built-in model"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_endpoint_answers_and_refuses(call_endpoint, name):
    assert_answers(call_endpoint, name, message="")


@pytest.mark.parametrize("name", CALLS)
def test_endpoint_answers_and_refuses_behind_esb(demo, name):
    with Esb(demo.url, []) as esb:
        call = caller(esb.url, demo.secret, credentials_in="body")
        assert_answers(call, name, message="success")


def assert_answers(call, name, message):
    """Calls an endpoint as `CALLS` says. `message` is that of a success."""
    fields, data, (wrong, code, reason) = CALLS[name]
    answer = call(name, fields | wrong)
    assert answer == refusal(answer, code, reason)
    answer = call(name, fields, user="guest")
    assert answer["permission"]["actions"]
    assert answer == refusal(answer, 9900403, TEXTS["en"]["no permission"], answer["permission"])
    # The refused requests changed nothing.
    answer = call(name, fields)
    expected = success(answer, data) | {"message": message}
    assert without_new_times(answer) == without_new_times(expected)


def test_every_name_of_the_gateway_api_is_called():
    assert CALLS.keys() | NOT_IN_THE_SDK == COMPONENTS.keys()
