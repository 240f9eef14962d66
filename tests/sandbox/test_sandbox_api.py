"""The API's operations, v4 and v2, their errors, and the sandbox's page."""

import asyncio
import re

import pytest
from aiohttp import FormData

from nanonets_proxy.sandbox import fake_results, store
from nanonets_proxy.sandbox.app import OPERATIONS
from nanonets_proxy.sandbox.limiter import is_docstrange
from nanonets_proxy.sandbox.policy import LimitRule

WORKFLOWS = "/api/v4/workflows"


async def json_of(response, status=200):
    content = await response.json()
    assert response.status == status, content
    return content


async def new_workflow(client, **members):
    created = await json_of(await client.post(WORKFLOWS, json=members))
    return f"{WORKFLOWS}/{created['id']}"


def pdf(content=b"hello", **fields):
    data = FormData(fields)
    data.add_field("file", content, filename="a.pdf")
    return data


async def test_an_asynchronous_document_is_pending_for_the_set_number_of_polls(sandbox):
    client = await sandbox(pending_polls=2)
    url = f"{await new_workflow(client)}/documents"
    document = await json_of(await client.post(url, data=pdf(**{"async": "true"})))
    mine = f"{url}/{document['document_id']}"
    assert document["status"] == "pending"
    assert (await json_of(await client.get(f"{mine}/fields")))["fields"] == {}
    await client.head(mine)  # a HEAD does not count as a poll
    polls = [await json_of(await client.get(mine)) for _ in range(3)]
    assert [poll["status"] for poll in polls] == ["pending", "pending", "success"]
    assert polls[0]["pages"] == []
    assert (await json_of(await client.get(f"{mine}/fields")))["fields"]


async def test_an_asynchronous_prediction_is_pending_for_the_set_number_of_polls(sandbox):
    client = await sandbox(pending_polls=1)
    content = await json_of(await client.post("/api/v2/OCR/Model/m1/LabelFile/?async=true", data=pdf()))
    [entry] = content["result"]
    assert (entry["prediction"], entry["processing_type"]) == ([], "async")
    looked_up = f"/api/v2/Inferences/Model/m1/ImageLevelInferences/{entry['id']}"
    first, second = [(await json_of(await client.get(looked_up)))["result"][0] for _ in range(2)]
    assert (first["message"], first["prediction"]) == ("pending", [])
    assert second["message"] == "Success"
    assert [box["label"] for box in second["prediction"]] == list(fake_results.DEFAULT_FIELDS)
    assert (await client.get(looked_up.replace("m1", "m2"))).status == 404


async def test_a_synchronous_prediction_has_the_documented_shape(sandbox):
    client = await sandbox()
    content = await json_of(await client.post("/api/v2/OCR/Model/m1/LabelFile/", data=pdf()))
    [entry] = content["result"]
    assert content["message"] == entry["message"] == "Success"
    assert (entry["input"], entry["page"]) == ("a.pdf", 0)
    assert entry["request_file_id"] != entry["id"]
    listed = await json_of(await client.get("/api/v2/Inferences/Model/m1/ImageLevelInferences"))
    assert listed["unmoderated_images"] == [entry]


async def test_equal_bytes_give_equal_results_and_different_bytes_different_results(sandbox):
    client = await sandbox()
    url = f"{await new_workflow(client)}/documents"
    first, second, other = [
        (await json_of(await client.post(url, data=pdf(content))))["pages"] for content in (b"a", b"a", b"b")
    ]
    assert first == second
    assert first != other


