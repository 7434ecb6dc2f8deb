"""The wire models by which a pod says how far it has come, and the operator tells it in a Workspace's status.

An inference pod answers a ``LoadProgress`` at ``GET /v1/progress`` from its first second on. A tuning pod answers
a ``TuneProgress`` at the same path, and writes its last one as its termination message, so that the outcome is
known after the pod has gone. Absent numbers are unknown, never zero.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from api.model import ApiModel

PROGRESS_PATH = "/v1/progress"


class LoadStage(StrEnum):
    """Where a server is between its start and its first answer."""

    PULLING = "Pulling"  # the model's files
    LOADING = "Loading"  # the files into the engine
    READY = "Ready"
    FAILED = "Failed"


class LoadProgress(ApiModel):
    """How far an inference server has come."""

    stage: LoadStage
    bytes_done: int | None = Field(default=None, ge=0, description="Bytes of the model's files that are here.")
    bytes_total: int | None = Field(default=None, ge=0, description="Bytes of all files, once that is known.")
    bytes_per_second: float | None = Field(default=None, ge=0)
    seconds_left: float | None = Field(default=None, ge=0, description="Until this stage ends, by what was seen.")
    message: str = Field(default="", description="What it does, or why it failed, for a person.")


class TuneStage(StrEnum):
    """Where a tuning run is."""

    FETCHING = "Fetching"  # the dataset
    LOADING = "Loading"  # the base model
    TRAINING = "Training"
    SAVING = "Saving"
    PUSHING = "Pushing"  # the adapter, to its registry
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class TuneFailure(StrEnum):
    """Why a tuning run failed, as a word that a condition's reason can carry."""

    CONFIG_INVALID = "TuningConfigInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_REFUSED = "DatasetAddressRefused"
    DATASET_INVALID = "DatasetInvalid"
    COLUMN_MISSING = "DatasetColumnMissing"
    MODEL_NOT_FOUND = "BaseModelNotFound"
    OUT_OF_MEMORY = "TuningOutOfMemory"
    DISK_FULL = "TuningDiskFull"
    PUSH_DENIED = "OutputPushDenied"
    PUSH_FAILED = "OutputPushFailed"
    TRAINING_FAILED = "TrainingFailed"


class TuneProgress(ApiModel):
    """How far a tuning run has come; the last one says how it ended."""

    stage: TuneStage
    epoch: float | None = Field(default=None, ge=0)
    step: int | None = Field(default=None, ge=0)
    steps: int | None = Field(default=None, ge=0, description="Optimiser steps of the whole run.")
    loss: float | None = None
    seconds_left: float | None = Field(default=None, ge=0)
    bytes_done: int | None = Field(default=None, ge=0)
    bytes_total: int | None = Field(default=None, ge=0)
    resumed_from: int | None = Field(default=None, ge=0, description="Step of the checkpoint that it began at.")
    image: str | None = Field(default=None, description="What was pushed, once it was.")
    digest: str | None = Field(default=None, description="Digest of the pushed manifest.")
    reason: TuneFailure | None = None
    message: str = ""
    next_step: str = Field(default="", description="What a person can do about a failure.")
