"""API v2: models of three families, training, predictions, and their lookup.

Most models are trained on Nanonets' website. The sandbox therefore treats any id as an existing model,
so that users can use their own ids.
"""

from typing import Any

from aiohttp import web

from nanonets_proxy.sandbox import fake_results
from nanonets_proxy.sandbox.responses import bad_request, not_found
from nanonets_proxy.sandbox.state import SANDBOX, Operation
from nanonets_proxy.sandbox.store import Inference, Json, Model
from nanonets_proxy.sandbox.uploads import ReceivedFile, Upload, read_json, read_upload

_CLASSIFICATION = "ImageCategorization"
_DEFAULT_LABELS = {
    "OCR": fake_results.DEFAULT_FIELDS,
    _CLASSIFICATION: ("first", "second"),
    "ObjectDetection": ("object",),
}


def _family(request: web.Request) -> str:
    return request.path.split("/")[3]  # /api/v2/{family}/...


def _model(request: web.Request, model_id: str) -> Model:
    family = _family(request)
    known = request.app[SANDBOX].store.models.get(model_id)
    if known is not None and known.family == family:
        return known
    return Model(model_id, family, _DEFAULT_LABELS[family])


async def list_models(request: web.Request) -> web.Response:
    models = request.app[SANDBOX].store.models.values()
    family = _family(request)
    return web.json_response({"models": [model.to_json() for model in models if model.family == family]})


async def create_model(request: web.Request) -> web.Response:
    categories = (await read_json(request)).get("categories", [])
    if not isinstance(categories, list) or not all(isinstance(label, str) for label in categories):
        raise bad_request("Invalid categories", error="categories must be a list of strings")
    sandbox, family = request.app[SANDBOX], _family(request)
    labels = tuple(categories) or _DEFAULT_LABELS[family]
    model = Model(sandbox.store.new_id(), family, labels, trained=False)
    sandbox.store.add_model(model)
    return web.json_response(model.to_json())


async def get_model(request: web.Request) -> web.Response:
    return web.json_response(_model(request, request.match_info["model"]).to_json())


async def train(request: web.Request) -> web.Response:
    await read_json(request)
    model = _model(request, request.match_info["model"])
    model.trained = True
    return web.json_response(model.to_json())


def _predict(request: web.Request, model: Model, file: ReceivedFile, received: Upload) -> Json:
    """Generates a file's prediction, stores it for lookups, and returns its entry in the response."""
    sandbox = request.app[SANDBOX]
    is_async = received.is_async(request)
    predict = fake_results.categories if model.family == _CLASSIFICATION else fake_results.boxes
    page_id = sandbox.store.new_id()
    result = {
        "message": "Success",
        "input": file.name,
        "prediction": predict(file.seed, model.labels),
        "page": 0,
        "request_file_id": sandbox.store.new_id(),
        "id": page_id,
        "request_metadata": received.fields.get("request_metadata", ""),
        "processing_type": "async" if is_async else "",
        "size": {"width": fake_results.PAGE_WIDTH_PX, "height": fake_results.PAGE_HEIGHT_PX},
    }
    inference = Inference(model.id, result, sandbox.policy.pending_polls if is_async else 0)
    sandbox.store.add_inference(page_id, inference)
    # Nanonets documents an empty prediction in the response to an asynchronous upload.
    return {**result, "prediction": []} if is_async else result


def _files(received: Upload) -> list[dict[str, Any]]:
    return [file.to_json() for file in received.files]


async def label(request: web.Request) -> web.Response:
    """Predicts the files. An operation without a model in its path takes the model from the field `modelId`."""
    received = await read_upload(request)
    model_id = request.match_info.get("model") or received.fields.get("modelId")
    if not isinstance(model_id, str) or not model_id:
        raise bad_request("Missing modelId", error="set the field modelId to the model's id")
    model = _model(request, model_id)
    result = [_predict(request, model, file, received) for file in received.files]
    return web.json_response({"message": "Success", "result": result, "files": _files(received)})


async def upload_training_data(request: web.Request) -> web.Response:
    received = await read_upload(request)
    return web.json_response({"message": "Success", "files": _files(received)})


async def full_text(request: web.Request) -> web.Response:
    received = await read_upload(request)
    results = [
        {"filename": file.name, "page_data": [{"page": 0, "raw_text": fake_results.text(file.seed)}]}
        for file in received.files
    ]
    return web.json_response({"message": "Success", "results": results, "files": _files(received)})


async def list_inferences(request: web.Request) -> web.Response:
    model_id = request.match_info["model"]
    inferences = request.app[SANDBOX].store.inferences.values()
    shown = [inference.to_json() for inference in inferences if inference.model_id == model_id]
    return web.json_response(
        {
            "moderated_images_count": 0,
            "unmoderated_images_count": len(shown),
            "moderated_images": [],
            "unmoderated_images": shown,
        }
    )


async def get_inference(request: web.Request) -> web.Response:
    page_id = request.match_info["page"]
    inference = request.app[SANDBOX].store.inferences.get(page_id)
    if inference is None or inference.model_id != request.match_info["model"]:
        raise not_found("Prediction", page_id)
    entry = inference.poll() if request.method == "GET" else inference.to_json()
    return web.json_response({"message": "Success", "result": [entry]})


def _family_operations(family: str) -> tuple[Operation, ...]:
    models = f"/api/v2/{family}/Model"
    model = models + "/{model}"
    return (
        Operation("GET", models, list_models, "list the models created here"),
        Operation("POST", models, create_model, "create a model"),
        Operation("GET", model, get_model, "get a model"),
        Operation("POST", model + "/LabelFile", label, "predict files (?async=true)"),
        Operation("POST", model + "/LabelUrls", label, "predict files by URL (?async=true)"),
        Operation("POST", model + "/UploadFile", upload_training_data, "upload training files"),
        Operation("POST", model + "/UploadUrls", upload_training_data, "add training files by URL"),
        Operation("POST", model + "/Train", train, "train a model"),
    )


_INFERENCES = "/api/v2/Inferences/Model/{model}/ImageLevelInferences"

OPERATIONS = (
    *_family_operations("OCR"),
    Operation("POST", "/api/v2/OCR/FullText", full_text, "get all text of files"),
    Operation("GET", _INFERENCES, list_inferences, "list the predictions of a model"),
    Operation("GET", _INFERENCES + "/{page}", get_inference, "get a prediction: its state and result"),
    *_family_operations(_CLASSIFICATION),
    Operation("POST", f"/api/v2/{_CLASSIFICATION}/LabelFile", label, "classify files with the model in modelId"),
    Operation("POST", f"/api/v2/{_CLASSIFICATION}/LabelUrls", label, "classify files by URL"),
    *_family_operations("ObjectDetection"),
)