async def test_results_have_the_workflows_fields_and_table_headers(sandbox):
    client = await sandbox()
    url = await new_workflow(client)
    names = ("ship_date", "unit_cost", "item_count", "customer_id", "vendor")
    await client.put(
        f"{url}/fields",
        json={"fields": [{"name": name} for name in names], "table_headers": [{"name": "quantity"}]},
    )
    data = (await json_of(await client.post(f"{url}/documents", data=pdf())))["pages"][0]["data"]
    assert tuple(data["fields"]) == names
    assert {cell["header"] for cell in data["tables"][0]["cells"]} == {"quantity"}
    await client.patch(f"{url}/settings", json={"table_capture": False})
    data = (await json_of(await client.post(f"{url}/documents", data=pdf())))["pages"][0]["data"]
    assert data["tables"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"description": 1}),
        ("POST", "", {"workflow_type": "unheard_of"}),
        ("PATCH", "/{w}", {}),
        ("PATCH", "/{w}/settings", {"table_capture": "yes"}),
        ("PUT", "/{w}/fields", {}),
        ("PUT", "/{w}/fields", {"fields": ["a"]}),
        ("PUT", "/{w}/fields", {"fields": [{"name": "a"}, {"name": "a"}]}),
        ("PUT", "/{w}/fields", {"fields": [{"name": "a b"}]}),
        ("PUT", "/{w}/fields", {"fields": [{"name": f"f{i}"} for i in range(31)]}),
        ("PUT", "/{w}/fields", {"fields": [], "table_headers": [{"name": f"f{i}"} for i in range(21)]}),
        ("GET", "/{w}/documents?page=0", None),
        ("GET", "/{w}/documents?limit=101", None),
        ("GET", "/{w}/documents?limit=all", None),
        ("PATCH", "/{w}/documents/{d}/pages/{p}/fields/{f}", {}),
        ("POST", "/{w}/documents/{d}/pages/{p}/fields", {"value": 1}),
        ("POST", "/{w}/documents/{d}/pages/{p}/fields/{f}/verify", {}),
        ("POST", "/{w}/documents/{d}/pages/{p}/tables", {"cells": [1]}),
        ("POST", "/{w}/documents/{d}/pages/{p}/tables", {"cells": [{"row": True, "col": 0}]}),
        ("POST", "/{w}/documents/{d}/pages/{p}/tables/{t}/cells", {"row": 0}),
    ],
)
async def test_an_invalid_v4_request_gets_400(sandbox, method, path, body):
    client = await sandbox()
    url = await new_workflow(client)
    document = await json_of(await client.post(f"{url}/documents", data=pdf()))
    [page] = document["pages"]
    path = path.format(
        w=url.rpartition("/")[2],
        d=document["document_id"],
        p=page["page_id"],
        f=page["data"]["fields"]["invoice_date"][0]["field_data_id"],
        t=page["data"]["tables"][0]["table_id"],
    )
    content = await json_of(await client.request(method, WORKFLOWS + path, json=body), 400)
    assert set(content) == {"code", "message", "details"}


@pytest.mark.parametrize(("body", "path"), [({"categories": "a"}, "Model"), ({"categories": [1]}, "Model/")])
async def test_an_invalid_v2_model_gets_400(sandbox, body, path):
    client = await sandbox()
    await json_of(await client.post(f"/api/v2/OCR/{path}", json=body), 400)


async def test_anything_missing_gets_404_in_the_documented_shape(sandbox):
    client = await sandbox()
    url = await new_workflow(client)
    document = await json_of(await client.post(f"{url}/documents", data=pdf()))
    mine = f"{url}/documents/{document['document_id']}"
    page = f"{mine}/pages/{document['pages'][0]['page_id']}"
    table = f"{page}/tables/{document['pages'][0]['data']['tables'][0]['table_id']}"
    other = await new_workflow(client)
    for method, missing in [
        ("GET", "/api/v4/nothing"),
        ("GET", "/nothing"),
        ("GET", f"{WORKFLOWS}/nothing"),
        ("DELETE", f"{url}/fields/nothing"),
        ("GET", f"{url}/documents/nothing"),
        ("GET", mine.replace(url, other)),
        ("GET", f"{mine}/pages/nothing"),
        ("DELETE", f"{page}/fields/nothing"),
        ("DELETE", f"{page}/tables/nothing"),
        ("DELETE", f"{table}/cells/nothing"),
    ]:
        content = await json_of(await client.request(method, missing), 404)
        assert content["code"] == "not_found"
        assert set(content) == {"code", "message", "details"}


