"""Fields of a BoAmps report as version 1.1.0 of its data model has them: types, permitted words, what is required.

Source: https://github.com/Boavizta/BoAmps, folder `model` (CC BY 4.0). Closed here, where the original lets other
fields through, so that a misspelt name is found.
"""

from typing import Any

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def closed(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "additionalProperties": False, "properties": properties, "required": required.split(),
    }  # fmt: skip


def texts(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), TEXT)


def numbers(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), NUMBER)


def some(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


PUBLISHER = closed(
    "confidentialityLevel",
    **texts("name division projectName publicKey"),
    confidentialityLevel=one_of("public", "internal", "confidential", "secret"),
)
HEADER = closed(
    "reportDatetime",
    **texts("licensing formatVersion formatVersionSpecificationUri reportId reportDatetime"),
    reportStatus=one_of("draft", "final", "corrective", "other"),
    publisher=PUBLISHER,
)
ALGORITHM = closed(
    "",
    **texts("trainingType algorithmType algorithmName algorithmUri foundationModelName foundationModelUri framework"),
    **texts("frameworkVersion classPath optimizer quantization"),
    **numbers("parametersNumber layersNumber epochsNumber"),
)
DATASET = closed(
    "dataUsage dataType",
    dataUsage=one_of("input", "output"),
    dataType=one_of("tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"),
    **texts("dataFormat shape sourceUri owner"),
    **numbers("dataSize dataQuantity"),
    source=one_of("public", "private", "other"),
)
TASK = closed(
    "taskStage taskFamily algorithms dataset",
    **texts("taskStage taskFamily taskDescription"),
    nbRequest=NUMBER,
    algorithms=some(ALGORITHM),
    dataset=some(DATASET),
    measuredAccuracy=SHARE,
    estimatedAccuracy=one_of("veryPoor", "poor", "average", "good", "veryGood"),
)
MEASURE = closed(
    "measurementMethod powerConsumption",
    **texts("measurementMethod manufacturer version cpuTrackingMode gpuTrackingMode measurementDateTime"),
    averageUtilizationCpu=SHARE,
    averageUtilizationGpu=SHARE,
    **numbers("powerCalibrationMeasurement durationCalibrationMeasurement powerConsumption measurementDuration"),
)
COMPONENT = closed(
    "componentType nbComponent",
    **texts("componentName componentType manufacturer family series"),
    nbComponent={"type": "integer"},
    memorySize={"type": "integer"},
    share=SHARE,
)
INFRASTRUCTURE = closed(
    "infraType components",
    infraType=one_of("publicCloud", "privateCloud", "onPremise", "other"),
    **texts("cloudProvider cloudInstance cloudService"),
    components=some(COMPONENT),
)
ENVIRONMENT = closed(
    "country",
    **texts("country location"),
    **numbers("latitude longitude powerSourceCarbonIntensity"),
    powerSupplierType=one_of("public", "private", "internal", "other"),
    powerSource=one_of("solar", "wind", "nuclear", "hydroelectric", "gas", "coal", "other"),
)
REPORT = closed(
    "task measures infrastructure",
    header=HEADER,
    task=TASK,
    measures=some(MEASURE),
    system=closed("os", **texts("os distribution distributionVersion")),
    software=closed("language", **texts("language version")),
    infrastructure=INFRASTRUCTURE,
    environment=ENVIRONMENT,
    quality=one_of("high", "medium", "low"),
)