async def test_a_wrong_method_gets_405_and_the_allowed_methods(sandbox):
    client = await sandbox()
    response = await client.delete(WORKFLOWS)
    assert (await json_of(response, 405))["code"] == "method_not_allowed"
    assert response.headers["Allow"] == "GET,HEAD,POST"


async def test_every_operation_exists_with_and_without_a_trailing_slash(sandbox):
    client = await sandbox()
    for operation in OPERATIONS:
        for path in (operation.path, f"{operation.path}/"):
            bearer = {"Authorization": "Bearer sandbox-key"} if is_docstrange(path) else None
            response = await client.request(operation.method, re.sub(r"\{\w+\}", "x", path), headers=bearer)
            content = await response.json()
            assert response.status in (200, 400, 404), (operation.method, path)
            # A 404 for a missing object has details; a 404 for an unknown path has none.
            assert response.status != 404 or content.get("details", content.get("detail")), (operation.method, path)


async def test_head_responds_like_get_without_a_body(sandbox):
    client = await sandbox()
    for path in ("/", WORKFLOWS, "/sandbox/stats"):
        head, get = await client.head(path), await client.get(path)
        assert head.status == get.status == 200
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        assert await head.read() == b""


async def test_models_are_created_trained_and_used_in_each_family(sandbox):
    client = await sandbox()
    for family in ("OCR", "ImageCategorization", "ObjectDetection"):
        models = f"/api/v2/{family}/Model"
        model = await json_of(await client.post(f"{models}/", json={"categories": ["cat", "dog"]}))
        assert model["state"] == 0
        mine = f"{models}/{model['model_id']}"
        assert [known["model_id"] for known in (await json_of(await client.get(models)))["models"]] == [
            model["model_id"]
        ]
        uploaded = await json_of(await client.post(f"{mine}/UploadFile/", data=pdf()))
        assert uploaded["files"][0]["size"] == 5
        await client.post(f"{mine}/Train/")
        assert (await json_of(await client.get(mine)))["state"] == 5
        [entry] = (await json_of(await client.post(f"{mine}/LabelFile/", data=pdf())))["result"]
        assert {item["label"] for item in entry["prediction"]} == {"cat", "dog"}
    assert (await json_of(await client.get("/api/v2/OCR/Model/any-id")))["model_id"] == "any-id"


async def test_a_classification_can_name_its_model_in_the_form(sandbox):
    client = await sandbox()
    url = "/api/v2/ImageCategorization/LabelFile/"
    content = await json_of(await client.post(url, data=pdf(modelId="mine")))
    assert sum(item["probability"] for item in content["result"][0]["prediction"]) == pytest.approx(1, abs=1e-3)
    await json_of(await client.post(url, data=pdf()), 400)


async def test_full_text_of_equal_bytes_is_equal(sandbox):
    client = await sandbox()
    url = "/api/v2/OCR/FullText"
    first, second = [(await json_of(await client.post(url, data=pdf())))["results"] for _ in range(2)]
    assert first == second
    assert first[0]["page_data"][0]["raw_text"]


def test_the_store_drops_the_oldest_entries():
    kept = store.Store(seed=0)
    for _ in range(store.MAX_WORKFLOWS + 1):
        kept.add_workflow(store.Workflow(kept.new_id(), "", "", ""))
    assert len(kept.workflows) == store.MAX_WORKFLOWS
    size_bytes = store.MAX_ORIGINAL_BYTES
    names = [kept.new_id() for _ in range(store.MAX_ORIGINALS_BYTES // size_bytes + 1)]
    content = bytes(size_bytes)
    for name in names:
        kept.add_document(store.Document(name, "w", "", "", None, 0, "", [], 0), content)
    assert kept.original(names[0]) is None
    assert kept.original(names[1]) == kept.original(names[-1]) == content
    kept.remove_document(names[1])
    kept.add_document(store.Document("new", "w", "", "", None, 0, "", [], 0), content)
    assert kept.original(names[2]) == content


def test_dropping_a_document_drops_its_file():
    kept = store.Store(seed=0)
    for number in range(store.MAX_DOCUMENTS + 1):
        kept.add_document(store.Document(str(number), "w", "", "", None, 0, "", [], 0), b"x")
    assert kept.original("0") is None
    assert kept.original("1") == b"x"


async def test_deleting_one_value_of_a_field_keeps_the_others(sandbox):
    client = await sandbox()
    url = f"{await new_workflow(client)}/documents"
    document = await json_of(await client.post(url, data=pdf()))
    page = f"{url}/{document['document_id']}/pages/{document['pages'][0]['page_id']}"
    values = [
        await json_of(await client.post(f"{page}/fields", json={"field_name": "note", "value": value}))
        for value in ("first", "second")
    ]
    await json_of(await client.delete(f"{page}/fields/{values[0]['field_data_id']}"))
    left = (await json_of(await client.get(page)))["data"]["fields"]["note"]
    assert [value["value"] for value in left] == ["second"]


@pytest.mark.parametrize(("limit", "shown"), [(None, "none"), (LimitRule(20, 60), "20/60s (fixed)")])
async def test_the_page_shows_the_limit_in_force(sandbox, limit, shown):
    client = await sandbox(limit=limit)
    page = await (await client.get("/")).text()
    assert f"<tr><th>Rate limit</th><td>{shown}</td></tr>" in page


async def test_the_page_shows_the_operations_and_escapes_the_callers_host(sandbox):
    client = await sandbox(api_keys=("a-secret-key",))
    response = await client.get("/", headers={"Host": 'my<b>"host'})
    page = await response.text()
    assert response.content_type == "text/html"
    assert "http://my&lt;b&gt;" in page
    assert "<b>" not in page
    assert "a-secret-key" not in page
    for operation in OPERATIONS:
        assert f"<code>{operation.method} {operation.path}</code>" in page


async def test_the_pages_examples_send_the_key_of_a_sandbox_without_a_proxy(sandbox):
    client = await sandbox()
    page = await (await client.get("/", headers={"Host": "box:8090"})).text()
    assert "export KEY=...   # one of the sandbox's keys" in page
    assert 'curl -u "$KEY:" http://box:8090/api/v4/workflows\n' in page


async def test_the_sandbox_works_after_a_caller_hangs_up(sandbox):
    client = await sandbox(latency_s=0.2)
    call = asyncio.create_task(client.get(WORKFLOWS))
    while not (await (await client.get("/sandbox/stats")).json())["admitted"]:
        pass
    call.cancel()
    await json_of(await client.get(WORKFLOWS))


async def test_a_matching_etag_brings_a_304_if_etags_are_on(sandbox):
    client = await sandbox(etags=True)
    first = await client.get(WORKFLOWS)
    etag = first.headers["ETag"]
    for named in (etag, f'"other", W/{etag}', "*"):
        same = await client.get(WORKFLOWS, headers={"If-None-Match": named})
        assert (same.status, await same.read(), same.headers["ETag"]) == (304, b"", etag)
    await new_workflow(client)
    changed = await client.get(WORKFLOWS, headers={"If-None-Match": etag})
    assert changed.status == 200
    assert changed.headers["ETag"] != etag
    assert "ETag" not in (await client.get(f"{WORKFLOWS}/none")).headers
    assert "ETag" not in (await client.post(WORKFLOWS, json={})).headers


async def test_there_are_no_etags_by_default(sandbox):
    client = await sandbox()
    assert "ETag" not in (await client.get(WORKFLOWS)).headers
